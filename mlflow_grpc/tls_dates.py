"""The dates of a server's certificate: whether a client accepts them, and when it expires.

Rule of this module: Python's `ssl` reads no dates of a certificate before it is sent, so a client of ours makes a
handshake in memory. Nothing but the dates is judged. OpenSSL has loaded the certificate, so its form is valid.
"""

import base64
import datetime as dt
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

PROBLEMS = {9: "it is not valid yet", 10: "it has expired"}
"""What is wrong, by OpenSSL's codes X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""

MAX_TURNS = 4
"""Maximum number of turns of both sides; a client checks the certificate in its second."""


def date_problem(context: ssl.SSLContext, cert: Path) -> str:
    """Returns why clients refuse a certificate by its dates; empty if they do not.

    Args:
        context: Context of a server with the certificate.
        cert: File of the certificate.

    Raises:
        OSError: The file cannot be read any more.

    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # The certificate itself is trusted, without its authority.
    trusting.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for turn in range(2 * MAX_TURNS):
        try:
            (server if turn % 2 else client).do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            return PROBLEMS.get(error.verify_code, "")
        except ssl.SSLError:  # The server requires a certificate of its client, which has checked that of the server.
            return ""
    return ""


def expiry(pem: bytes) -> float:
    """Returns the time at which the first certificate of a file expires, in seconds since 1970 (RFC 5280, 4.1.2.5).

    The handshake of `date_problem` does not show it, because a client gets no certificate that has expired.

    Args:
        pem: A certificate chain.

    Raises:
        ValueError: There is no certificate.

    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("no certificate in PEM format")
    _, certificate = next(_elements(base64.b64decode(found[1])))
    _, to_be_signed = next(_elements(certificate))
    fields = [content for tag, content in _elements(to_be_signed) if tag != _VERSION]
    (_, _), (tag, not_after) = _elements(fields[_VALIDITY])
    text = not_after.decode()
    if tag == _UTC_TIME:  # Two digits of the year, from 1950 on.
        text = f"{'20' if text < '50' else '19'}{text}"
    return dt.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()


_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)-----END", re.DOTALL)
"""A certificate in any of the forms of PEM that OpenSSL reads."""

_VERSION, _UTC_TIME = 0xA0, 0x17
"""Tags of ASN.1: of the version of a certificate, which may be absent, and of a time until 2049."""

_VALIDITY = 3
"""Index of the dates in a certificate, after its serial number, the algorithm and the issuer."""


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the tag and the content of each element of ASN.1, in DER (X.690, 8.1)."""
    at = 0
    while at < len(der):
        tag, size, begin = der[at], der[at + 1], at + 2
        if size & 0x80:
            begin += size & 0x7F
            size = int.from_bytes(der[at + 2 : begin])
        at = begin + size
        yield tag, der[begin:at]
