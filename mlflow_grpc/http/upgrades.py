"""Requests that ask for another protocol, such as HTTP/2 (`upgrade: h2c`): answered with HTTP/1.1 like all others.

Rule of this module: it parses nothing itself. A server may ignore the header `upgrade` (RFC 9110, section 7.8).
httptools ends the request behind such headers instead, and its body would be lost. Java's HttpClient and `curl --http2`
send the header to each address without TLS.
"""

from array import array
from typing import Protocol

import httptools

Headers = list[tuple[bytes, bytes]]


class RequestOwner(Protocol):
    """What uvicorn's protocol has of the request that its parser has reported last."""

    parser: httptools.HttpRequestParser
    url: bytes
    headers: Headers


class RequestParser(httptools.HttpRequestParser):
    """httptools' parser. It reports a request that asks for another protocol a second time, without that header.

    The first time, `should_upgrade` is true and the reports must be ignored.
    """

    def __init__(self, owner: RequestOwner) -> None:
        """Starts with the options of uvicorn.

        Args:
            owner: The protocol that gets the reports, and this parser.

        """
        super().__init__(owner)
        self._owner = owner
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: "bytes | bytearray | memoryview | array[int]") -> None:
        """Parses data that has arrived; raises HttpParserError if it is not HTTP."""
        parser: httptools.HttpRequestParser = self
        while True:
            try:
                return httptools.HttpRequestParser.feed_data(parser, data)
            except httptools.HttpParserUpgrade as upgrade:
                data = memoryview(data)[upgrade.args[0] :]
                head = _without_upgrade(parser, self._owner)
                parser = self._owner.parser = RequestParser(self._owner)
                httptools.HttpRequestParser.feed_data(parser, head)


def _without_upgrade(parser: httptools.HttpRequestParser, owner: RequestOwner) -> bytes:
    """Returns the request line and the headers of a request, without `upgrade`."""
    lines = [b"%b %b HTTP/%b" % (parser.get_method(), owner.url, parser.get_http_version().encode())]
    lines += [b"%b: %b" % header for header in owner.headers if header[0] != b"upgrade"]
    return b"\r\n".join(lines) + b"\r\n\r\n"
