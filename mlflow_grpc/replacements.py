"""The replacement of workers that serve, one after the other: by a version with other code, or by other models.

A new worker loads in a free slot while the old one serves, and listens only once its models are loaded and checked.
Then the old one sends its callers away, and ends. If the new one fails, the old one goes on.

Rule of this module: it decides which worker is replaced by what. Its supervisor starts processes and reads messages.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mlflow_grpc.config import Configuration
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import END_REPLACED
from mlflow_grpc.registry_versions import Version
from mlflow_grpc.rollout.attempts import Attempts
from mlflow_grpc.rollout.config_file import ConfigurationFile
from mlflow_grpc.telemetry.configuration_metrics import ConfigurationMetrics
from mlflow_grpc.worker_handle import WorkerHandle, WorkerStart

logger = get_logger(__name__)

KILL_AFTER_S = 5.0
"""Time after the drain timeout until a worker is killed, in seconds."""


class Replacements:
    """Replaces workers of one supervisor; used in its loop."""

    def __init__(
        self,
        configuration: Configuration,
        workers: dict[int, WorkerHandle],
        versions: dict[str, Version],
        start: Callable[[WorkerStart], None],
        free_number: Callable[[], int],
        *,
        drain_timeout_s: float,
    ) -> None:
        """Replaces nothing yet.

        Args:
            configuration: Models of the server.
            workers: Workers that run, by number.
            versions: Versions that aliases mean to all workers; changed when a worker serves another one.
            start: Starts a worker; raises OSError or StartError if that is not possible.
            free_number: Returns the number of a slot that no worker has.
            drain_timeout_s: Time that the calls of a replaced worker have to end, in seconds.

        """
        self.configuration = configuration
        """Models that new workers serve."""
        self._workers, self._versions = workers, versions
        self._start, self._free_number = start, free_number
        self._limit_s = drain_timeout_s + KILL_AFTER_S
        self._requests: dict[int, tuple[str, Version]] = {}
        self._candidate: WorkerHandle | None = None
        self._target = configuration
        self._file: ConfigurationFile | None = None
        self._attempts = Attempts(0.0)
        self._metrics: ConfigurationMetrics | None = None

    def watch(self, file: ConfigurationFile, metrics: ConfigurationMetrics) -> None:
        """Serves the models of a file when it changes, and counts that in metrics."""
        self._file, self._metrics = file, metrics
        self._attempts = Attempts(2 * file.interval_s)

    def request(self, worker: WorkerHandle, uri: str, version: Version) -> None:
        """Notes that a worker wants to be replaced by one that serves a version of a URI."""
        self._requests[worker.number] = (uri, version)

    @property
    def next_at(self) -> float | None:
        """Time by which `step` has to be called again, in seconds; None if only events matter."""
        times = [worker.leaves_until for worker in self._workers.values() if worker.leaves_until is not None]
        return min([*times, *([self._file.next_at] if self._file is not None else [])], default=None)

    def step(self) -> None:
        """Looks at the file, ends workers that do not end by themselves, and starts the next replacement."""
        now = time.monotonic()
        leaving = [worker for worker in self._workers.values() if worker.leaves_until is not None]
        for worker in leaving:
            if worker.leaves_until is not None and now >= worker.leaves_until:
                logger.warning("worker %d did not end and is killed", worker.number)
                worker.process.kill()
        self._look(now)
        if self._candidate is None and not leaving:
            self._replace_next(now)

    def has_opened(self, worker: WorkerHandle) -> None:
        """Ends the worker that a new one has replaced."""
        if worker.start.replaces is None or worker.is_dropped:
            return
        self._versions |= worker.start.versions
        for uri, (name, version) in worker.start.versions.items():
            load_s = time.monotonic() - worker.started_at
            logger.info("%s/%s is served from now on, after %.2f s: %s names it", name, version, load_s, uri)
        if worker is self._candidate:
            self._candidate = None
            self._end_replaced(worker, self._workers[worker.start.replaces])
        if worker.start.configuration is not self.configuration:
            self._configured(worker.start.configuration)
        if self._metrics is not None and not worker.start.versions and not self._is_behind:
            self._metrics.ended("ok")
            self._metrics.set_behind(behind=False)

    def _end_replaced(self, worker: WorkerHandle, previous: WorkerHandle) -> None:
        pids = (worker.number, worker.process.pid, previous.number, previous.process.pid)
        logger.info("worker %d (pid %d) replaces worker %d (pid %d)", *pids)
        self._requests.pop(previous.number, None)
        previous.leaves_until = time.monotonic() + self._limit_s
        if previous.process.exitcode is None:
            os.kill(previous.process.pid, END_REPLACED)

    def has_ended(self, worker: WorkerHandle) -> bool:
        """Handles the end of a worker that was replaced, or that should have replaced another one.

        Returns:
            False if it is for the supervisor to replace the worker.

        """
        self._requests.pop(worker.number, None)
        if worker.leaves_until is not None:
            logger.info("worker %d (pid %d) has ended", worker.number, worker.process.pid)
            return True
        if self._candidate is None:
            return False
        if worker.number == self._candidate.start.replaces:
            self._candidate = None  # It is a worker like the others now, and is not ended before it serves.
            logger.error(
                "worker %d (pid %d) %s", worker.number, worker.process.pid, worker.end(worker.process.exitcode)
            )
            return True
        if worker is not self._candidate:
            return False
        self._candidate = None
        if worker.is_dropped and not worker.start.versions:
            return True
        ended = "the configuration file has changed meanwhile" if worker.is_dropped else worker.reason
        self._refuse(worker.start, ended or f"the new worker {worker.end(worker.process.exitcode)}")
        return True

    def _look(self, now: float) -> None:
        """Notes the models that the file has now."""
        if self._file is None:
            return
        try:
            read = self._file.look(now)
        except StartError as error:
            self._ignored(f"{error}; the file is ignored until it changes")
            self._target = self.configuration
        else:
            if read is None:
                return
            self._target = self.configuration if read == self.configuration else read
            for line in read.warnings:
                logger.warning("%s", line)
            if self._metrics is not None:
                self._metrics.set_behind(behind=self._is_behind)
        self._attempts.clear()
        candidate = self._candidate
        if candidate is not None and not candidate.loaded and candidate.start.configuration is not self._target:
            candidate.is_dropped = True  # One that is loaded may have calls already, and is replaced once it serves.
            candidate.process.kill()

    @property
    def _is_behind(self) -> bool:
        return any(worker.start.configuration is not self._target for worker in self._settled)

    @property
    def _settled(self) -> list[WorkerHandle]:
        """Workers that serve, and have not been replaced."""
        return [
            worker for worker in self._workers.values() if worker.serving_since is not None and not worker.leaves_until
        ]

    def _replace_next(self, now: float) -> None:
        behind = [worker for worker in self._settled if worker.start.configuration is not self._target]
        if behind and self._file is not None and self._attempts.may_try(self._file.digest, now):
            logger.info("worker %d is to be replaced: %s has changed", behind[0].number, self._file.path)
            self._replace(behind[0], self._target, {})
            return
        for number, (uri, version) in list(self._requests.items()):
            del self._requests[number]
            if (worker := self._workers.get(number)) is not None:
                self._replace(worker, worker.start.configuration, {uri: version})
                return

    def _replace(self, worker: WorkerHandle, configuration: Configuration, versions: dict[str, Version]) -> None:
        start = WorkerStart(self._free_number(), configuration, versions, worker.number, worker.served)
        try:
            self._start(start)
        except (OSError, StartError) as error:
            self._refuse(start, f"a worker cannot be started: {error}" if isinstance(error, OSError) else str(error))
            return
        self._candidate = self._workers[start.number]

    def _refuse(self, start: WorkerStart, reason: str) -> None:
        """Reports that a worker goes on: to the worker itself, or about the file."""
        if start.versions:
            if start.replaces is not None and (worker := self._workers.get(start.replaces)) is not None:
                with suppress(OSError):  # It has ended meanwhile, which the next step handles.
                    worker.pipe.send(reason)
            return
        if self._file is not None:
            for uri in self._versions.keys() - {model.uri for model in self.configuration.models}:
                del self._versions[uri]  # It may mean another version when it is tried again.
            pause_s = self._attempts.failed(self._file.digest, time.monotonic())
            self._ignored(
                f"{self._file.path} cannot be served: {reason}. Meanwhile the models before it go on; next attempt in "
                f"{pause_s:.0f} s"
            )

    def _ignored(self, line: str) -> None:
        logger.error("%s", line)
        if self._metrics is not None:
            self._metrics.ended("failed")
            self._metrics.set_behind(behind=True)

    def _configured(self, configuration: Configuration) -> None:
        """Makes a configuration that one worker serves that of all workers that are started later."""
        path = self._file.path if self._file is not None else Path()
        before, now = (
            {model.name or model.source: model for model in models}
            for models in (self.configuration.models, configuration.models)
        )
        changes = [
            *(f"{label} is new" for label in now if label not in before),
            *(f"{label} is gone" for label in before if label not in now),
            *(f"{label} has changed" for label in now if label in before and before[label] != now[label]),
        ]
        logger.info("%s is served from now on: %s", path, "; ".join(changes) or "its models are the same")
        self.configuration = configuration
        for uri in self._versions.keys() - {model.uri for model in configuration.models}:
            del self._versions[uri]
