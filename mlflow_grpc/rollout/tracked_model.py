"""One model that follows its registry: when to swap, when to wait, and what to say about it.

Rule of this module: it decides, and other modules of the package carry out. No error ends the tracking or changes what
is served.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.naming import registered_name_and_alias
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.rollout.attempts import Attempts
from mlflow_grpc.rollout.candidates import CandidateLoader, NeedsProcess
from mlflow_grpc.rollout.poller import Poller
from mlflow_grpc.rollout.publisher import Publisher
from mlflow_grpc.rollout.retirement import Retirement
from mlflow_grpc.rollout.supervisor_link import SupervisorLink

if TYPE_CHECKING:  # It imports MLflow.
    from mlflow_grpc.hosting.pyfunc.polling import RegisteredVersion

logger = get_logger(__name__)

HINT_PAUSE_S = 1.0
"""Minimum time between two queries that hints cause, in seconds."""

ANSWERS, GONE, SILENT = "answers", "gone", "silent"
"""What the registry does: it names a version, it has no such model or alias, or it does not answer."""


class TrackedModel:
    """The served version of one model, and the previous one while it is kept."""

    def __init__(
        self,
        entry: Entry,
        keep_previous_s: float,
        poller: Poller,
        candidates: CandidateLoader,
        publisher: Publisher,
        retirement: Retirement,
        versions: RegistryVersions,
        link: SupervisorLink | None,
    ) -> None:
        """Queries nothing yet.

        Args:
            entry: The model, in its state after the start.
            keep_previous_s: Time that a replaced version stays loaded, in seconds.
            poller: Queries the registry.
            candidates: Loads versions.
            publisher: Publishes versions.
            retirement: Ends versions.
            versions: Versions that aliases mean to all processes of the server.
            link: Connection to the supervisor, which replaces this process; None if there is none.

        """
        self.entry = entry
        self._link = link
        self._uri = entry.config.uri or ""
        self._interval_s = entry.config.track or 0.0
        self._keep_previous_s = keep_previous_s
        self._poller, self._candidates, self._publisher = poller, candidates, publisher
        self._retirement, self._versions = retirement, versions
        self._attempts = Attempts(2 * self._interval_s)
        self._registry = ANSWERS
        self._turn = asyncio.Lock()
        self._hinted = asyncio.Event()
        self._queried_at = 0.0
        self._kept: Entry | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics = entry.engine.metrics
        if self._metrics is not None:
            self._metrics.track()

    async def run(self) -> NoReturn:
        """Queries the registry again and again, until cancelled."""
        try:
            while True:
                await self._pause()
                try:
                    await self.follow()
                except Exception:
                    logger.exception("%s: tracking it failed; the served version goes on", self.entry.label)
        finally:
            for task in self._tasks:
                task.cancel()

    async def follow(self, *, at_once: bool = False) -> bool:
        """Queries the registry once, and serves the version that it names.

        Args:
            at_once: True to try a version that has failed before its pause is over.

        Returns:
            False if the registry names no version. The entry has an error if the version is not served.

        """
        async with self._turn:
            registered = await self._query()
            if registered is None:
                return False
            is_behind = registered.version != _version_of(self.entry)
            if self._metrics is not None:
                self._metrics.behind.set(is_behind)
            if not is_behind:
                self._attempts.clear()
                self.entry.error = ""
            elif at_once or self._attempts.may_try(registered.version, time.monotonic()):
                await self._try(registered)
            return True

    async def _pause(self) -> None:
        """Waits until the next query: for the interval, or until a hint."""
        # Spread, so that many servers neither query nor fetch all at once.
        interval_s = self._interval_s * random.uniform(0.8, 1.2)  # noqa: S311 - nothing secret
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval_s):
                await self._hinted.wait()
                await asyncio.sleep(self._queried_at + HINT_PAUSE_S - time.monotonic())
        self._hinted.clear()
        self._queried_at = time.monotonic()

    def hint(self, name: str, alias: str | None) -> bool:
        """Makes the next query early; returns False if the model follows another registered model or alias.

        Args:
            name: Name of the registered model.
            alias: The alias that has changed; None for any.

        """
        followed, followed_alias = registered_name_and_alias(self._uri)
        if followed != name or (alias is not None and followed_alias not in (alias, None)):
            return False
        self._hinted.set()
        return True

    async def _query(self) -> "RegisteredVersion | None":
        """Returns the version that the registry names; None if it names none, which is logged once."""
        from mlflow_grpc.hosting.pyfunc.polling import QueryFailed

        try:
            registered = await self._poller.current_version(self._uri)
        except QueryFailed as error:
            self._note(GONE if error.is_gone else SILENT, str(error))
            return None
        self._note(ANSWERS, f"it names version {registered.version}")
        return registered

    def _note(self, registry: str, reason: str) -> None:
        """Counts a query, and logs its result if it differs from that of the query before."""
        if self._metrics is not None:
            self._metrics.poll_ended("ok" if registry == ANSWERS else "failed")
        if registry == self._registry:
            return
        self._registry = registry
        what = {
            ANSWERS: "the registry answers again",
            GONE: "the registry has no such model or alias any more, and nothing changes",
            SILENT: "the registry does not answer, and nothing changes",
        }[registry]
        level = logging.INFO if registry == ANSWERS else logging.WARNING
        logger.log(level, "%s: %s: %s", self.entry.config.source, what, reason)

    async def _try(self, registered: "RegisteredVersion") -> None:
        """Serves a version, or says why not."""
        started_at = time.monotonic()
        try:
            if not await self._swap(registered):
                return
        except StartError as error:
            self._failed(registered.version, str(error))
            return
        except Exception as error:
            logger.exception("%s: version %s raised", self.entry.config.source, registered.version)
            self._failed(registered.version, one_line(error))
            return
        swap_s = time.monotonic() - started_at
        self._attempts.clear()
        self.entry.error = ""
        if self._metrics is not None:
            self._metrics.swap_ended("ok")
            self._metrics.loaded(swap_s)
            self._metrics.behind.set(0)
        logger.info("%s is served from now on, after %.2f s: %s names it", self.entry.label, swap_s, self._uri)
        version = (registered.name, registered.version)
        await in_daemon_thread(lambda: self._versions.replace(self._uri, version), "agree-on-version")
        if self._link is not None:
            await self._link.leave()

    async def _swap(self, registered: "RegisteredVersion") -> bool:
        """Publishes a version; returns False if the registry has named another one meanwhile."""
        if registered.status != "READY":
            raise StartError(f"its status in the registry is {registered.status}")
        if self._kept is not None and _version_of(self._kept) == registered.version:
            successor = self._kept
            if self._keeping is not None:
                self._keeping.cancel()
            try:
                await self._publish(successor)
            except BaseException:
                self._keep(successor)
                raise
            return True
        logger.info("loading version %s of %s, which %s names", registered.version, registered.name, self._uri)
        try:
            successor = await self._candidates.load(self.entry, registered)
        except NeedsProcess:
            if self._link is None:
                raise
            logger.info(
                "version %s of %s has other Python code of its own, which needs another process",
                registered.version,
                registered.name,
            )
            await self._link.request_replacement(self._uri, (registered.name, registered.version))
            raise
        try:
            latest = await self._query()
            if latest is not None and latest.version != registered.version:
                logger.info("%s is dropped: %s names version %s now", successor.label, self._uri, latest.version)
                await self._retirement.discard(successor.directory, successor)
                return False
            await self._publish(successor)
        except BaseException:
            await self._retirement.discard(successor.directory, successor)
            raise
        return True

    async def _publish(self, successor: Entry) -> None:
        previous = self.entry
        await self._publisher.publish(previous, successor)
        self.entry = successor
        if self._kept is not None and self._kept is not successor:
            self._start(self._retire(self._kept))
        self._keep(previous)

    def _keep(self, previous: Entry) -> None:
        """Keeps the previous version loaded for some time; only one is kept."""
        if self._keeping is not None:
            self._keeping.cancel()
        self._kept = previous
        self._keeping = self._start(self._retire_later(previous))

    async def _retire_later(self, previous: Entry) -> None:
        await asyncio.sleep(self._keep_previous_s if previous.loaded is not None else 0.0)
        self._kept = self._keeping = None
        await self._retire(previous)

    async def _retire(self, previous: Entry) -> None:
        self._publisher.release(previous)
        await self._retirement.retire(previous)

    def _start(self, ending: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(ending)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a replaced version cannot be unloaded", exc_info=error)

    def _failed(self, version: str, reason: str) -> None:
        """Notes that a version is not served: in the log, in a metric and in the list of models."""
        pause_s = self._attempts.failed(version, time.monotonic())
        self.entry.error = f"version {version} is not served: {reason}"
        if self._metrics is not None:
            self._metrics.swap_ended("failed")
        served = _version_of(self.entry)
        goes_on = f"version {served} goes on" if served else "no version is served"
        problem = self.entry.error.rstrip(".")
        logger.error("%s: %s. Meanwhile %s; next attempt in %.0f s", self._uri, problem, goes_on, pause_s)


def _version_of(entry: Entry) -> str:
    """Returns the version in the registry of a loaded model; empty if none is loaded."""
    return entry.loaded.model.version if entry.loaded is not None else ""
