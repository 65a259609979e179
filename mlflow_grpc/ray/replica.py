"""A replica: a host of models in a process of Ray Serve.

Ray Serve makes the replica, starts the gRPC server of the process if it has one, awaits `reconfigure`, checks the
health again and again, and awaits `close` once that server has answered the calls in flight.

Rule of this module: it moves a host through its life. The host runs in the event loop of the gRPC server, which is
another one than that of the methods here unless RAY_SERVE_THROUGHPUT_OPTIMIZED is set.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mlflow_grpc import config, logs, settings
from mlflow_grpc.host import Host
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.ray import registration
from mlflow_grpc.ray.agent_metrics import AgentMetrics
from mlflow_grpc.ray.autoscaling import UTILIZATION
from mlflow_grpc.ray.elsewhere import followed, notes
from mlflow_grpc.ray.fallback import WrappedCalls
from mlflow_grpc.rollout.configuration import tracked
from mlflow_grpc.runner import SWITCH_INTERVAL_S
from mlflow_grpc.services.in_process import InProcessCaller
from mlflow_grpc.settings import Settings

logger = get_logger(__name__)

ResultT = TypeVar("ResultT")


class ModelReplica:
    """A deployment of Ray Serve that hosts the models of a configuration."""

    def __init__(self, flags: dict[str, Any], *, has_metrics: bool = False) -> None:
        """Makes the host; loads nothing.

        Args:
            flags: Settings by the names of their fields, for `Settings.load`.
            has_metrics: True to offer the server's metrics by Ray's agent.

        Raises:
            StartError: A setting or the file of models is invalid.

        """
        loaded, ignored = followed(Settings.load(flags))
        configuration = tracked(config.load(loaded), loaded)
        logs.configure(
            loaded.log_format, loaded.log_level, libraries=loaded.log_level_libraries, extra=configuration.logging
        )
        for line in (*settings.ignored_environment(flags), *ignored, *configuration.warnings):
            logger.warning("%s", line)
        for line in notes(loaded, configuration):
            logger.info("%s", line)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._host = Host(loaded, configuration, has_metrics=has_metrics, only_server=False)
        self._served = registration.offer(self._host)
        self._wrapped = WrappedCalls(InProcessCaller(self._host.handlers, peer="ray-serve"))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Future[None] | None = None
        # On the instance, where Ray Serve looks for it, and not on the class, where garbage collection would.
        setattr(self, "__del__", self.close)  # noqa: B010

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Returns the method that Ray Serve's wrapper calls for RPCs of a name."""
        wrapped: WrappedCalls | None = self.__dict__.get("_wrapped")
        if wrapped is None or (method := wrapped.method(name)) is None:
            raise AttributeError(name)
        return method

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Loads the models. Ray Serve sends calls to the replica afterwards.

        Args:
            user_config: Has to be empty, because a change of settings needs new replicas.

        Raises:
            StartError: A model cannot be loaded.
            ValueError: `user_config` is not empty.

        """
        if user_config:
            raise ValueError("user_config has no effect here: put settings under args, settings")
        if self._loop is None:
            self._loop = self._served.loop or asyncio.get_running_loop()
            await self._in_loop(self._open())

    async def _open(self) -> None:
        self._watching = asyncio.ensure_future(self._watch())
        await self._host.load()
        self._host.open()
        labels = ", ".join(entry.label for entry in self._host.catalog.entries if entry.loaded is not None)
        if self._served.loop is not None:
            logger.info("ready: %s on the gRPC server of this replica", labels)
        else:
            logger.warning(
                "ready: %s behind Ray Serve's wrapper: calls cost several times as much, deadlines do not reach the "
                "model, and clients do not retry. Set RAY_SERVE_ENABLE_HA_PROXY=1 in the environment of Ray on all "
                "nodes (docs/ray.md)",
                labels,
            )

    async def _watch(self) -> None:
        """Watches the host, and copies its metrics to Ray if there are any; runs until cancelled."""
        metrics = [] if self._host.gauges is None else [AgentMetrics(self._host.gauges).watch()]
        await asyncio.gather(self._host.watch(), *metrics)

    async def check_health(self) -> None:
        """Raises RuntimeError if the replica has to be replaced; Ray Serve calls this every few seconds."""
        if self._watching is None or self._watching.done():
            raise RuntimeError("the replica does not watch itself")
        if self._host.catalog.is_exhausted:
            raise RuntimeError("every thread is held by a call that does not end")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Reports the utilization, for `ByUtilization`."""
        return {UTILIZATION: self._host.utilization.value}

    async def close(self) -> None:
        """Ends the calls that are still open, and sends the traces that are left."""
        if self._loop is not None:
            await self._in_loop(self._close())
        logs.flush()

    async def _close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._host.end_calls()
        await self._host.close()

    async def _in_loop(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Runs a coroutine in the event loop of the host."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))
