"""The synchronous client.

More than half of this module are the docstrings of the public API.
"""

from __future__ import annotations

import concurrent.futures
import functools
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from mlflow_grpc_client._base import BaseClient
from mlflow_grpc_client._calls import Call, OnError, Stream, deadline_after, remaining_s
from mlflow_grpc_client._connection.channels import Channels
from mlflow_grpc_client._models import Models
from mlflow_grpc_client._options import HEALTH_TIMEOUT_S, CallOptions, MoreMetadata
from mlflow_grpc_client._payloads import to_json
from mlflow_grpc_client._reflection import ProtoFile
from mlflow_grpc_client._requests import Requests
from mlflow_grpc_client._streams import Answers
from mlflow_grpc_client._typed.base_model import Effects
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client._typed.discovery import FetchContract, Pause
from mlflow_grpc_client._typed.model import TypedModel
from mlflow_grpc_client.errors import PredictError, client_closed, deadline_exceeded

if TYPE_CHECKING:
    # Only for annotations, so that it need not be installed; typing has them from Python 3.11 on.
    from typing_extensions import Self, Unpack


class Client(BaseClient):
    """A connection to a server, or to several, for any number of calls from any number of threads.

    The first call connects. Predictions that end in UNAVAILABLE are retried up to four times with growing pauses,
    within their deadline. So are predictions that an overloaded server refuses, with the pauses that it sends.
    """

    _INTERCEPTORS = (
        (
            grpc.UnaryUnaryClientInterceptor,
            grpc.UnaryStreamClientInterceptor,
            grpc.StreamUnaryClientInterceptor,
            grpc.StreamStreamClientInterceptor,
        ),
        "grpc",
    )

    def _set_up(self) -> None:
        self._channels: Channels | None = None
        self._channel: Any = None
        if self._target.name:
            self._channel = self._make_channel(self._target.name)
        else:
            self._channels = Channels(self._target, self._make_channel, lambda channel: channel.close())
        self._lock = threading.Lock()
        self._fetches: dict[str, Future[Contract | PredictError]] = {}
        """Results of running fetches of contracts by the labels of their models."""

    def _make_channel(self, target: str) -> grpc.Channel:
        channel: grpc.Channel = self._new_channel(grpc, target)
        return grpc.intercept_channel(channel, *self._interceptors) if self._interceptors else channel

    def _acquire(self, call: Call | Stream, deadline: float) -> tuple[grpc.Channel, Callable[[], None]]:
        """The channel for a call, and a function to call when the call has ended."""
        if self._channels is None:
            return self._channel, _nothing
        if resolution := self._channels.first_resolution():
            try:
                self._check_resolved(resolution.result(remaining_s(deadline)))
            except concurrent.futures.TimeoutError:  # A class of its own before Python 3.11.
                raise deadline_exceeded(call.timeout_s or 0) from None
        channel = self._channels.acquire()
        return channel, functools.partial(self._channels.release, channel)

    def predict(self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]) -> Any:
        """Returns the model's predictions: the value of `predictions`, or the bare answer to an LLM payload.

        Args:
            data: A dict in one of MLflow's formats, a DataFrame, an array, a dict of arrays, a list, or a
                JSON text.
            params: Params of the model.
            options: See `CallOptions`.

        Raises:
            PredictError: The call failed.
            TypeError: `data` has no JSON form that MLflow reads.
            ValueError: An option is invalid.

        """
        return self._predictions(data, self.predict_text(to_json(data, params), **options))

    def predict_text(
        self, text: str | bytes, *, content_type: str | None = None, **options: Unpack[CallOptions]
    ) -> str:
        """Sends a text unchanged and returns the server's text unchanged.

        Args:
            text: The payload: JSON, or CSV with `content_type="text/csv"`; bytes are UTF-8.
            content_type: The format of the payload; None for JSON.
            options: See `CallOptions`.

        Raises:
            PredictError: The call failed.
            TypeError: `text` is neither text nor bytes.
            ValueError: An option is invalid, the text has lone surrogates, or the bytes are not UTF-8.

        """
        answer: str = self._send(self._predict_call(text, content_type, **options))
        return answer

    def health(self, service: str = "", *, timeout_s: float = HEALTH_TIMEOUT_S) -> str:
        """Returns the health of the server, a service or a model: SERVING or NOT_SERVING. Never retried.

        Raises:
            PredictError: No server answers, or the server has no such service.

        """
        status: str = self._send(self._health_call(service, timeout_s))
        return status

    def models(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> Models:
        """Returns the models of the server in any state. Never retried.

        Raises:
            PredictError: No server answers, or the server does not list its models (UNIMPLEMENTED).

        """
        models: Models = self._send(self._models_call(timeout_s))
        return models

    def proto_file(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> ProtoFile:
        """Returns the .proto file of the server's typed RPCs, by reflection. Never retried.

        Raises:
            PredictError: No server answers, or the server has no typed RPCs or no reflection (UNIMPLEMENTED).

        """
        proto_file: ProtoFile = self._run(self._proto_file_calls(timeout_s), time.monotonic() + timeout_s)
        return proto_file

    def model(
        self,
        name: str = "",
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        metadata: MoreMetadata | None = None,
    ) -> TypedModel:
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
        return TypedModel(
            self._run,
            self._start,
            name=name,
            timeout_s=timeout_s,
            default_timeout_s=self._timeout_s,
            request_id=request_id,
            metadata=self._merged(metadata),
        )

    def stream(
        self, payloads: Iterable[Any], *, on_error: OnError = "raise", **options: Unpack[CallOptions]
    ) -> Answers:
        """Returns the predictions for any number of payloads, in order, over one call.

        A thread of gRPC draws payloads as fast as the connection takes them.

        Args:
            payloads: Objects that `predict` takes.
            on_error: "raise" raises a payload's PredictError in its turn, "return" returns it.
            options: See `CallOptions`; without `timeout_s` the stream has no deadline.

        Raises:
            TypeError: `payloads` is not iterable.
            ValueError: An option is invalid.

        """
        return self._start(self._payload_stream(payloads, on_error, options))

    def stream_text(
        self,
        texts: Iterable[str | bytes],
        *,
        content_type: str | None = None,
        on_error: OnError = "raise",
        **options: Unpack[CallOptions],
    ) -> Answers:
        """Like `stream`, with texts that are sent and returned unchanged."""
        return self._start(self._given_texts(texts, on_error, content_type, options))

    def predict_stream(
        self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> Answers:
        """Returns chunks of the predictions for a payload as they arrive, from a model with `predict_stream`.

        Arguments and errors are those of `predict`; without `timeout_s` there is no deadline.
        """
        return self._start(self._chunk_stream(data, params, options))

    def predict_stream_text(
        self, text: str, *, content_type: str | None = None, **options: Unpack[CallOptions]
    ) -> Answers:
        """Like `predict_stream`, with texts that are sent and returned unchanged."""
        return self._start(self._text_chunks(text, content_type, str, options))

    def _run(self, effects: Effects, deadline: float) -> Any:
        """Performs effects in order before a deadline, and returns their result."""
        result: Any = None
        error: PredictError | None = None
        try:
            while True:
                effect = effects.send(result) if error is None else effects.throw(error)
                result, error = None, None
                try:
                    if isinstance(effect, FetchContract):
                        result = self._contract(effect, deadline)
                    elif isinstance(effect, Pause):
                        result = time.monotonic() + effect.duration_s < deadline
                        if result:
                            time.sleep(effect.duration_s)
                    else:
                        result = self._send(replace(effect, deadline=deadline))
                except PredictError as failed:
                    error = failed
        except StopIteration as end:
            return end.value

    def _contract(self, fetch: FetchContract, deadline: float) -> Contract:
        """A contract from the cache or from the server. One thread fetches it for all that wait."""
        while True:
            with self._lock:
                if contract := self._cached(fetch):
                    return contract
                running = self._fetches.get(fetch.label)
                if running is None:
                    future = self._fetches[fetch.label] = Future()
            if running is None:
                return self._fetch_for_all(fetch, deadline, future)
            try:
                shared = self._shared(running.result(remaining_s(deadline)))
            except concurrent.futures.TimeoutError:  # A class of its own before Python 3.11.
                raise deadline_exceeded(fetch.timeout_s) from None
            if shared is not None:
                return shared

    def _fetch_for_all(
        self, fetch: FetchContract, deadline: float, future: Future[Contract | PredictError]
    ) -> Contract:
        outcome: Contract | PredictError = self._abandoned_failure()
        try:
            contract: Contract = self._run(self._fetch(fetch), deadline)
            outcome = contract
        except PredictError as error:
            outcome = error
            raise
        finally:
            with self._lock:
                del self._fetches[fetch.label]
            future.set_result(outcome)
        return contract

    def _start(self, stream: Stream) -> Answers:
        requests = self._requests(stream, Requests)
        deadline = deadline_after(stream.timeout_s)
        channel, release = self._acquire(stream, deadline)
        method: Any = (channel.unary_stream if requests is None else channel.stream_stream)(stream.method)
        try:
            call = method(
                requests or stream.requests.SerializeToString(), timeout=remaining_s(deadline), metadata=stream.metadata
            )
        except BaseException as error:
            release()
            if not self._closed or not isinstance(error, ValueError):
                raise
            raise client_closed() from None
        if self._channels is not None and not call.add_callback(release):
            release()
        return Answers(call, self._response_reader(stream, requests))

    def _send(self, call: Call) -> Any:
        deadline = call.deadline or deadline_after(call.timeout_s)
        channel, release = self._acquire(call, deadline)
        try:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
            answer, rpc = method.with_call(
                call.request.SerializeToString(), timeout=remaining_s(deadline), metadata=call.metadata
            )
        except grpc.RpcError as error:
            raise self._failure(call, error) from None
        except ValueError:
            if not self._closed:
                raise
            raise client_closed() from None
        finally:
            release()
        self._warn(call, rpc.trailing_metadata())
        return self._read(call, answer)

    def close(self) -> None:
        """Closes the connection. Running and later calls end in a PredictError."""
        self._closed = True
        for channel in [self._channel] if self._channels is None else self._channels.detach_all():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _nothing() -> None:
    """Releases a channel that is not counted."""
