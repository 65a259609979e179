"""The synchronous client."""

from __future__ import annotations

import concurrent.futures
import functools
import time
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from _mlflow_grpc_protocol.metadata import AUTHORIZATION_KEY

from mlflow_grpc_client._base import BaseClient
from mlflow_grpc_client._call_builder import from_json
from mlflow_grpc_client._calls import Call, Pause, Steps, Stream, Wait, deadline_after, remaining_s
from mlflow_grpc_client._models import Models
from mlflow_grpc_client._options import HEALTH_TIMEOUT_S, CallOptions, Metadata
from mlflow_grpc_client._payloads import is_bare, to_json
from mlflow_grpc_client._reflection import ProtoFile
from mlflow_grpc_client._streams import Answers, ResponseReader
from mlflow_grpc_client._tables import Collect
from mlflow_grpc_client._token import authorization, has_authorization
from mlflow_grpc_client._token_function import token_until
from mlflow_grpc_client._typed.model import TypedModel
from mlflow_grpc_client.errors import PredictError, client_closed, deadline_exceeded

if TYPE_CHECKING:
    # Only for annotations, so that it need not be installed; typing has them from Python 3.11 on.
    from typing_extensions import Self, Unpack


class Client(BaseClient[Answers, TypedModel]):
    """A connection to a server, or to several, for any number of calls from any number of threads.

    The first call connects. Predictions that end in UNAVAILABLE are retried up to four times with growing pauses,
    within their deadline. So are predictions that an overloaded server refuses, with the pauses that it sends.
    """

    _STACK = grpc
    _MODEL = TypedModel

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
        return from_json(self.predict_text(to_json(data, params), **options), is_bare(data))

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
        answer: str = self._send(self._calls.predict(text, content_type, options))
        return answer

    def health(self, service: str = "", *, timeout_s: float = HEALTH_TIMEOUT_S) -> str:
        """Returns the health of the server, a service or a model: SERVING or NOT_SERVING. Never retried.

        Raises:
            PredictError: No server answers, or the server has no such service.

        """
        status: str = self._send(self._calls.health(service, timeout_s))
        return status

    def models(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> Models:
        """Returns the models of the server in any state. Never retried.

        Raises:
            PredictError: No server answers, or the server does not list its models (UNIMPLEMENTED).

        """
        models: Models = self._send(self._calls.models(timeout_s))
        return models

    def proto_file(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> ProtoFile:
        """Returns the .proto file of the server's typed RPCs, by reflection. Never retried.

        Raises:
            PredictError: No server answers, or the server has no typed RPCs or no reflection (UNIMPLEMENTED).

        """
        proto_file: ProtoFile = self._run(self._calls.proto_file(timeout_s), deadline_after(timeout_s))
        return proto_file

    def _run(self, steps: Steps, deadline: float) -> Any:
        result: Any = None
        error: PredictError | None = None
        try:
            while True:
                step = steps.send(result) if error is None else steps.throw(error)
                result, error = None, None
                try:
                    result = self._take(step, deadline)
                except PredictError as failed:
                    error = failed
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

    def _take(self, step: Call | Collect | Pause | Wait, deadline: float) -> Any:
        match step:
            case Call():
                return self._send(replace(step, deadline=deadline))
            case Collect():
                with self._start(replace(step.stream, deadline=deadline)) as answers:
                    return list(answers)
            case Wait():
                try:
                    return step.future.result(remaining_s(deadline))
                except concurrent.futures.TimeoutError:  # A class of its own before Python 3.11.
                    raise deadline_exceeded(step.timeout_s) from None
            case Pause():
                fits = time.monotonic() + step.duration_s < deadline
                if fits:
                    time.sleep(step.duration_s)
                return fits

    def _start(self, stream: Stream | Steps, timeout_s: float | None = None) -> Answers:
        ready: Stream = stream if isinstance(stream, Stream) else self._run(stream, deadline_after(timeout_s))
        requests = self._requests(ready)
        deadline = ready.deadline or deadline_after(ready.timeout_s)
        channel = self._acquire(ready, deadline)
        release = functools.partial(self._channels.release, channel)
        method: Any = (channel.unary_stream if requests is None else channel.stream_stream)(ready.method)
        try:
            request = requests or self._serialized(ready.requests)
            call = method(request, timeout=remaining_s(deadline), metadata=self._authorized(ready, deadline))
        except BaseException as error:
            release()
            if not self._results.is_closed or not isinstance(error, ValueError):
                raise
            raise client_closed() from None
        if not call.add_callback(release):
            release()
        return Answers(call, ResponseReader(self._results, ready, requests))

    def _send(self, call: Call) -> Any:
        deadline = call.deadline or deadline_after(call.timeout_s)
        request, metadata = self._serialized(call.request), self._authorized(call, deadline)
        channel = self._acquire(call, deadline)
        try:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
            answer, rpc = method.with_call(request, timeout=remaining_s(deadline), metadata=metadata)
        except grpc.RpcError as error:
            raise self._results.error(call, error) from None
        except ValueError:
            if not self._results.is_closed:
                raise
            raise client_closed() from None
        finally:
            self._channels.release(channel)
        self._results.warn(call, rpc.trailing_metadata())
        return self._results.answer(call, answer)

    def _authorized(self, call: Call | Stream, deadline: float) -> Metadata:
        """The metadata of a call with the token of the client; raises what the function of the token raises."""
        if self._token is None or has_authorization(call.metadata):
            return call.metadata
        token = token_until(self._token, deadline, call.timeout_s)
        return (*call.metadata, (AUTHORIZATION_KEY, authorization(token)))

    def _acquire(self, call: Call | Stream, deadline: float) -> grpc.Channel:
        """The channel for a call, to be released when the call has ended."""
        if resolution := self._channels.first_resolution():
            self._check_resolved(self._take(Wait(resolution, call.timeout_s), deadline))
        channel: grpc.Channel = self._channels.acquire()
        return channel

    def _make_channel(self, target: str) -> grpc.Channel:
        channel: grpc.Channel = self._new_channel(target)
        return grpc.intercept_channel(channel, *self._interceptors) if self._interceptors else channel

    def _close_channel(self, channel: grpc.Channel) -> None:
        channel.close()

    def close(self) -> None:
        """Closes the connection. Running and later calls end in a PredictError."""
        self._results.is_closed = True
        for channel in self._channels.detach_all():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
