"""The HTTP server: its address, TLS, start and stop. uvicorn runs it, in the event loop of the gRPC server.

Rule of this module: only this module sets uvicorn's options.
"""

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
import time
from collections.abc import Iterator

import uvicorn

from mlflow_grpc.addresses import addresses_of, allow_reuse, cannot_listen, with_port
from mlflow_grpc.errors import AddressUnavailable, StartError
from mlflow_grpc.http.app import HttpApp
from mlflow_grpc.http.connections import KEEP_ALIVE_S, Connection
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.settings import Settings, spelling
from mlflow_grpc.tls_files import TlsFiles

logger = get_logger(__name__)

CHECK_INTERVAL_S = 1.0
"""Interval between two checks for headers that do not arrive, in seconds."""

BACKLOG = 2048
"""Number of connections that the kernel queues until they are accepted."""

DATE_INTERVAL_S = 1.0
"""Interval between two updates of the Date header, in seconds."""

CLOSE_LIMIT_S = 2.0
"""Maximum time for connections to close once all calls have ended, in seconds."""

logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # Any caller can cause its warnings.


class _Uvicorn(uvicorn.Server):
    """uvicorn's server without its signal handlers, because the process has its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.servers: list[asyncio.Server] = []  # uvicorn sets it when it begins to listen.
        self.is_listening = asyncio.Event()
        self.is_stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_listening.set()

    async def main_loop(self) -> None:
        """Updates the Date of responses until the server stops.

        uvicorn's loop looks ten times a second whether it should stop, which delays the end.
        """
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.is_stopping.wait(), DATE_INTERVAL_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpListener:
    """The HTTP port of one server; used once, from start to stop."""

    def __init__(self, app: HttpApp, settings: Settings, files: TlsFiles | None, *, share_port: bool) -> None:
        """Prepares the server.

        Args:
            app: Answers requests.
            settings: Where to listen.
            files: The TLS files; None for a port without TLS.
            share_port: True if other processes listen on the same port.

        """
        self._app = app
        self._settings = settings
        self._share_port = share_port
        configuration = uvicorn.Config(
            app.asgi,
            http=type("LimitedConnection", (Connection,), {"max_connections": max_connections()}),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            backlog=BACKLOG,
        )
        configuration.load()
        if files is not None:
            configuration.ssl = _context(files)
        self._server = _Uvicorn(configuration)
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, grpc_port: int) -> None:
        """Starts to listen.

        Args:
            grpc_port: Port of gRPC, which the page shows.

        Raises:
            AddressUnavailable: The address is in use, not on this machine, or not permitted.
            StartError: The host name is unknown.

        """
        self._app.grpc_port = grpc_port
        sockets = self._bind()
        serving = self._serving = asyncio.create_task(self._server.serve(sockets))
        listening = asyncio.create_task(self._server.is_listening.wait())
        try:
            await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if self._server.is_listening.is_set():
            return
        self._serving = None
        self.close_port()
        for bound in sockets:
            bound.close()
        try:
            await serving
        except OSError as error:  # Another process began to listen on the address after it was bound here.
            raise _unavailable(self._settings.http_host or self._settings.host, self.port, error) from error

    def _bind(self) -> list[socket.socket]:
        """Binds all addresses of the host, or none."""
        host = self._settings.http_host or self._settings.host
        port = self._settings.http_port or 0
        try:
            addresses = addresses_of(host)
        except OSError as error:
            raise StartError(f"{self._settings.source('http_host')} {host}: no such host ({error.strerror})") from error
        sockets: list[socket.socket] = []
        for family, _, address in addresses:
            # The protocol is set, because asyncio sets TCP_NODELAY only for sockets that have it.
            bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            sockets.append(bound)
            try:
                allow_reuse(bound, by_others=self._share_port)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(len(addresses) > 1))
                bound.bind((address[0], port, *address[2:]))
            except OSError as error:
                for opened in sockets:
                    opened.close()
                raise _unavailable(str(address[0]), port, error) from error
            port = bound.getsockname()[1]
        self.port = port
        return sockets

    async def watch(self) -> None:
        """Closes connections whose headers do not arrive; runs until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now = time.monotonic()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, Connection):
                    connection.close_if_overdue(now)

    @property
    def url(self) -> str:
        """URL of the port, for a browser."""
        host = self._settings.http_host or self._settings.host
        scheme = "http" if self._settings.tls_cert is None else "https"
        return f"{scheme}://{with_port(host, self.port)}"

    def send_callers_away(self) -> None:
        """Makes each response close its connection, so that callers go to another server."""
        self._app.dispatcher.is_closing = True

    def close_port(self) -> None:
        """Refuses new connections; open connections stay."""
        for server in self._server.servers:
            server.close()

    async def stop(self) -> None:
        """Closes all connections."""
        if self._serving is None:
            return
        self._server.should_exit = True
        self._server.is_stopping.set()
        done, _ = await asyncio.wait({self._serving}, timeout=CLOSE_LIMIT_S)
        self._server.force_exit = True
        if not done:
            self._abort_connections()
        (outcome,) = await asyncio.gather(self._serving, return_exceptions=True)
        if outcome is not None:
            logger.error("the HTTP port failed", exc_info=outcome)
            self.close_port()
            self._abort_connections()

    def _abort_connections(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()


def _context(files: TlsFiles) -> ssl.SSLContext:
    """Returns the context of the port, in which each new connection gets the files that are current then."""
    context = files.context

    # OpenSSL calls this for each handshake, also if the client names no server.
    def select(connection: ssl.SSLObject | ssl.SSLSocket, _name: str, _: ssl.SSLContext) -> None:
        connection.context = files.context

    # The contexts of later files never get a callback, so that none is called twice.
    context.sni_callback = select
    return context


def _unavailable(host: str, port: int, error: OSError) -> AddressUnavailable:
    setting = f"{spelling('http_port')} or MLFLOW_GRPC_HTTP_PORT"
    return AddressUnavailable(cannot_listen(host, port, str(error.strerror), setting))


def max_connections() -> int:
    """Returns the maximum number of connections: half of the files that the process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft // 2
