"""The stand on which one server is tried: it starts the server with options, and ends it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc

from benchmarks.peers.faces import PeerError, Running
from benchmarks.peers.features.calls import ANSWERED, LIMIT_S, Caller, Result, channel
from benchmarks.peers.features.models import ProbeLog, payload, wait_until
from benchmarks.peers.features.tried import Options, Tried
from benchmarks.peers.protocols import Protocol, Tensors

START_LIMIT_S = 120.0
ATTEMPT_LIMIT_S = 5.0
ONE_ROW = payload(1.0)


@dataclass(frozen=True)
class Models:
    """The models of the trials."""

    first: Path
    second: Path


@dataclass(frozen=True)
class Observation:
    """What was observed on one server."""

    short: str
    """The cell of the README's table."""
    seen: str
    """What happened, for the report."""


class Started:
    """A server that runs with options."""

    def __init__(self, server: Tried, running: Running) -> None:
        self.server, self.running, self.location = server, running, running.location
        self.log = ProbeLog(self.location.folder / "probe.log")

    def caller(
        self,
        protocol: Protocol | None = None,
        *,
        token: str = "",
        credentials: grpc.ChannelCredentials | None = None,
    ) -> Caller:
        """Returns what calls the server by a protocol, which is the server's main one if none is named."""
        protocol = protocol or main_protocol(self.server)
        port = self.location.grpc_port if protocol.is_grpc else self.location.http_port
        return Caller(protocol, port, token=token, credentials=credentials)

    def call(
        self,
        protocol: Protocol | None = None,
        text: str = ONE_ROW,
        *,
        token: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        limit_s: float = LIMIT_S,
    ) -> Result:
        """Returns what comes of one call on a connection of its own."""
        with self.caller(protocol, token=token, credentials=credentials) as caller:
            return caller.call(text, limit_s)

    def channel(self) -> grpc.Channel:
        """Returns a channel to the gRPC port."""
        return channel(self.location.grpc_port)

    def is_ready(self, credentials: grpc.ChannelCredentials | None = None, limit_s: float = START_LIMIT_S) -> bool:
        """Waits until the server answers a call, or has ended."""

        def answers() -> bool:
            try:
                token = self.server.token(self.location) if self.server.options.tokens else ""
            except (FileNotFoundError, ValueError):
                return False  # The server has not written it yet, or not all of it.
            return self.call(token=token, credentials=credentials, limit_s=ATTEMPT_LIMIT_S).word == ANSWERED

        wait_until(lambda: self.running.process.has_ended or answers(), limit_s)
        return not self.running.process.has_ended and answers()


class Stand:
    """One server and the models of the trials."""

    def __init__(self, server: type[Tried], models: Models, folder: Path) -> None:
        """Starts nothing yet.

        Args:
            server: The server.
            models: The models that it serves.
            folder: An empty folder for its files.

        """
        self._server, self._models, self._folder = server, models, folder
        self._starts = 0
        self._plain: Started | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def server(self) -> type[Tried]:
        """The server that is tried."""
        return self._server

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self._folder

    @property
    def models(self) -> Models:
        """The models of the trials."""
        return self._models

    @property
    def plain(self) -> Started:
        """The server without options, which all trials share that need none."""
        if self._plain is None:
            self._plain = self._stack.enter_context(self.start(Options()))
        return self._plain

    @contextmanager
    def start(
        self, options: Options, credentials: grpc.ChannelCredentials | None = None, *, must_answer: bool = True
    ) -> Iterator[Started]:
        """Starts the server with options, and ends it with the block.

        Args:
            options: What it is started with.
            credentials: Credentials of the first call.
            must_answer: Whether to wait for the answer to a call.

        Raises:
            PeerError: The server does not start.

        """
        self._starts += 1
        folder = self._folder / str(self._starts)
        folder.mkdir(parents=True)
        server = self._server(options)
        running = Running(server, self._models.first, folder, 0.0)
        try:
            started = Started(server, running)
            if must_answer and not started.is_ready(credentials):
                raise PeerError(f"{server.name} does not answer: {running.process.last_output()[-300:]}")
            yield started
        finally:
            running.process.end()


def main_protocol(server: Tried | type[Tried]) -> Protocol:
    """Returns the protocol of the trials that are about calls as such."""
    if not server.has_grpc:
        return server.json_over_http
    return server.json_over_grpc or Tensors()
