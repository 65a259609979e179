"""One server: a host with its ports, and the steps of its life: start, load, open, lame duck, drain, stop.

Rule of this module: it creates the ports; `mlflow_grpc.host` has all that does not need one. The steps are taken in
the order that `mlflow_grpc.runner` describes.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from mlflow_grpc import addresses
from mlflow_grpc.config import Configuration
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.host import Host
from mlflow_grpc.main_thread import MainThread
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.polling import Poller
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.rollout.supervisor_link import SupervisorLink
from mlflow_grpc.services import goaway, listener, reflection
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.metrics import ALONE, MetricsSlot
from mlflow_grpc.tls_files import tls_files

if TYPE_CHECKING:  # Its libraries are imported only if there is an HTTP port.
    from mlflow_grpc.http.listener import HttpListener

logger = get_logger(__name__)

FLUSH_S = 2.0
"""Maximum time for gRPC to send the last responses after the last call has ended, in seconds."""

NOTICE_S = 2.0
"""Time for a load balancer that only checks connections to notice the closed port, in seconds."""

HAND_OVER_LEAVE_LIMIT_S = 10.0
"""Maximum time for clients to read GOAWAY if another process serves meanwhile, in seconds."""

MIN_DRAIN_S = 1.0
"""Minimum time for calls to end after streams have been ended, in seconds."""

GOAWAY_LIMIT_S = 5.0
"""Maximum time that a busy connection is waited for until a GOAWAY can be sent, in seconds."""

LEAVE_LIMIT_S = 2.0
"""Maximum time for clients to read GOAWAY, in seconds. A client that has read it closes its connection after its last
call. Once `grpc.Server.stop` has begun, gRPC neither answers nor refuses some of the calls that arrive."""


class Server:
    """A server for the models of a configuration; used once, from start to stop."""

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        *,
        share_port: bool = False,
        slot: MetricsSlot = ALONE,
        versions: RegistryVersions | None = None,
        link: SupervisorLink | None = None,
    ) -> None:
        self._settings = settings
        self._tls = tls_files(settings)
        self.host = Host(settings, configuration, slot=slot, versions=versions, link=link)
        """Answers the calls of the gRPC port."""
        if (tls := self._tls) is not None and self.host.gauges is not None:
            self.host.gauges.add_certificate(lambda: tls.expires_at)
        self._http = self._http_port(configuration, share_port=share_port)
        self._grpc: grpc.aio.Server = listener.make_server(settings, self.host.handlers, share_port=share_port)
        self._goaway: asyncio.Future[None] | None = None
        self.port = 0

    @property
    def catalog(self) -> Catalog:
        """The models."""
        return self.host.catalog

    async def start(self) -> None:
        """Starts to listen. Health is NOT_SERVING and calls are UNAVAILABLE until a model is loaded.

        Raises:
            StartError: The address is taken, or the host name is unknown.

        """
        self.port = listener.listen(self._grpc, self._settings, self._tls, self.host.dispatcher.handshakes)
        await self._grpc.start()
        if self._http is not None:
            await self._http.start(self.port)

    def _http_port(self, configuration: Configuration, *, share_port: bool) -> "HttpListener | None":
        """Makes the HTTP port, if there is to be one; its libraries are imported only then."""
        if self.host.gauges is None:
            return None
        from mlflow_grpc.http.app import HttpApp
        from mlflow_grpc.http.listener import HttpListener

        app = HttpApp(
            self._settings,
            self.host.open_calls,
            self.host.gauges,
            configuration.service,
            self.host.models.describe_all,
            self.host.inference_models,
            self.host.gate,
            self.host.hint,
        )
        return HttpListener(app, self._settings, self._tls, share_port=share_port)

    async def load(self, main: MainThread, when_loading: Callable[[str], object]) -> None:
        """Loads the models; see `ModelLoader.load`."""
        await self.host.load(main, when_loading)

    def open(self) -> None:
        """Opens the server for calls, unless it is draining already."""
        self.host.open()

    @property
    def services(self) -> tuple[str, ...]:
        """Full names of the gRPC services, without reflection."""
        return self.host.services

    @property
    def takes_calls(self) -> bool:
        """True if the port is open and at least one model is; the first one may be before all are loaded."""
        return self.port != 0 and self.host.takes_calls

    @property
    def ready_line(self) -> str:
        """Log line about the served models, the address, the services and TLS."""
        ready = [entry for entry in self.catalog.entries if entry.loaded is not None]
        listed = ", ".join(f"{entry.label} ({entry.loaded.model.description})" for entry in ready if entry.loaded)
        services = [*self.services, *([reflection.NAME_V1, reflection.NAME] if self._settings.reflection else [])]
        http = f", HTTP on {self.http_url}" if self.http_url else ""
        where = f"{self.address}, services {', '.join(services)}{http}"
        listed = f"{'models' if len(ready) > 1 else 'model'} {listed} on {where}"
        return f"ready: {listed}; {listener.security(self._settings)}"

    @property
    def address(self) -> str:
        """Address of the server, as a client writes it."""
        return addresses.with_port(self._settings.host, self.port)

    @property
    def http_url(self) -> str:
        """Address of the HTTP port, as a browser takes it; empty if there is none."""
        return self._http.url if self._http is not None else ""

    async def watch(self) -> None:
        """Watches the host, the HTTP port and the TLS files; runs until cancelled."""
        with contextlib.ExitStack() as pollers:
            if self._tls is not None:
                pollers.enter_context(Poller(self._tls.look, "watch-tls"))
            await asyncio.gather(self.host.watch(), *([self._http.watch()] if self._http is not None else []))

    async def lame_duck(self, lame_duck_s: float) -> None:
        """Sends callers elsewhere while calls are answered as before.

        Health is NOT_SERVING. After the lame duck the port is closed. Once a load balancer that checks nothing else has
        had time to notice, GOAWAY tells clients to make no new calls on open connections.

        Args:
            lame_duck_s: Time that the port stays open, in seconds.

        """
        self.host.send_callers_away()
        if self._http is not None:
            self._http.send_callers_away()
        if lame_duck_s:
            logger.info("lame duck: NOT_SERVING, and calls are answered, for %g s", lame_duck_s)
            await asyncio.sleep(lame_duck_s)
        port = goaway.Port(self.port)
        port.close()
        if self._http is not None:
            self._http.close_port()
        await asyncio.sleep(min(NOTICE_S, lame_duck_s))
        await self._send_away(port, LEAVE_LIMIT_S)

    async def _send_away(self, port: goaway.Port, leave_limit_s: float) -> None:
        """Makes clients reconnect, and waits until no call arrives."""
        if self._settings.tls_cert is None:
            await port.send_goaway_to_all(limit_s=GOAWAY_LIMIT_S)
            await port.wait_until_left(limit_s=leave_limit_s)
        else:
            oldest_s = listener.connection_age_s(self._settings) * listener.MAX_AGE_SPREAD
            limit_s = min(oldest_s, self._settings.drain_timeout_s)
            logger.info("the port is closed; connections with TLS end at their age, within %g s", limit_s)
            await port.wait_until_left(limit_s=limit_s)
            # Sends GOAWAY on the connections that are left. gRPC cancels calls that clients send before they read it,
            # which are fewer than those that would be refused until the calls in flight have ended.
            self._goaway = asyncio.ensure_future(self._grpc.stop(self._settings.drain_timeout_s + FLUSH_S))
        await self.host.open_calls.arrivals.wait_until_idle()

    async def hand_over(self) -> float:
        """Sends callers to the process that listens on the same ports now, and waits for the calls that this one has.

        Health stays SERVING until clients have been notified, because the server as a whole has no pause. Streams go on
        too, up to the drain timeout.

        Returns:
            Time of the drain timeout that is left, in seconds; at least MIN_DRAIN_S.

        """
        until = time.monotonic() + self._settings.drain_timeout_s
        port = goaway.Port(self.port)
        port.close()
        if self._http is not None:
            self._http.close_port()
            self._http.send_callers_away()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._send_away(port, HAND_OVER_LEAVE_LIMIT_S)
                await self.host.wait_until_idle()
        return max(MIN_DRAIN_S, until - time.monotonic())

    async def drain(self, limit_s: float | None = None) -> int:
        """Refuses new calls, and waits for the calls in flight, up to a limit in seconds; see `Host.drain`.

        The limit is the drain timeout by default.
        """
        return await self.host.drain(self._settings.drain_timeout_s if limit_s is None else limit_s)

    async def stop(self) -> None:
        """Closes the port and all connections; calls in flight end with UNAVAILABLE."""
        self.host.end_calls()
        stopping = [self._grpc.stop(FLUSH_S), *([self._http.stop()] if self._http is not None else [])]
        await asyncio.gather(*stopping, *([self._goaway] if self._goaway is not None else []))
        await self.host.close()
