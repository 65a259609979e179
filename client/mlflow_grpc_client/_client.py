"""The synchronous client."""

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
from mlflow_grpc_client._calls import Call, Learn, OnError, Stream, left_s
from mlflow_grpc_client._connection.channels import Channels
from mlflow_grpc_client._options import HEALTH_TIMEOUT_S, CallOptions, MoreMetadata
from mlflow_grpc_client._payloads import as_text, to_json
from mlflow_grpc_client._proto_file import ProtoFile
from mlflow_grpc_client._streams import Answers, Requests
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client._typed.model import Steps, TypedModel
from mlflow_grpc_client._wire import Models
from mlflow_grpc_client.errors import PredictError

if TYPE_CHECKING:
    # Only for annotations, so that it need not be installed; typing has them from Python 3.11 on.
    from typing_extensions import Self, Unpack


class Client(BaseClient):
    """A connection to a server, or to several, for any number of calls from any number of threads.

    Connects at the first call. Predictions that end in UNAVAILABLE are tried again up to four times, with
    growing pauses, within their deadline; so are those that an overloaded server refuses, with its pauses.
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
        self._flights: dict[str, Future[Contract | PredictError]] = {}
        """What comes of asking for a contract, by the model's label, while somebody does."""

    def _make_channel(self, target: str) -> grpc.Channel:
        made: grpc.Channel = self._new_channel(grpc, target)
        return grpc.intercept_channel(made, *self._interceptors) if self._interceptors else made

    def _take(self) -> tuple[grpc.Channel, Callable[[], None]]:
        """The channel for a call, and what to do when the call has ended."""
        if self._channels is None:
            return self._channel, _nothing
        if self._closed:
            raise self._closed_failure()
        if not self._channels.is_known:
            self._channels.look_up()
        channel = self._channels.take()
        return channel, functools.partial(self._channels.give_back, channel)

    def predict(self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]) -> Any:
        """The model's predictions: what stands under `predictions`, or the bare answer to an LLM payload.

        Args:
            data: A dict in one of MLflow's formats, a DataFrame, an array, a dict of arrays, a list, or a
                JSON text.
            params: Params of the model.
            options: See `CallOptions`.

        Raises:
            PredictError: The call failed.
            TypeError: `data` has no JSON form that MLflow reads.
            ValueError: An option cannot be sent.

        """
        return self._predictions(data, self.predict_text(to_json(data, params), **options))

    def predict_text(
        self, text: str | bytes, *, content_type: str | None = None, **options: Unpack[CallOptions]
    ) -> str:
        """Sends a text as it is and returns the server's text as it is.

        Args:
            text: The payload: JSON, or CSV with `content_type="text/csv"`; bytes are UTF-8.
            content_type: The format of the payload; None for JSON.
            options: See `CallOptions`.

        Raises:
            PredictError: The call failed.
            TypeError: `text` is neither text nor bytes.
            ValueError: An option cannot be sent, the text has lone surrogates, or the bytes are not UTF-8.

        """
        answer: str = self._make(self._predict_call(text, content_type, **options))
        return answer

    def health(self, service: str = "", *, timeout_s: float = HEALTH_TIMEOUT_S) -> str:
        """The health of the server, or of one of its services or models: SERVING or NOT_SERVING. Not tried again.

        Raises:
            PredictError: No server answers, or it has no such service.

        """
        status: str = self._make(self._health_call(service, timeout_s))
        return status

    def models(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> Models:
        """The models of the server, whatever became of them. Not tried again.

        Raises:
            PredictError: No server answers, or it does not tell its models (UNIMPLEMENTED).

        """
        found: Models = self._make(self._models_call(timeout_s))
        return found

    def proto_file(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> ProtoFile:
        """The .proto file of the server's typed RPCs, by reflection. Not tried again.

        Raises:
            PredictError: No server answers, or it has no typed RPCs or no reflection (UNIMPLEMENTED).

        """
        found: ProtoFile = self._run(self._proto_steps(timeout_s), time.monotonic() + timeout_s)
        return found

    def model(
        self,
        name: str = "",
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        metadata: MoreMetadata | None = None,
    ) -> TypedModel:
        """One model, to be called in its own types. Asks the server nothing yet; what it told once, the client keeps.

        Args:
            name: `name` or `name/version`; empty for the one that calls reach which name none.
            timeout_s: The deadline of each of its calls in seconds; if left out, the client's, and none for streams.
            request_id: The id under which the server logs its calls.
            metadata: Further metadata of its calls.

        Raises:
            ValueError: An option cannot be sent.
            TypeError: Metadata has a value of another type than its key asks for.

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
        """The predictions for any number of payloads, in their order, over one call.

        Payloads are drawn as the connection takes them, in a thread of gRPC's.

        Args:
            payloads: Each as `predict` takes it.
            on_error: Whether the PredictError of a payload is raised in its place, or returned.
            options: See `CallOptions`; without `timeout_s` the stream has no deadline.

        Raises:
            TypeError: `payloads` is no iterable.
            ValueError: An option cannot be sent.

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
        """As `stream`, with texts that are sent as they are, and the server's texts as they are."""
        return self._start(self._text_stream(texts, on_error, content_type, as_text, str, options))

    def predict_stream(
        self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> Answers:
        """The parts of the predictions for one payload, each when it is there, from a model with `predict_stream`.

        Arguments and errors as of `predict`; without `timeout_s` there is no deadline.
        """
        return self._start(self._parts_stream(data, params, options))

    def predict_stream_text(
        self, text: str, *, content_type: str | None = None, **options: Unpack[CallOptions]
    ) -> Answers:
        """As `predict_stream`, with a payload that is sent as it is, and the server's texts as they are."""
        return self._start(self._text_parts(text, content_type, str, options))

    def _run(self, steps: Steps, until: float) -> Any:
        """Does what the steps say, one after the other and up to a deadline, and gives what comes of them."""
        outcome: Any = None
        failed: PredictError | None = None
        try:
            while True:
                step = steps.send(outcome) if failed is None else steps.throw(failed)
                outcome, failed = None, None
                try:
                    if isinstance(step, Learn):
                        outcome = self._learn(step, until)
                    else:
                        outcome = self._make(replace(step, until=until))
                except PredictError as error:
                    failed = error
        except StopIteration as end:
            return end.value

    def _learn(self, wanted: Learn, until: float) -> Contract:
        """The contract that is known, or that the server tells: to one thread, for all that wait for it."""
        while True:
            with self._lock:
                if known := self._known(wanted):
                    return known
                flight = self._flights.get(wanted.label)
                if flight is None:
                    own = self._flights[wanted.label] = Future()
            if flight is None:
                return self._ask(wanted, until, own)
            try:
                shared = self._shared(flight.result(left_s(until)))
            except concurrent.futures.TimeoutError:  # Another class than TimeoutError before Python 3.11.
                raise self._too_late(wanted.timeout_s) from None
            if shared is not None:
                return shared

    def _ask(self, wanted: Learn, until: float, flight: Future[Contract | PredictError]) -> Contract:
        outcome: Contract | PredictError = self._given_up()
        try:
            contract: Contract = self._run(self._learning(wanted), until)
            outcome = contract
        except PredictError as error:
            outcome = error
            raise
        finally:
            with self._lock:
                del self._flights[wanted.label]
            flight.set_result(outcome)
        return contract

    def _start(self, stream: Stream) -> Answers:
        requests = self._requests(stream, Requests)
        channel, ended = self._take()
        method: Any = (channel.unary_stream if requests is None else channel.stream_stream)(stream.method)
        try:
            call = method(requests or stream.requests, timeout=stream.timeout_s, metadata=stream.metadata)
        except BaseException as error:
            ended()
            if not self._closed or not isinstance(error, ValueError):
                raise
            raise self._closed_failure() from None
        if self._channels is not None and not call.add_callback(ended):
            ended()
        return Answers(call, self._outcomes(stream, requests))

    def _make(self, call: Call) -> Any:
        channel, ended = self._take()
        try:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
            answer, done = method.with_call(call.request, timeout=call.left_s, metadata=call.metadata)
        except grpc.RpcError as error:
            raise self._failure(call, error) from None
        except ValueError:
            if not self._closed:
                raise
            raise self._closed_failure() from None
        finally:
            ended()
        self._warn(call, done.trailing_metadata())
        return self._read(call, answer)

    def close(self) -> None:
        """Closes the connection; calls that are under way, and later ones, end in a PredictError."""
        self._closed = True
        for channel in [self._channel] if self._channels is None else self._channels.all():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _nothing() -> None:
    """For the end of a call that nobody waits for."""
