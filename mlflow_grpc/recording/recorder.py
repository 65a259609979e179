"""The thread that writes recorded calls, and its queue.

Rule of this module: calls put requests into the queue, and do nothing else. What does not fit is dropped and counted. A
disk that takes nothing costs recorded calls only.
"""

import asyncio
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import StartError
from mlflow_grpc.naming import name_from
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.recording.rows import EndedRequest, row_of
from mlflow_grpc.recording.sampling import SampledRequest
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.metrics import Metrics

if TYPE_CHECKING:  # They import pyarrow.
    from mlflow_grpc.recording.columns import CallRow
    from mlflow_grpc.recording.files import RecordFile

logger = get_logger(__name__)

MAX_QUEUED_BYTES, MAX_QUEUED = 32 * 2**20, 10_000
"""Maximum size of the payloads and answers in the queue, in bytes, and maximum number of their calls."""

MAX_GROUP_BYTES, MAX_GROUP = 4 * 2**20, 1_000
"""Size of the texts from which rows are written, in bytes, and number of rows; until then they are in memory."""

MAX_FILE_BYTES, MAX_FILE_S = 64 * 2**20, 60.0
"""Size from which a file is completed, in bytes, and its maximum age in seconds."""

RETRY_S = 10.0
"""Time after which writing is tried again that has failed, in seconds."""

WARN_S = 60.0
"""Minimum time between two lines about dropped calls, in seconds."""

END_LIMIT_S = 10.0
"""Maximum time for the queue to be written when the server ends, in seconds."""

WRITTEN, DROPPED, FAILED = "written", "dropped", "failed"
RESULTS = (WRITTEN, DROPPED, FAILED)
"""What happens to recorded calls: they are in a complete file, the thread could not keep up, or the disk failed."""


class Recorder:
    """Writes requests that have ended; each process of a server has its own."""

    def __init__(
        self,
        directory: Path,
        *,
        max_file_s: float = MAX_FILE_S,
        max_file_bytes: int = MAX_FILE_BYTES,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
        retry_s: float = RETRY_S,
    ) -> None:
        """Checks the directory, and starts no thread yet.

        Args:
            directory: Where the files go; it is created if it does not exist.
            max_file_s: Maximum age of a file, in seconds.
            max_file_bytes: Size from which a file is completed, in bytes.
            max_queued_bytes: Maximum size of the queue, in bytes.
            retry_s: Time after which writing is tried again that has failed, in seconds.

        Raises:
            StartError: The directory cannot be written.

        """
        self._directory = directory
        self.count: Callable[[str, int], object] = lambda _result, _number: None
        """Called with one of RESULTS and a number of calls: with DROPPED in the event loop, otherwise in the thread."""
        self._max_file_s, self._max_file_bytes, self._retry_s = max_file_s, max_file_bytes, retry_s
        self._max_queued_bytes = max_queued_bytes
        # Pods have the same process ids, and may share the directory.
        self._name = f"{name_from(socket.gethostname())}-{secrets.token_hex(4)}"
        self._changed = threading.Condition()
        self._queue: deque[EndedRequest] = deque()
        self._queued_bytes = self._dropped = 0
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._file: RecordFile | None = None
        self._file_number, self._complete_at = 0, 0.0
        self._group: list[CallRow] = []
        self._group_bytes = 0
        self._failed_at: float | None = None
        self._lost = 0
        self._warned_at, self._warned_dropped = -WARN_S, 0
        self._check()

    def _check(self) -> None:
        probe = self._directory / f".{self._name}.part"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe.touch(0o600)
            probe.unlink()
        except OSError as error:
            raise StartError(
                f"--record {self._directory}: {error.strerror}; name a directory that the server may write"
            ) from None

    def put(self, sampled: SampledRequest[Any], model: ServableModel) -> None:
        """Puts a request that has ended into the queue, or drops it; called in the event loop.

        Args:
            sampled: The request.
            model: The model that it was for.

        """
        ended = EndedRequest.of(sampled, model)
        with self._changed:
            is_full = len(self._queue) >= MAX_QUEUED or self._queued_bytes + ended.size > self._max_queued_bytes
            if self._is_closing or is_full:
                self._dropped += 1
                self.count(DROPPED, 1)
                return
            self._queue.append(ended)
            self._queued_bytes += ended.size
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="record-calls", daemon=True)
                self._thread.start()
            self._changed.notify()

    async def close(self) -> None:
        """Writes what is in the queue, and completes the file; gives up after END_LIMIT_S."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if (thread := self._thread) is None:
            return
        try:
            async with asyncio.timeout(END_LIMIT_S):
                await in_daemon_thread(thread.join, "end-recording")
        except TimeoutError:
            logger.warning("recorded calls are lost: they were not written within %g s", END_LIMIT_S)

    def _run(self) -> None:
        """Writes until `close`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closing, self._time_left_s())
                ended = self._queue.popleft() if self._queue else None
                if ended is not None:
                    self._queued_bytes -= ended.size
                is_over = ended is None and self._is_closing
            try:
                self._warn_of_dropped()
                if ended is not None:
                    self._add(ended)
                    ended = None
                if is_over or self._is_due():
                    self._complete()
            except Exception:
                logger.exception("recording calls failed, and goes on")
                self._lose()
            if is_over:
                return

    def _time_left_s(self) -> float | None:
        """Returns the time until the file has to be complete, in seconds; None if there is none."""
        if self._file is None and not self._group:
            return None
        return max(0.0, self._complete_at - time.monotonic())

    def _is_due(self) -> bool:
        left_s = self._time_left_s()
        return (left_s is not None and left_s <= 0) or (
            self._file is not None and self._file.size >= self._max_file_bytes
        )

    def _add(self, ended: EndedRequest) -> None:
        """Adds a request to the rows in memory, and writes them if they are many."""
        if self._failed_at is not None and time.monotonic() < self._failed_at + self._retry_s:
            self._lost += 1
            self.count(FAILED, 1)
            return
        if self._file is None and not self._group:
            self._complete_at = time.monotonic() + self._max_file_s
        row = row_of(ended)
        self._group.append(row)
        self._group_bytes += len(row.input or "") + len(row.output or "")
        if self._failed_at is not None:
            self._complete()  # At once, to find out if the disk takes files again.
        elif len(self._group) >= MAX_GROUP or self._group_bytes >= MAX_GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        """Writes the rows in memory."""
        from mlflow_grpc.recording.files import RecordFile

        try:
            if self._file is None:
                self._file_number += 1
                moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
                self._file = RecordFile(self._directory, f"{moment}-{self._name}-{self._file_number:06}")
            self._file.write(self._group)
        except OSError as error:
            self._failed(error)
            return
        self._group, self._group_bytes = [], 0

    def _complete(self) -> None:
        """Writes the rows in memory, and completes the file."""
        if self._group:
            self._write()
        if self._file is None:
            return
        try:
            self._file.finish()
        except OSError as error:
            self._failed(error)
            return
        self.count(WRITTEN, self._file.rows)
        self._file = None
        if self._failed_at is not None:
            self._failed_at = None
            logger.info("calls are recorded again in %s; %d were lost", self._directory, self._lost)
            self._lost = 0

    def _failed(self, error: OSError) -> None:
        """Gives up the file with all its rows, and says so if it is the first one."""
        is_first = self._failed_at is None
        self._failed_at = time.monotonic()
        self._lose()
        if is_first:
            logger.error(
                "cannot record calls in %s: %s. Calls are answered as before, and recording is tried again every %g s",
                self._directory,
                error.strerror or error,
                self._retry_s,
            )

    def _lose(self) -> None:
        """Gives up the rows in memory and the file, and counts their calls."""
        lost = len(self._group)
        self._group, self._group_bytes = [], 0
        if self._file is not None:
            file, self._file = self._file, None
            lost += file.rows
            file.abandon()
        self._lost += lost
        self.count(FAILED, lost)

    def _warn_of_dropped(self) -> None:
        """Says how many calls were dropped, at most once in WARN_S."""
        dropped, now = self._dropped, time.monotonic()
        if dropped > self._warned_dropped and now >= self._warned_at + WARN_S:
            logger.warning(
                "%d calls are not recorded, because they came faster than they can be written: record a smaller share",
                dropped - self._warned_dropped,
            )
            self._warned_at, self._warned_dropped = now, dropped


def make_recorder(settings: Settings, metrics: Metrics | None) -> Recorder | None:
    """Returns the recorder of a server; None if no calls are recorded.

    Args:
        settings: Where calls are recorded.
        metrics: Where recorded calls are counted; None if nowhere.

    Raises:
        StartError: The directory cannot be written.

    """
    if settings.record is None:
        return None
    recorder = Recorder(settings.record)
    if metrics is not None:
        recorder.count = metrics.recorded_calls(RESULTS)
    return recorder
