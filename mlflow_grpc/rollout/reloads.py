"""Reloads of models that a caller asks for, such as after the files of a model have changed.

A tracked model queries its registry at once. Another model is loaded beside the served one, and is published by the
same steps as a tracked model.

Rule of this module: the served version goes on until the reload has succeeded, and reloads take place one at a time.
"""

import asyncio
import gc
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine.catalog import STILL_LOADING, Catalog, Entry, State
from mlflow_grpc.errors import ModelNotLoaded, NotReady, StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.naming import can_move
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.rollout.candidates import CandidateLoader
from mlflow_grpc.rollout.poller import Poller
from mlflow_grpc.rollout.publisher import Publisher
from mlflow_grpc.rollout.retirement import Retirement
from mlflow_grpc.rollout.tracked_model import TrackedModel

if TYPE_CHECKING:  # It imports MLflow.
    from mlflow_grpc.hosting.pyfunc.polling import RegisteredVersion

logger = get_logger(__name__)

NOT_RELOADED = "The model was not reloaded, and what was served before goes on. RepositoryIndex and the log say why."

NO_ANSWER = "The registry does not name a version of the model. The server's log says why. Try again later."


class Reloads:
    """Reloads the models of a server."""

    def __init__(
        self,
        catalog: Catalog,
        candidates: CandidateLoader,
        poller: Poller,
        publisher: Publisher,
        retirement: Retirement,
        versions: RegistryVersions,
        tracked: list[TrackedModel],
        hindrance: str,
    ) -> None:
        """Reloads nothing yet.

        Args:
            catalog: The models.
            candidates: Loads versions.
            poller: Queries the registry.
            publisher: Publishes versions.
            retirement: Ends versions.
            versions: Versions that aliases mean to all processes of the server.
            tracked: Models that follow their registry.
            hindrance: Why this process cannot serve other files than those from the start; empty if it can.

        """
        self._catalog, self._hindrance = catalog, hindrance
        self._candidates, self._poller, self._publisher = candidates, poller, publisher
        self._retirement, self._versions, self._tracked = retirement, versions, tracked
        self._turn = asyncio.Lock()
        self._waiting: dict[int, asyncio.Task[None]] = {}  # Reloads that have not begun, by the index of the model.
        self._tasks: set[asyncio.Task[None]] = set()

    async def reload(self, entry: Entry) -> None:
        """Serves what the configuration of a model means now; returns once it is served.

        A caller that leaves does not end the reload. Callers share one that has not begun.

        Args:
            entry: A version of a model in the catalog.

        Raises:
            NotReady: The model is being loaded, or its registry does not answer.
            ModelNotLoaded: The model cannot be reloaded, or the version cannot be served.

        """
        # By the configuration, because another version may have replaced the entry.
        index = next(index for index, other in enumerate(self._catalog.entries) if other.config is entry.config)
        task = self._waiting.get(index)
        if task is None:
            task = self._waiting[index] = self._start(self._run(index))
        await asyncio.shield(task)

    def close(self) -> None:
        """Ends all reloads, when the server ends."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, index: int) -> None:
        async with self._turn:
            del self._waiting[index]
            entry = self._catalog.entries[index]
            if entry.state is State.LOADING:
                raise NotReady(STILL_LOADING)
            tracked = next((model for model in self._tracked if model.entry is entry), None)
            if tracked is not None:
                await self._follow(tracked)
            else:
                await self._reload(entry)

    async def _follow(self, tracked: TrackedModel) -> None:
        if not await tracked.follow(at_once=True):
            raise NotReady(NO_ANSWER)
        if tracked.entry.error:
            raise ModelNotLoaded(NOT_RELOADED)

    def _check(self, entry: Entry) -> None:
        """Raises ModelNotLoaded if this process cannot reload a model."""
        if entry.config.uri is None:
            raise ModelNotLoaded("The model is a Python class, which a process imports only once. Restart the server.")
        if self._hindrance:
            raise ModelNotLoaded(self._hindrance)

    async def _reload(self, entry: Entry) -> None:
        uri, registered = entry.config.uri or "", None
        if uri.startswith("models:/") and not can_move(uri) and entry.state is State.READY:
            return  # A version of the registry never changes.
        self._check(entry)
        if can_move(uri):
            registered = await self._current_version(uri)
            if entry.loaded is not None and entry.loaded.model.version == registered.version:
                entry.error = ""
                return
        try:
            await self._swap(entry, registered)
        except Exception as error:
            text = str(error) if isinstance(error, StartError) else one_line(error)
            entry.error = f"it was not reloaded: {text}"
            log = logger.error if isinstance(error, StartError) else logger.exception
            log("%s: %s", entry.config.source, entry.error)
            raise ModelNotLoaded(NOT_RELOADED) from error

    async def _current_version(self, uri: str) -> "RegisteredVersion":
        from mlflow_grpc.hosting.pyfunc.polling import QueryFailed

        try:
            return await self._poller.current_version(uri)
        except QueryFailed as error:
            logger.warning("%s was not reloaded: %s", uri, error)
            raise NotReady(NO_ANSWER) from error

    async def _swap(self, entry: Entry, registered: "RegisteredVersion | None") -> None:
        if registered is not None and registered.status != "READY":
            raise StartError(f"its status in the registry is {registered.status}")
        logger.info("reloading %s", entry.config.source)
        started_at = time.monotonic()
        successor = await self._candidates.load(entry, registered)
        try:
            await self._publisher.publish(entry, successor)
        except BaseException:
            await self._retirement.discard(successor.directory, successor)
            raise
        swap_s = time.monotonic() - started_at
        if successor.engine.metrics is not None:
            successor.engine.metrics.loaded(swap_s)
        logger.info("%s is served from now on, after %.2f s: a caller had it reloaded", successor.label, swap_s)
        self._start(self._retire(entry))
        if registered is not None:
            uri, version = entry.config.uri or "", (registered.name, registered.version)
            await in_daemon_thread(lambda: self._versions.replace(uri, version), "agree-on-version")

    async def _retire(self, previous: Entry) -> None:
        await self._retirement.retire(previous)
        if not self._tracked:
            await in_daemon_thread(_collect_exempt, "collect-model")

    def _start(self, steps: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(steps)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        # Asked for, because all callers may have left.
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ModelNotLoaded | NotReady):
            logger.error("a reload, or what follows it, raised", exc_info=error)


def _collect_exempt() -> None:
    """Frees the cycles of a model that was exempt from collection, as all models are that are not tracked.

    The collection looks at all of MLflow's modules, which takes 0.1 s. It happens only after a reload.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
