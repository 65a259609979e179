"""Results of calls: answers, errors, and warnings of ignored names.

Rule of this module: it reads what gRPC received, and makes no call.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from _mlflow_grpc_protocol.metadata import MODEL_KEY
from google.protobuf.message import DecodeError

from mlflow_grpc_client import _ignored
from mlflow_grpc_client._calls import Call, Stream
from mlflow_grpc_client._connection import addresses
from mlflow_grpc_client._connection.targets import Target
from mlflow_grpc_client.errors import PredictError, client_closed, deadline_exceeded, failure, from_rpc_error


class Results:
    """Reads the results of a client's calls."""

    def __init__(self, target: Target, *, encrypted: bool, status_at: Callable[[str], str]) -> None:
        """Takes the servers. `status_at` returns why a connection to an address fails, in up to `PROBE_S` seconds."""
        self._target = target
        self._encrypted = encrypted
        self._status_at = status_at
        self._warned: set[tuple[str, str]] = set()
        self._has_heard = False  # True once a server has answered, or refused, a call of this client.
        self.is_closed = False
        """True once the client is closed, which cancels its calls."""

    def answer(self, call: Call | Stream, data: bytes, *index: int) -> Any:
        """The answer in the bytes of a response; raises PredictError for other bytes."""
        self._has_heard = True
        try:
            return call.read(call.response_class.FromString(data), *index)
        except DecodeError:
            message = f"The bytes of the answer are not an answer of {call.method}."
            raise failure(grpc.StatusCode.INTERNAL, message) from None

    def warn(self, call: Call | Stream, trailers: Any) -> None:
        """Warns of names in the payload that the model ignored, once for each name."""
        if trailers:
            model = call.model or str(dict(call.metadata).get(MODEL_KEY, ""))
            _ignored.warn(trailers, model, self._warned)

    async def without_blocking(self, error: Any, make: Callable[[], BaseException]) -> BaseException:
        """Calls a function that calls `error`; in a thread if it connects to a server to find out what is wrong."""
        if addresses.unreported(error.details() or "", self._target.text):
            return await asyncio.to_thread(make)
        return make()

    def error(self, call: Call | Stream, error: grpc.RpcError) -> PredictError:
        """The PredictError for an error of gRPC."""
        self.warn(call, error.trailing_metadata())
        predict_error = from_rpc_error(error)
        if self.is_closed and predict_error.code is grpc.StatusCode.CANCELLED:
            return client_closed()
        # This text is gRPC's own: the server sent no status.
        if predict_error.message == "Deadline Exceeded" and call.timeout_s is not None:
            # A wrong address is tried until the deadline, and gRPC does not report why it failed.
            silent = f"No server at {self._target.text} has answered this client yet"
            hint = "" if self._has_heard else f" {silent}: check the address, or allow more time."
            return deadline_exceeded(call.timeout_s, hint)
        if predict_error.reason:  # Only mlflow-grpc sends reasons.
            self._has_heard = True
            return predict_error
        return failure(predict_error.code, self._explained(predict_error.message), request_id=predict_error.request_id)

    def _explained(self, status: str) -> str:
        address, is_refused_everywhere = self._target.text, False
        if other := addresses.unreported(status, address):
            status_there = self._status_at(other)
            is_refused_everywhere = addresses.is_refused(status_there)
            if status_there and not is_refused_everywhere:
                status, address = status_there, other
        return addresses.explained(
            status,
            address,
            encrypted=self._encrypted,
            is_single=not self._target.is_list,
            is_refused_everywhere=is_refused_everywhere,
        )
