"""The parts of the synchronous and the asyncio client that do not wait.

Rule of this module: it makes no call. A method with the same docstring in both clients is here.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from mlflow_grpc_client import _html, _options, _payloads
from mlflow_grpc_client._call_builder import CallBuilder
from mlflow_grpc_client._calls import OnError, Steps, Stream, deadline_after
from mlflow_grpc_client._connection import probe
from mlflow_grpc_client._connection.channels import Channels
from mlflow_grpc_client._connection.targets import Addresses, target_of
from mlflow_grpc_client._requests import Requests, over_limit
from mlflow_grpc_client._results import Results
from mlflow_grpc_client._token import Token, checked_token
from mlflow_grpc_client._typed.discovery import Contracts
from mlflow_grpc_client.errors import PredictError, failure

if TYPE_CHECKING:
    # Only for annotations, so that it need not be installed; typing has it from Python 3.11 on.
    from typing_extensions import Unpack

AnswersT = TypeVar("AnswersT")
"""The iterator over the answers of a stream."""
ModelT = TypeVar("ModelT")
"""The class of a model with typed calls."""


class BaseClient(ABC, Generic[AnswersT, ModelT]):
    """A connection to one or more servers. Used as `Client` or `AsyncClient`."""

    _STACK: ModuleType
    """`grpc` or `grpc.aio`."""
    _REQUESTS: type[Requests] = Requests
    _MODEL: type[ModelT]

    def __init__(  # noqa: PLR0913 - the options of a client
        self,
        address: Addresses = "localhost:50051",
        *,
        timeout_s: float = _options.DEFAULT_TIMEOUT_S,
        tls: _options.TLS | bool | None = None,
        max_message_bytes: int = 100 * 1024 * 1024,
        channel_options: _options.ChannelOptions = (),
        interceptors: Sequence[Any] = (),
        metadata: _options.MoreMetadata | None = None,
        token: Token | None = None,
        token_over_plaintext: bool | None = None,
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
            token: The token of all calls, or a function that returns the current one, such as `TokenFile(path)`. None
                takes that of the environment (MLFLOW_GRPC_TOKEN, MLFLOW_GRPC_TOKEN_FILE), an empty text none.
            token_over_plaintext: True to send the token to other machines without encryption too. None takes what
                MLFLOW_GRPC_TOKEN_OVER_PLAINTEXT says.

        Raises:
            ValueError: The address, the timeout or a TLS file is invalid, metadata has a key or a text that gRPC cannot
                send, or the token would be sent to another machine without encryption.
            TypeError: An argument has a wrong type.
            OSError: A TLS file cannot be read.

        """
        self._target = target_of(address)
        self._timeout_s = _options.checked_timeout(timeout_s)
        self._tls = _options.checked_tls(tls, self._target)
        self._credentials = self._tls.credentials() if self._tls else None
        self._token = checked_token(
            token, self._target, encrypted=self._tls is not None, over_plaintext=token_over_plaintext
        )
        self._channel_options = _options.channel_options(
            max_message_bytes, self._tls, self._target, _options.checked_channel_options(channel_options)
        )
        self._max_send_bytes: int = dict(self._channel_options)[_options.MAX_SEND_OPTION]
        self._interceptors = self._checked_interceptors(interceptors)
        self._calls = CallBuilder(self._timeout_s, metadata)
        status_at = functools.partial(probe.status_at, credentials=self._credentials, options=self._channel_options)
        self._results = Results(self._target, encrypted=self._credentials is not None, status_at=status_at)
        self._channels = Channels(self._target, self._make_channel, self._close_channel)
        self._contracts = Contracts()
        self._set_up()

    def _set_up(self) -> None:
        """Creates the state of a subclass, after the arguments were checked."""

    @property
    def address(self) -> str:
        """The address, or a list's addresses separated by commas."""
        return self._target.text

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}{', closed' if self._results.is_closed else ''}>"

    def _repr_html_(self) -> str:
        facts = {
            "address": self.address,
            "TLS": "yes" if self._tls else "no",
            "timeout": f"{self._timeout_s:g} s",
            "state": "closed" if self._results.is_closed else "",
            "models called so far": ", ".join(self._contracts.labels),
        }
        return _html.facts(type(self).__name__, facts)

    def model(
        self,
        name: str = "",
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        metadata: _options.MoreMetadata | None = None,
    ) -> ModelT:
        """Returns a model to call in its own types. The first call fetches the types, and the client caches them.

        Args:
            name: `name` or `name/version`; empty for the default model.
            timeout_s: The timeout of its calls in seconds. The default is the client's, and none for streams.
            request_id: The id of its calls in the server's log.
            metadata: Further metadata of its calls.

        Raises:
            ValueError: An option is invalid.
            TypeError: A metadata value does not have the type that its key requires.

        """
        make: Any = self._MODEL
        model: ModelT = make(
            lambda steps, timeout_s: self._run(steps, deadline_after(timeout_s)),
            self._start,
            self._contracts,
            name=name,
            timeout_s=self._timeout_s if timeout_s is None else _options.checked_timeout(timeout_s),
            stream_timeout_s=timeout_s,
            metadata=_options.call_metadata(None, request_id, None, self._calls.merged(metadata)),
            max_message_bytes=self._max_send_bytes,
        )
        return model

    def stream(
        self,
        payloads: Iterable[Any] | AsyncIterable[Any],
        *,
        on_error: OnError = "raise",
        **options: Unpack[_options.CallOptions],
    ) -> AnswersT:
        """Returns the predictions for any number of payloads, in order, over one call.

        A thread of gRPC draws payloads as fast as the connection takes them. For an AsyncClient the event loop does,
        and `payloads` may be asynchronous.

        Args:
            payloads: Objects that `predict` takes.
            on_error: "raise" raises a payload's PredictError in its turn, "return" returns it.
            options: See `CallOptions`; without `timeout_s` the stream has no deadline.

        Raises:
            TypeError: `payloads` is not iterable.
            ValueError: An option is invalid.

        """
        return self._start(self._calls.payload_stream(payloads, on_error, options))

    def stream_text(
        self,
        texts: Iterable[str | bytes] | AsyncIterable[str | bytes],
        *,
        content_type: str | None = None,
        on_error: OnError = "raise",
        **options: Unpack[_options.CallOptions],
    ) -> AnswersT:
        """Like `stream`, with texts that are sent and returned unchanged."""
        encode, read = (lambda text, _: _payloads.as_text(text)), (lambda text, _: text)
        return self._start(self._calls.text_stream(texts, on_error, content_type, encode, read, options))

    def predict_stream(
        self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[_options.CallOptions]
    ) -> AnswersT:
        """Returns chunks of the predictions for a payload as they arrive, from a model with `predict_stream`.

        Arguments and errors are those of `predict`; without `timeout_s` there is no deadline.
        """
        return self._start(self._calls.chunk_stream(data, params, options))

    def predict_stream_text(
        self, text: str, *, content_type: str | None = None, **options: Unpack[_options.CallOptions]
    ) -> AnswersT:
        """Like `predict_stream`, with texts that are sent and returned unchanged."""
        return self._start(self._calls.text_chunks(text, content_type, lambda chunk, _: chunk, options))

    @abstractmethod
    def _start(self, stream: Stream | Steps, timeout_s: float | None = None) -> AnswersT:
        """Makes the call of a stream. Steps that result in one are taken first, within a timeout."""

    @abstractmethod
    def _run(self, steps: Steps, deadline: float) -> Any:
        """Takes the steps in order before a deadline, and returns their result."""

    @abstractmethod
    def _make_channel(self, target: str) -> Any:
        """A channel to a gRPC target. The first call connects it."""

    @abstractmethod
    def _close_channel(self, channel: Any) -> None:
        """Closes a channel."""

    @classmethod
    def _checked_interceptors(cls, interceptors: Any) -> tuple[Any, ...]:
        """The interceptors; raises TypeError for an object that is not one of this client's gRPC module."""
        names = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
        classes = tuple(getattr(cls._STACK, f"{name}ClientInterceptor") for name in names)
        checked = tuple(interceptors) if isinstance(interceptors, Iterable) else (interceptors,)
        for interceptor in checked:
            if not isinstance(interceptor, classes):
                module = cls._STACK.__name__
                raise TypeError(
                    f"interceptors are a list of those of {module}, such as {module}.UnaryUnaryClientInterceptor; "
                    f"not {interceptor!r}"
                )
        return checked

    def _new_channel(self, target: str, **options: Any) -> Any:
        if self._credentials is None:
            return self._STACK.insecure_channel(target, self._channel_options, **options)
        return self._STACK.secure_channel(target, self._credentials, self._channel_options, **options)

    @staticmethod
    def _check_resolved(error: PredictError | None) -> None:
        """Raises the error of a resolution that several calls may share."""
        if error is not None:
            raise copy.copy(error)

    def _serialized(self, request: Any) -> bytes:
        """The bytes of a message; a PredictError over the limit, which gRPC would report only after retries."""
        data: bytes = request.SerializeToString()
        if problem := over_limit(data, self._max_send_bytes):
            raise failure(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Nothing was sent: {problem}.")
        return data

    def _requests(self, stream: Stream) -> Requests | None:
        """The requests of a stream; None if it sends a single one."""
        if stream.encode is None:
            return None
        returns_errors = stream.on_error == "return"
        return self._REQUESTS(stream.requests, stream.encode, self._max_send_bytes, returns_errors=returns_errors)
