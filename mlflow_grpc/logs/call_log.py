"""The log of calls: one record for each call of the server, made outside of the call's way.

Rule of this module: taking a note of a call costs next to nothing. Records are made of many notes at a time.
"""

import logging
import os
import threading
import time
from collections import deque
from typing import Any

from mlflow_grpc import own_loggers

MAX_NOTES = 64
"""Maximum number of notes that wait until records are made of them."""


_DEFAULTS = vars(logging.makeLogRecord({}))


class FieldsRecord(logging.LogRecord):
    """A record made of fields, one for each call of the server.

    It leaves out the line of code, the process and the thread. Finding these out costs several times as much as the
    rest of the record.
    """

    def __init__(
        self, name: str, created: float, level: int, message: str, fields: dict[str, Any], cause: BaseException | None
    ) -> None:
        """Makes a record.

        Args:
            name: The logger's name.
            created: Time in seconds since 1970.
            level: Level of the record.
            message: Text before the fields.
            fields: Names and values.
            cause: Exception whose traceback belongs to the record.

        """
        self.__dict__.update(_DEFAULTS)
        self.name = name
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.msg = message
        self.created = created
        self.msecs = created % 1 * 1000
        self.exc_info = (type(cause), cause, cause.__traceback__) if cause is not None else None
        self.fields = fields


class CallLog:
    """Takes a note when a call ends, and makes records of many notes at a time.

    Making a record when the call ends, between all other work of that moment, takes several times as long. Every record
    of another logger comes after the notes that were taken before it.
    """

    def __init__(self, name: str) -> None:
        self._logger = own_loggers.get_logger(name)
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # The parent makes records of its own notes.

    def _reset(self) -> None:
        self._turn = threading.RLock()
        self._notes: deque[tuple[float, int, str, dict[str, Any], BaseException | None]] = deque()

    def takes(self, level: int) -> bool:
        """Returns True if notes of this level are written."""
        return self._logger.isEnabledFor(level)

    def write(self, level: int, message: str, fields: dict[str, Any], cause: BaseException | None = None) -> None:
        """Takes a note.

        Args:
            level: Level of the record; errors are written at once, and levels that are not written are dropped.
            message: Text before the fields.
            fields: Names and values.
            cause: Exception whose traceback belongs to the record.

        """
        if not self.takes(level):
            return
        self._notes.append((time.time(), level, message, fields, cause))
        if level > logging.WARNING or len(self._notes) >= MAX_NOTES:
            self.flush()

    def flush(self) -> None:
        """Makes records of the notes, unless another thread does so already.

        It never waits for its lock, because a handler that holds another lock may call it.
        """
        if not self._turn.acquire(blocking=False):
            return
        try:
            while self._notes:
                record = FieldsRecord(self._logger.name, *self._notes.popleft())
                try:
                    self._logger.handle(record)
                except Exception:  # noqa: BLE001 - a handler of the owner's configuration must not end a call
                    _fallback.handleError(record)
        finally:
            self._turn.release()


_fallback = logging.Handler()  # Reports on stderr, as logging does, that a handler failed.

calls = CallLog("mlflow_grpc.call")
