"""Calls of a server under trial: what came of a call is a word, such as "answered" or the code of its error."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import requests

from benchmarks.contenders import ANY_SIZE
from benchmarks.peers.protocols import Protocol

ANSWERED = "answered"
LIMIT_S = 30.0


@dataclass
class Result:
    """What came of a call."""

    word: str
    values: list[Any]
    seconds: float

    def __str__(self) -> str:
        return f"{self.word} after {self.seconds:.1f} s"


class Caller:
    """Calls one protocol of a server."""

    def __init__(
        self, protocol: Protocol, port: int, *, token: str = "", credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self.protocol, self._token = protocol, token
        self._url = f"http://127.0.0.1:{port}{protocol.path}"
        self._channel = channel(port, credentials) if protocol.is_grpc else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._channel is not None:
            self._channel.close()

    def call(self, text: str, limit_s: float = LIMIT_S) -> Result:
        """Sends a payload and returns what came of it."""
        began = time.monotonic()
        values: list[Any] = []
        try:
            values = self.protocol.predictions(self._answer(text, limit_s))
        except grpc.RpcError as error:
            word = error.code().name
        except requests.Timeout:
            word = "no answer in time"
        except requests.HTTPError as error:
            word = f"HTTP {error.response.status_code}"
        except requests.ConnectionError as error:
            word = "connection refused" if "refused" in str(error) else "connection closed"
        except (ValueError, LookupError) as error:
            word = f"an answer of another form ({type(error).__name__})"
        else:
            word = ANSWERED
        return Result(word, values, time.monotonic() - began)

    def many(self, texts: Sequence[str], in_flight: int, limit_s: float = LIMIT_S) -> list[Result]:
        """Sends payloads, a number of them at a time."""
        with ThreadPoolExecutor(in_flight) as pool:
            return list(pool.map(lambda text: self.call(text, limit_s), texts))

    def _answer(self, text: str, limit_s: float) -> list[bytes]:
        messages = self.protocol.request(text)
        authorization = {"authorization": f"Bearer {self._token}"} if self._token else {}
        if self._channel is not None:
            return stream(self._channel, self.protocol.path, messages, limit_s, authorization)
        headers = {"content-type": "application/json", **authorization}
        response = requests.post(self._url, messages[0], headers=headers, timeout=limit_s)
        response.raise_for_status()
        return [response.content]


def channel(port: int, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """Returns a channel with a connection of its own, which does not pause between attempts."""
    options = [
        *ANY_SIZE,
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 50),
    ]
    target = f"127.0.0.1:{port}"
    return grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)


def stream(
    connected: grpc.Channel,
    path: str,
    messages: Sequence[bytes],
    limit_s: float = LIMIT_S,
    metadata: dict[str, str] | None = None,
) -> list[bytes]:
    """Returns all messages of the answer to some messages; an RPC without streams is the same on the wire."""
    method: Any = connected.stream_stream(path)
    return list(method(iter(messages), timeout=limit_s, metadata=tuple((metadata or {}).items())))


def status(connected: grpc.Channel, path: str, messages: Sequence[bytes], limit_s: float = LIMIT_S) -> tuple[str, int]:
    """Returns the status of an RPC, and the number of messages that it answered with."""
    try:
        return "OK", len(stream(connected, path, messages, limit_s))
    except grpc.RpcError as error:
        return error.code().name, 0


def credentials(authority: Path, client: Path | None = None) -> grpc.ChannelCredentials:
    """Returns credentials that trust an authority, and show the certificate of a client if there is one."""
    key = client.with_suffix(".key").read_bytes() if client else None
    return grpc.ssl_channel_credentials(authority.read_bytes(), key, client.read_bytes() if client else None)


def words(results: Iterable[Result]) -> str:
    """Counts what came of many calls, such as "20 answered, 3 UNAVAILABLE"."""
    counts: dict[str, int] = {}
    for result in results:
        counts[result.word] = counts.get(result.word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in counts.items())
