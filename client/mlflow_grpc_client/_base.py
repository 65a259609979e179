"""The parts of the synchronous and the asyncio client that do not wait.

Rule of this module: it builds calls and reads their results; it makes no call. It is long because each kind of call has
a method here, and none in both clients.
"""

import copy
import functools
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeVar

import grpc
from _mlflow_grpc_protocol.metadata import MODEL_KEY
from google.protobuf.message import DecodeError

from mlflow_grpc_client import _html, _models, _options, _payloads, _reflection, _wire
from mlflow_grpc_client._calls import Call, OnError, Stream
from mlflow_grpc_client._connection import addresses
from mlflow_grpc_client._connection.targets import Addresses, target_of
from mlflow_grpc_client._ignored import Warner
from mlflow_grpc_client._requests import Requests
from mlflow_grpc_client._streams import ResponseReader
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client._typed.discovery import FetchContract, Pause, fetch_contract
from mlflow_grpc_client.errors import (
    PredictError,
    client_closed,
    deadline_exceeded,
    failure,
    from_error_message,
    from_rpc_error,
)

_R = TypeVar("_R", bound=Requests)

_CALLER_SPECIFIC_CODES = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
"""Statuses caused by a caller's own deadline or metadata. Other callers of the same fetch try again."""


class BaseClient:
    """A connection to one or more servers. Used as `Client` or `AsyncClient`."""

    _INTERCEPTORS: tuple[tuple[type, ...], str]
    """The accepted classes of interceptors, and their module."""

    def __init__(
        self,
        address: Addresses = "localhost:50051",
        *,
        timeout_s: float = _options.DEFAULT_TIMEOUT_S,
        tls: _options.TLS | bool | None = None,
        max_message_bytes: int = 100 * 1024 * 1024,
        channel_options: _options.ChannelOptions = (),
        interceptors: Sequence[Any] = (),
        metadata: _options.MoreMetadata | None = None,
    ) -> None:
        """Checks the arguments; the first call connects.

        Args:
            address: `host:port`, or a grpc:// or grpcs:// URL of it; several of these in a list or separated by commas;
                or any target that gRPC knows, such as dns:///models.example:50051. Calls go to the servers of a list
                or a name in turn.
            timeout_s: The default timeout of a call in seconds.
            tls: Files for an encrypted connection, or True to trust the system's authorities. None and False do not
                encrypt.
            max_message_bytes: Maximum size of a payload and of an answer in bytes.
            channel_options: Further options of gRPC's channels by name. They override those of this client.
            interceptors: gRPC interceptors for all calls: those of `grpc` for a Client, of `grpc.aio` for an
                AsyncClient.
            metadata: Metadata of all calls. The metadata of a call overrides it.

        Raises:
            ValueError: The address, the timeout or a TLS file is invalid, or metadata has a key or a text that gRPC
                cannot send.
            TypeError: An argument has a wrong type.
            OSError: A TLS file cannot be read.

        """
        self._target = target_of(address)
        self._timeout_s = _options.checked_timeout(timeout_s)
        self._tls = _options.checked_tls(tls, self._target)
        self._credentials = self._tls.credentials() if self._tls else None
        self._channel_options = _options.channel_options(
            max_message_bytes, self._tls, self._target, _options.checked_channel_options(channel_options)
        )
        self._interceptors = self._checked_interceptors(interceptors)
        self._metadata = dict(_options.call_metadata(None, None, None, metadata))
        self._closed = False
        self._contracts: dict[str, Contract] = {}
        self._warner = Warner()
        self._set_up()

    def _set_up(self) -> None:
        """Creates the state of a subclass, after the arguments were checked."""

    @property
    def address(self) -> str:
        """The address, or a list's addresses separated by commas."""
        return self._target.text

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}{', closed' if self._closed else ''}>"

    def _repr_html_(self) -> str:
        facts = {
            "address": self.address,
            "TLS": "yes" if self._tls else "no",
            "timeout": f"{self._timeout_s:g} s",
            "state": "closed" if self._closed else "",
            "models called so far": ", ".join(contract.label for contract in self._contracts.values()),
        }
        return _html.facts(type(self).__name__, facts)

    @classmethod
    def _checked_interceptors(cls, interceptors: Any) -> tuple[Any, ...]:
        """The interceptors, if this client can use them.

        Raises:
            TypeError: An object is not an interceptor of this client's gRPC module.

        """
        classes, module = cls._INTERCEPTORS
        checked = tuple(interceptors) if isinstance(interceptors, Iterable) else (interceptors,)
        for interceptor in checked:
            if not isinstance(interceptor, classes):
                raise TypeError(
                    f"interceptors are a list of those of {module}, such as {module}.UnaryUnaryClientInterceptor; "
                    f"not {interceptor!r}"
                )
        return checked

    def _new_channel(self, stack: ModuleType, target: str, **options: Any) -> Any:
        """A channel of `grpc` or `grpc.aio`, whose functions have the same names. The first call connects it."""
        if self._credentials is None:
            return stack.insecure_channel(target, self._channel_options, **options)
        return stack.secure_channel(target, self._credentials, self._channel_options, **options)

    def _merged(self, metadata: _options.MoreMetadata | None) -> dict[str, str | bytes]:
        """The client's metadata, overridden by that of a call."""
        return {**self._metadata, **(metadata or {})}

    def _predict_call(
        self,
        text: str | bytes,
        content_type: str | None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        model: str | None = None,
        metadata: _options.MoreMetadata | None = None,
    ) -> Call:
        return Call(
            _wire.PREDICT,
            _wire.text_input(_payloads.as_text(text)),
            _wire.Output,
            lambda output: output.value,
            self._timeout_s if timeout_s is None else _options.checked_timeout(timeout_s),
            _options.call_metadata(content_type, request_id, model, self._merged(metadata)),
        )

    def _info_call(self, timeout_s: float, method: str, request: Any, response_class: Any, read: Any) -> Call:
        """A call of a service other than predictions, with the client's metadata."""
        timeout_s = _options.checked_timeout(timeout_s)
        return Call(method, request, response_class, read, timeout_s, tuple(self._metadata.items()))

    def _health_call(self, service: str, timeout_s: float) -> Call:
        return self._info_call(
            timeout_s,
            _wire.HEALTH_CHECK,
            _wire.HealthCheckRequest(service=service),
            _wire.HealthCheckResponse,
            lambda response: _wire.enum_name(_wire.HealthCheckResponse.ServingStatus, response.status),
        )

    def _models_call(self, timeout_s: float) -> Call:
        request, response_class = _wire.ListModelsRequest(), _wire.ListModelsResponse
        return self._info_call(timeout_s, _wire.LIST_MODELS, request, response_class, _models.models_of)

    def _proto_file_calls(self, timeout_s: float) -> Generator[Call, Any, _reflection.ProtoFile]:
        _options.checked_timeout(timeout_s)
        return _reflection.proto_file(functools.partial(self._info_call, timeout_s))

    def _text_stream(
        self,
        texts: Any,
        on_error: OnError,
        content_type: str | None,
        encode: Any,
        read: Any,
        options: _options.CallOptions,
    ) -> Stream:
        """A stream of payloads.

        Args:
            texts: Objects that `encode` takes.
            on_error: How errors are delivered.
            content_type: The format of the payloads.
            encode: Converts an object and its index into a payload.
            read: Converts the text of an answer and its index.
            options: The options of the call.

        """
        request_id = options.get("request_id") or ""

        def answer(output: Any, index: int) -> Any:
            has_error = output.HasField("error")
            return from_error_message(output.error, request_id) if has_error else read(output.value, index)

        timeout_s = options.get("timeout_s")
        return Stream(
            _wire.PREDICT_MANY,
            texts,
            lambda item, index: _wire.text_input(encode(item, index)),
            _wire.Output,
            answer,
            None if timeout_s is None else _options.checked_timeout(timeout_s),
            _options.call_metadata(
                content_type, request_id or None, options.get("model"), self._merged(options.get("metadata"))
            ),
            on_error,
        )

    def _payload_stream(self, payloads: Any, on_error: OnError, options: _options.CallOptions) -> Stream:
        bare: deque[int] = deque()  # Indexes of LLM payloads without an answer, in order.

        def encode(data: Any, index: int) -> str:
            if _payloads.is_bare(data):
                bare.append(index)
            return _payloads.to_json(data)

        def read(text: str, index: int) -> Any:
            while bare and bare[0] < index:  # The server has not answered these with a text.
                bare.popleft()
            return self._from_json(text, bool(bare) and bare[0] == index)

        return self._text_stream(payloads, on_error, None, encode, read, options)

    def _given_texts(
        self, texts: Any, on_error: OnError, content_type: str | None, options: _options.CallOptions
    ) -> Stream:
        return self._text_stream(
            texts, on_error, content_type, lambda text, _: _payloads.as_text(text), lambda text, _: text, options
        )

    def _chunk_stream(self, data: Any, params: dict[str, Any] | None, options: _options.CallOptions) -> Stream:
        text = _payloads.to_json(data, params)
        is_bare = _payloads.is_bare(data)
        return self._text_chunks(text, None, lambda chunk: self._from_json(chunk, is_bare), options)

    def _text_chunks(self, text: str, content_type: str | None, read: Any, options: _options.CallOptions) -> Stream:
        stream = self._text_stream((), "raise", content_type, None, lambda chunk, _: read(chunk), options)
        return replace(stream, method=_wire.PREDICT_STREAM, requests=_wire.text_input(text), encode=None)

    def _read(self, call: Call | Stream, answer: bytes, *index: int) -> Any:
        try:
            return call.read(call.response_class.FromString(answer), *index)
        except DecodeError:
            raise failure(
                grpc.StatusCode.INTERNAL, f"The bytes of the answer are not an answer of {call.method}."
            ) from None

    def _warn(self, call: Call | Stream, trailers: Any) -> None:
        """Warns of names in the payload that the model ignored, once for each name."""
        if trailers:
            self._warner.warn(trailers, call.model or str(dict(call.metadata).get(MODEL_KEY, "")))

    def _predictions(self, data: Any, answer: str) -> Any:
        return self._from_json(answer, _payloads.is_bare(data))

    @staticmethod
    def _from_json(answer: str, is_bare: bool) -> Any:
        try:
            return _payloads.from_json(answer, bare=is_bare)
        except (ValueError, RecursionError):
            message = "The answer is not JSON; predict_text returns it as it is."
            raise failure(grpc.StatusCode.INTERNAL, message) from None

    def _failure(self, call: Call | Stream, error: grpc.RpcError) -> PredictError:
        """The PredictError for an error of gRPC."""
        self._warn(call, error.trailing_metadata())
        predict_error = from_rpc_error(error)
        if self._closed and predict_error.code is grpc.StatusCode.CANCELLED:
            return client_closed()
        # This text is gRPC's own: the server sent no status.
        if predict_error.message == "Deadline Exceeded" and call.timeout_s is not None:
            return deadline_exceeded(call.timeout_s)
        if predict_error.reason:  # Only mlflow-grpc sends reasons.
            return predict_error
        message = addresses.explained(
            predict_error.message,
            self._target.text,
            encrypted=self._credentials is not None,
            is_single=not self._target.is_list,
        )
        return failure(predict_error.code, message, request_id=predict_error.request_id)

    @staticmethod
    def _check_resolved(error: PredictError | None) -> None:
        """Raises the error of a resolution that several calls may share."""
        if error is not None:
            raise copy.copy(error)

    def _requests(self, stream: Stream, requests_class: type[_R]) -> _R | None:
        """The requests of a stream; None if it sends a single one."""
        if stream.encode is None:
            return None
        max_bytes = dict(self._channel_options)[_options.MAX_SEND_OPTION]
        returns_errors = stream.on_error == "return"
        return requests_class(stream.requests, stream.encode, max_bytes, returns_errors=returns_errors)

    def _response_reader(self, stream: Stream, requests: Requests | None) -> ResponseReader:
        return ResponseReader(
            lambda data, index: self._read(stream, data, index),
            lambda error: self._failure(stream, error),
            lambda trailers: self._warn(stream, trailers),
            requests,
            returns_errors=stream.on_error == "return",
        )

    def _fetch(self, fetch: FetchContract) -> Generator[Call | Pause, Any, Contract]:
        """Fetches the contract of a model, and caches it."""
        contract = self._contracts[fetch.label] = yield from fetch_contract(fetch)
        return contract

    def _cached(self, fetch: FetchContract) -> Contract | None:
        contract = self._contracts.get(fetch.label)
        return None if contract is fetch.cached else contract

    @staticmethod
    def _shared(outcome: Contract | PredictError) -> Contract | None:
        """The contract that another caller fetched; None if the failure was specific to that caller.

        Raises:
            PredictError: The fetch failed for everyone.

        """
        if isinstance(outcome, Contract):
            return outcome
        if outcome.code in _CALLER_SPECIFIC_CODES:
            return None
        raise copy.copy(outcome)

    @staticmethod
    def _abandoned_failure() -> PredictError:
        return failure(grpc.StatusCode.CANCELLED, "The caller that fetched the contract has stopped waiting.")
