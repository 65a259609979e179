"""The records that a stream sends.

Rule of this module: an error in the user's records ends them and is raised after the answers to earlier records. gRPC
never sees it.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from mlflow_grpc_client.errors import PredictError, failure

_PLACEHOLDER = b"\xff"
"""Sent for a record that cannot be encoded. The bytes are not a message, so the server answers with an error."""


def over_limit(data: bytes, max_bytes: int) -> str:
    """Why a message cannot be sent; empty if it fits. A negative limit is no limit."""
    if 0 <= max_bytes < len(data):
        return f"the message has {len(data)} bytes, and this client sends up to {max_bytes} (max_message_bytes)"
    return ""


@dataclass(frozen=True, slots=True)
class InvalidRecord:
    """A record that its source cannot read. It fails with this error in its turn."""

    error: TypeError | ValueError


class Requests:
    """An iterator over the requests of a stream.

    It ends at the first record that fails, and keeps the error. If errors are returned, a record that cannot be sent
    does not end it; the record's error is returned in place of its answer.
    """

    def __init__(
        self, records: Any, encode: Callable[[Any, int], Any], max_bytes: int, *, returns_errors: bool
    ) -> None:
        """Takes records, and what makes a message of a record and its index. A negative limit is no limit."""
        self._returns_errors = returns_errors
        self._records = aiter(records) if hasattr(records, "__aiter__") else iter(records)
        self._encode = encode
        self._max_bytes = max_bytes
        self.failure: BaseException | None = None
        self.rejected: dict[int, PredictError] = {}
        """Errors of records that were not sent, by the indexes of the records."""
        self.count = 0
        self.is_exhausted = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            data = self._request(next(self._records))
        except StopIteration:
            self.is_exhausted = True
            raise
        except BaseException as error:  # noqa: BLE001 - raised again where the answers are read
            self.failure = error
            raise StopIteration from None
        self.count += 1
        return data

    def _request(self, record: Any) -> bytes:
        """The bytes for a record. Raises TypeError or ValueError for one that cannot be sent or is too large.

        At a message over its limit gRPC would end the stream, and lose earlier records on their way.
        """
        try:
            if isinstance(record, InvalidRecord):
                raise record.error
            return self._check_size(self._encode(record, self.count).SerializeToString())
        except PredictError as error:
            self.rejected[self.count] = error
            return _PLACEHOLDER
        except (TypeError, ValueError) as error:
            message = f"[{self.count}]: {error}"
            if not self._returns_errors:
                raise (TypeError if isinstance(error, TypeError) else ValueError)(message) from error
            rejection = failure(grpc.StatusCode.INVALID_ARGUMENT, message, reason="BAD_REQUEST")
            rejection.__cause__ = error
            self.rejected[self.count] = rejection
            return _PLACEHOLDER

    def _check_size(self, data: bytes) -> bytes:
        if problem := over_limit(data, self._max_bytes):
            raise ValueError(problem)
        return data


class AsyncRequests(Requests):
    """`Requests` for asyncio, over an iterable of either type."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            is_async = hasattr(self._records, "__anext__")
            data = self._request(await anext(self._records) if is_async else next(self._records))
        except (StopIteration, StopAsyncIteration):
            self.is_exhausted = True
            raise StopAsyncIteration from None
        except Exception as error:  # noqa: BLE001 - raised again where the answers are read
            self.failure = error
            raise StopAsyncIteration from None
        self.count += 1
        return data
