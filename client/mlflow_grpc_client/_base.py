"""What the synchronous and the asyncio client share: everything but the waiting.

Rule of this module: it says what to send and what an outcome means; it makes no call.
"""

import copy
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from mlflow_grpc_client import _html, _options, _payloads, _proto_file, _wire
from mlflow_grpc_client._calls import Call, Learn, OnError, Stream
from mlflow_grpc_client._connection import addresses, probing
from mlflow_grpc_client._connection.probing import Talk
from mlflow_grpc_client._connection.targets import Addresses, target_of
from mlflow_grpc_client._ignored import Warner
from mlflow_grpc_client._streams import Outcomes, Requests
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client._typed.discovery import learn
from mlflow_grpc_client.errors import PredictError, failure, from_error_message, from_rpc_error

_R = TypeVar("_R", bound=Requests)

_OF_ONE_CALLER = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
"""How a call fails for what its own caller gave it: less time than others have, or other metadata."""


class BaseClient:
    """A connection to a server, or to several. Used as `Client` or `AsyncClient`."""

    _INTERCEPTORS: tuple[tuple[type, ...], str]
    """The classes of interceptors that it takes, and the module that has them."""

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
        """Args:
            address: `host:port`, a grpc:// or grpcs:// URL of these, several of them in a list or with commas between,
                or any target that gRPC knows, such as dns:///models.example:50051. The calls go to the servers behind
                a list or a name in turn.
            timeout_s: The deadline of a call that is given none, in seconds.
            tls: Files for an encrypted connection, or True for one that trusts the system's authorities; None or False
                for a plain one.
            max_message_bytes: The largest payload and the largest answer in bytes.
            channel_options: Further options of gRPC's channels by name, which go before this client's own.
            interceptors: gRPC's, for all calls: those of `grpc` for a Client, of `grpc.aio` for an AsyncClient.
            metadata: Of all calls. What a call is given itself goes first.

        Raises:
            ValueError: The address or the timeout cannot be one, the TLS files are no good, or metadata has a key or a
                text that gRPC cannot carry.
            TypeError: An argument is of another type.
            OSError: A TLS file cannot be read.

        """
        self._target = target_of(address)
        self._timeout_s = _options.checked_timeout(timeout_s)
        self._tls = _options.checked_tls(tls, self._target)
        self._credentials = self._tls.credentials() if self._tls else None
        self._max_message_bytes = max_message_bytes
        self._channel_options = _options.channel_options(
            max_message_bytes, self._tls, self._target, _options.checked_channel_options(channel_options)
        )
        self._interceptors = self._checked_interceptors(interceptors)
        self._metadata = dict(_options.call_metadata(None, None, None, metadata))
        self._closed = False
        self._contracts: dict[str, Contract] = {}
        self._ignored = Warner()
        self._set_up()

    def _set_up(self) -> None:
        """For what a client needs besides, once its arguments are known to be right."""

    @property
    def address(self) -> str:
        """The address that was given; of a list all of them, with commas between."""
        return self._target.text

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}{', closed' if self._closed else ''}>"

    def _repr_html_(self) -> str:
        said = {
            "address": self.address,
            "TLS": "yes" if self._tls else "no",
            "timeout": f"{self._timeout_s:g} s",
            "state": "closed" if self._closed else "",
            "models called so far": ", ".join(each.label for each in self._contracts.values()),
        }
        return _html.facts(type(self).__name__, said)

    @classmethod
    def _checked_interceptors(cls, given: Sequence[Any]) -> tuple[Any, ...]:
        """The interceptors, if they are of this client's kind.

        Raises:
            TypeError: One is not.

        """
        kinds, where = cls._INTERCEPTORS
        found = tuple(given) if isinstance(given, Iterable) else (given,)
        for each in found:
            if not isinstance(each, kinds):
                raise TypeError(
                    f"interceptors are a list of those of {where}, such as {where}.UnaryUnaryClientInterceptor; "
                    f"not {each!r}"
                )
        return found

    def _new_channel(self, stack: ModuleType, target: str, **more: Any) -> Any:
        """A channel of `grpc` or `grpc.aio`, whose functions have the same names; it connects at its first call."""
        if self._credentials is None:
            return stack.insecure_channel(target, self._channel_options, **more)
        return stack.secure_channel(target, self._credentials, self._channel_options, **more)

    def _merged(self, metadata: _options.MoreMetadata | None) -> dict[str, str | bytes]:
        """The metadata of a call: the client's, and what the call is given itself."""
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
            _wire.input_bytes(_payloads.as_text(text)),
            _wire.output_text,
            self._timeout_s if timeout_s is None else _options.checked_timeout(timeout_s),
            _options.call_metadata(content_type, request_id, model, self._merged(metadata)),
        )

    def _health_call(self, service: str, timeout_s: float) -> Call:
        request = _wire.health_request_bytes(service)
        checked = _options.checked_timeout(timeout_s)
        return Call(_wire.HEALTH_CHECK, request, _wire.health_status, checked, tuple(self._metadata.items()))

    def _models_call(self, timeout_s: float) -> Call:
        checked = _options.checked_timeout(timeout_s)
        metadata = tuple(self._metadata.items())
        return Call(_wire.LIST_MODELS, _wire.list_models_bytes(), _wire.models, checked, metadata)

    def _proto_steps(self, timeout_s: float) -> Generator[Call, Any, _proto_file.ProtoFile]:
        limit_s = _options.checked_timeout(timeout_s)
        metadata = tuple(self._metadata.items())
        return _proto_file.ask(lambda method, request, read: Call(method, request, read, limit_s, metadata))

    def _text_stream(
        self,
        texts: Any,
        on_error: OnError,
        content_type: str | None,
        encode: Any,
        read: Any,
        given: _options.CallOptions,
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
            text, error = _wire.output_parts(data)
            return read(text) if error is None else from_error_message(error, request_id)

        timeout_s = given.get("timeout_s")
        return Stream(
            _wire.PREDICT_MANY,
            texts,
            lambda each: _wire.input_bytes(encode(each)),
            answer,
            None if timeout_s is None else _options.checked_timeout(timeout_s),
            _options.call_metadata(
                content_type, request_id or None, given.get("model"), self._merged(given.get("metadata"))
            ),
            on_error,
        )

    def _payload_stream(self, payloads_given: Any, on_error: OnError, given: _options.CallOptions) -> Stream:
        waiting: deque[bool] = deque()  # Whether the answers to what is under way are bare, in order.

        def encode(data: Any) -> str:
            text = _payloads.to_json(data)
            waiting.append(_payloads.is_bare(data))
            return text

        stream = self._text_stream(payloads_given, on_error, None, encode, str, given)

        def read(data: bytes) -> Any:
            answer, is_bare = stream.read(data), bool(waiting) and waiting.popleft()
            return answer if isinstance(answer, PredictError) else self._from_json(answer, is_bare)

        return replace(stream, read=read)

    def _parts_stream(self, data: Any, params: dict[str, Any] | None, given: _options.CallOptions) -> Stream:
        text = _payloads.to_json(data, params)
        is_bare = _payloads.is_bare(data)
        return self._text_parts(text, None, lambda part: self._from_json(part, is_bare), given)

    def _text_parts(self, text: str, content_type: str | None, read: Any, given: _options.CallOptions) -> Stream:
        stream = self._text_stream((), "raise", content_type, str, read, given)
        return replace(stream, method=_wire.PREDICT_STREAM, requests=_wire.input_bytes(text))

    def _read(self, call: Call | Stream, answer: bytes) -> Any:
        try:
            return call.read(answer)
        except DecodeError:
            raise failure(
                grpc.StatusCode.INTERNAL, f"The bytes of the answer are no answer of {call.method}."
            ) from None

    def _warn(self, call: Call | Stream, trailers: Any) -> None:
        """Warns of what the model has ignored, once for each name."""
        if trailers:
            self._ignored.warn(trailers, call.model or str(dict(call.metadata).get(_wire.MODEL_KEY, "")))

    def _predictions(self, data: Any, answer: str) -> Any:
        return self._from_json(answer, _payloads.is_bare(data))

    @staticmethod
    def _from_json(answer: str, is_bare: bool) -> Any:
        try:
            return _payloads.from_json(answer, bare=is_bare)
        except (ValueError, RecursionError):
            raise failure(grpc.StatusCode.INTERNAL, "The answer is not JSON; predict_text gives it as it is.") from None

    def _failure(self, call: Call | Stream, error: grpc.RpcError) -> PredictError:
        self._warn(call, error.trailing_metadata())
        found = from_rpc_error(error)
        if self._closed and found.code is grpc.StatusCode.CANCELLED:
            return self._closed_failure()
        if (
            found.message == "Deadline Exceeded" and call.timeout_s is not None
        ):  # gRPC's own words: the server has not answered at all.
            return self._too_late(call.timeout_s)
        if not found.reason:  # Servers of ours give one.
            message = addresses.explained(
                found.message,
                self._target.text,
                encrypted=self._credentials is not None,
                is_one=not self._target.is_list,
                talk=self._talk_of(*addresses.unclear_peer(found.message)),
            )
            return failure(found.code, message, request_id=found.request_id)
        return found

    def _talk_of(self, host: str, port: str) -> Talk:
        """What a server speaks that does not get on with this client; nothing is known of one without a name."""
        return probing.talk_of(host, int(port)) if port else Talk.UNKNOWN

    def _requests(self, stream: Stream, kind: type[_R]) -> _R | None:
        """What a stream sends; None if that is one request."""
        if isinstance(stream.requests, bytes):
            return None
        return kind(stream.requests, stream.encode, self._max_message_bytes, returns_errors=stream.on_error == "return")

    def _outcomes(self, stream: Stream, requests: Requests | None) -> Outcomes:
        return Outcomes(
            lambda data: self._read(stream, data),
            lambda error: self._failure(stream, error),
            lambda trailers: self._warn(stream, trailers),
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
