"""What the synchronous and the asyncio client share: everything but the waiting.

Rule of this module: it says what to send and what an outcome means; it makes no call.
"""

import copy
from collections import deque
from collections.abc import Generator
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from mlflow_grpc_client import addresses, options, payloads, proto_file, wire
from mlflow_grpc_client.calls import Call, Learn, OnError, Stream
from mlflow_grpc_client.contract import Contract
from mlflow_grpc_client.errors import PredictError, failure, from_error_message, from_rpc_error
from mlflow_grpc_client.learning import learn
from mlflow_grpc_client.streams import Outcomes, Requests

_R = TypeVar("_R", bound=Requests)

_OF_ONE_CALLER = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
"""How a call fails for what its own caller gave it: less time than others have, or other metadata."""


class BaseClient:
    """A connection to one server. Used as `Client` or `AsyncClient`."""

    def __init__(
        self,
        address: str = "localhost:50051",
        *,
        timeout_s: float = options.DEFAULT_TIMEOUT_S,
        tls: options.TLS | None = None,
        max_message_bytes: int = 100 * 1024 * 1024,
    ) -> None:
        """Args:
            address: `host:port`, or any target that gRPC knows, such as dns:///models.example:50051.
            timeout_s: The deadline of a call that is given none, in seconds.
            tls: Files for an encrypted connection; None for a plain one.
            max_message_bytes: The largest payload and the largest answer in bytes.

        Raises:
            ValueError: The address or the timeout cannot be one, or the TLS files are no good.
            OSError: A TLS file cannot be read.

        """
        self._address = addresses.checked_address(address)
        self._timeout_s = options.checked_timeout(timeout_s)
        self._credentials = tls.credentials() if tls else None
        self._max_message_bytes = max_message_bytes
        self._channel_options = options.channel_options(max_message_bytes, tls)
        self._closed = False
        self._contracts: dict[str, Contract] = {}
        self._set_up()

    def _set_up(self) -> None:
        """For what a client needs besides, once its arguments are known to be right."""

    def _new_channel(self, stack: ModuleType) -> Any:
        """A channel of `grpc` or `grpc.aio`, whose functions have the same names; it connects at its first call."""
        if self._credentials is None:
            return stack.insecure_channel(self._address, self._channel_options)
        return stack.secure_channel(self._address, self._credentials, self._channel_options)

    def _predict_call(
        self,
        text: str,
        content_type: str | None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        model: str | None = None,
        metadata: options.MoreMetadata | None = None,
    ) -> Call:
        return Call(
            wire.PREDICT,
            wire.input_bytes(text),
            wire.output_text,
            self._timeout_s if timeout_s is None else options.checked_timeout(timeout_s),
            options.call_metadata(content_type, request_id, model, metadata),
        )

    def _health_call(self, service: str, timeout_s: float) -> Call:
        request = wire.health_request_bytes(service)
        return Call(wire.HEALTH_CHECK, request, wire.health_status, options.checked_timeout(timeout_s))

    def _models_call(self, timeout_s: float) -> Call:
        return Call(wire.LIST_MODELS, wire.list_models_bytes(), wire.models, options.checked_timeout(timeout_s))

    def _proto_steps(self, timeout_s: float) -> Generator[Call, Any, proto_file.ProtoFile]:
        limit_s = options.checked_timeout(timeout_s)
        return proto_file.ask(lambda method, request, read: Call(method, request, read, limit_s))

    def _text_stream(
        self,
        texts: Any,
        on_error: OnError,
        content_type: str | None,
        encode: Any,
        read: Any,
        given: options.CallOptions,
    ) -> Stream:
        """A stream of payloads.

        Args:
            texts: What `encode` takes.
            on_error: Of the caller.
            content_type: Of the payloads.
            encode: Makes a payload of each.
            read: Makes an answer of the text that came.
            given: The options of the call.

        """
        request_id = given.get("request_id") or ""

        def answer(data: bytes) -> Any:
            text, error = wire.output_parts(data)
            return read(text) if error is None else from_error_message(error, request_id)

        timeout_s = given.get("timeout_s")
        return Stream(
            wire.PREDICT_MANY,
            texts,
            lambda each: wire.input_bytes(encode(each)),
            answer,
            None if timeout_s is None else options.checked_timeout(timeout_s),
            options.call_metadata(content_type, request_id or None, given.get("model"), given.get("metadata")),
            on_error,
        )

    def _payload_stream(self, payloads_given: Any, on_error: OnError, given: options.CallOptions) -> Stream:
        waiting: deque[bool] = deque()  # Whether the answers to what is under way are bare, in order.

        def encode(data: Any) -> str:
            text = payloads.to_json(data)
            waiting.append(payloads.is_bare(data))
            return text

        stream = self._text_stream(payloads_given, on_error, None, encode, str, given)

        def read(data: bytes) -> Any:
            answer, is_bare = stream.read(data), bool(waiting) and waiting.popleft()
            return answer if isinstance(answer, PredictError) else self._from_json(answer, is_bare)

        return replace(stream, read=read)

    def _parts_stream(self, data: Any, params: dict[str, Any] | None, given: options.CallOptions) -> Stream:
        text = payloads.to_json(data, params)
        is_bare = payloads.is_bare(data)
        stream = self._text_stream((), "raise", None, str, lambda part: self._from_json(part, is_bare), given)
        return replace(stream, method=wire.PREDICT_STREAM, requests=wire.input_bytes(text))

    def _read(self, call: Call | Stream, answer: bytes) -> Any:
        try:
            return call.read(answer)
        except DecodeError:
            raise failure(
                grpc.StatusCode.INTERNAL, f"The bytes of the answer are no answer of {call.method}."
            ) from None

    def _predictions(self, data: Any, answer: str) -> Any:
        return self._from_json(answer, payloads.is_bare(data))

    @staticmethod
    def _from_json(answer: str, is_bare: bool) -> Any:
        try:
            return payloads.from_json(answer, bare=is_bare)
        except (ValueError, RecursionError):
            raise failure(grpc.StatusCode.INTERNAL, "The answer is not JSON; predict_text gives it as it is.") from None

    def _failure(self, call: Call | Stream, error: grpc.RpcError) -> PredictError:
        found = from_rpc_error(error)
        if self._closed and found.code is grpc.StatusCode.CANCELLED:
            return self._closed_failure()
        if (
            found.message == "Deadline Exceeded" and call.timeout_s is not None
        ):  # gRPC's own words: the server has not answered at all.
            return self._too_late(call.timeout_s)
        if not found.reason:  # Servers of ours give one.
            message = addresses.explained(found.message, self._address, encrypted=self._credentials is not None)
            return failure(found.code, message, request_id=found.request_id)
        return found

    def _requests(self, stream: Stream, kind: type[_R]) -> _R | None:
        """What a stream sends; None if that is one request."""
        if isinstance(stream.requests, bytes):
            return None
        return kind(stream.requests, stream.encode, self._max_message_bytes)

    def _outcomes(self, stream: Stream, requests: Requests | None) -> Outcomes:
        return Outcomes(
            lambda data: self._read(stream, data),
            lambda error: self._failure(stream, error),
            requests,
            returns_errors=stream.on_error == "return",
        )

    def _learning(self, wanted: Learn) -> Generator[Call, Any, Contract]:
        """Gets the contract of a model, and keeps it."""
        found = self._contracts[wanted.label] = yield from learn(wanted)
        return found

    def _known(self, wanted: Learn) -> Contract | None:
        known = self._contracts.get(wanted.label)
        return None if known is wanted.stale else known

    @staticmethod
    def _shared(outcome: Contract | PredictError) -> Contract | None:
        """What another caller has learnt of the model; None if only that one's call failed.

        Raises:
            PredictError: Everybody's would have.

        """
        if isinstance(outcome, Contract):
            return outcome
        if outcome.code in _OF_ONE_CALLER:
            return None
        raise copy.copy(outcome)

    @staticmethod
    def _given_up() -> PredictError:
        return failure(grpc.StatusCode.CANCELLED, "The caller that asked for all has given up.")

    @staticmethod
    def _too_late(timeout_s: float) -> PredictError:
        return failure(grpc.StatusCode.DEADLINE_EXCEEDED, f"No answer came within {timeout_s:g} s.")

    def _closed_failure(self) -> PredictError:
        return failure(grpc.StatusCode.CANCELLED, "The client is closed.")
