"""The handler for all log lines of the process.

Rule of this module: it never blocks an event loop; see `mlflow_grpc.logs.line_writer`.
"""

import logging
import time
from typing import TextIO

from mlflow_grpc.logs.call_log import CallLog, FieldsRecord
from mlflow_grpc.logs.line_writer import LineWriter


class LineHandler(logging.Handler):
    """Writes the lines of calls in groups, several times a second, and errors and all other lines at once.

    A write for each call would cost as much as the rest of its log line. Lines keep their order. A process that is
    killed loses the lines of the last moment.
    """

    def __init__(self, stream: TextIO, calls: CallLog) -> None:
        """Starts to write.

        Args:
            stream: Where lines go; it has a file descriptor.
            calls: Log of calls, whose notes come before each other record.

        """
        super().__init__()
        self._calls = calls
        self._writer = LineWriter(stream, prepare=calls.flush, make_loss_line=self._make_loss_line)

    def handle(self, record: logging.LogRecord) -> bool:
        """Queues a record after the notes of calls. The handler's lock is not held, because other locks are needed."""
        if not isinstance(record, FieldsRecord):
            self._calls.flush()
            self._writer.wait_for_room()
        return bool(super().handle(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Queues a record; called with the handler's lock held."""
        can_wait = isinstance(record, FieldsRecord) and record.levelno <= logging.WARNING
        try:
            self._writer.put(self.format(record), soon=not can_wait)
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)

    def flush(self) -> None:
        """Writes all queued lines, unless the stream has stalled."""
        self._calls.flush()
        self._writer.flush()

    def _make_loss_line(self, count: int) -> str:
        message = "log lines were lost here, because the lines before them were not read in time"
        record = FieldsRecord(__name__, time.time(), logging.WARNING, message, {"lines": count}, None)
        self.filter(record)
        return self.format(record)
