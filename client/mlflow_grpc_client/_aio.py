"""The client for asyncio."""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from _mlflow_grpc_protocol.metadata import AUTHORIZATION_KEY

from mlflow_grpc_client import _grpc_workarounds
from mlflow_grpc_client._base import BaseClient
from mlflow_grpc_client._call_builder import from_json
from mlflow_grpc_client._calls import Call, Pause, Steps, Stream, Wait, deadline_after, remaining_s
from mlflow_grpc_client._models import Models
from mlflow_grpc_client._options import HEALTH_TIMEOUT_S, CallOptions, Metadata
from mlflow_grpc_client._payloads import is_bare, to_json
from mlflow_grpc_client._reflection import ProtoFile
from mlflow_grpc_client._requests import AsyncRequests
from mlflow_grpc_client._streams import AsyncAnswers, ResponseReader, is_current_task_cancelled
from mlflow_grpc_client._tables import Collect
from mlflow_grpc_client._token import authorization, has_authorization
from mlflow_grpc_client._token_function import token_awaited_until
from mlflow_grpc_client._typed.model import AsyncTypedModel
from mlflow_grpc_client.errors import PredictError, client_closed, deadline_exceeded

if TYPE_CHECKING:
    # Only for annotations, so that it need not be installed; typing has them from Python 3.11 on.
    from typing_extensions import Self, Unpack


class AsyncClient(BaseClient[AsyncAnswers, AsyncTypedModel]):
    """`Client` with `await`, for any number of concurrent calls from a single event loop.

    It may be created before the loop runs, and belongs to the loop of its first call.
    """

    _STACK = grpc.aio
    _REQUESTS = AsyncRequests
    _MODEL = AsyncTypedModel

    def _set_up(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def predict(self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]) -> Any:
        """Like `Client.predict`."""
        return from_json(await self.predict_text(to_json(data, params), **options), is_bare(data))

    async def predict_text(
        self, text: str | bytes, *, content_type: str | None = None, **options: Unpack[CallOptions]
    ) -> str:
        """Like `Client.predict_text`."""
        answer: str = await self._send(self._calls.predict(text, content_type, options))
        return answer

    async def health(self, service: str = "", *, timeout_s: float = HEALTH_TIMEOUT_S) -> str:
        """Like `Client.health`."""
        status: str = await self._send(self._calls.health(service, timeout_s))
        return status

    async def models(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> Models:
        """Like `Client.models`."""
        models: Models = await self._send(self._calls.models(timeout_s))
        return models

    async def proto_file(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> ProtoFile:
        """Like `Client.proto_file`."""
        proto_file: ProtoFile = await self._run(self._calls.proto_file(timeout_s), deadline_after(timeout_s))
        return proto_file

    async def _run(self, steps: Steps, deadline: float) -> Any:
        result: Any = None
        error: PredictError | None = None
        try:
            while True:
                step = steps.send(result) if error is None else steps.throw(error)
                result, error = None, None
                try:
                    result = await self._take(step, deadline)
                except PredictError as failed:
                    error = failed
        except StopIteration as end:
            return end.value
        finally:
            steps.close()  # Also if the task is cancelled, so that nothing waits for its result.

    async def _take(self, step: Call | Collect | Pause | Wait, deadline: float) -> Any:
        match step:
            case Call():
                return await self._send(replace(step, deadline=deadline))
            case Collect():
                async with self._start(replace(step.stream, deadline=deadline)) as answers:
                    return [answer async for answer in answers]
            case Wait():
                running = asyncio.shield(asyncio.wrap_future(step.future))  # Other calls may wait for it.
                try:
                    return await asyncio.wait_for(running, remaining_s(deadline))
                except asyncio.TimeoutError:  # A class of its own before Python 3.11.
                    raise deadline_exceeded(step.timeout_s) from None
            case Pause():
                fits = time.monotonic() + step.duration_s < deadline
                if fits:
                    await asyncio.sleep(step.duration_s)
                return fits

    def _start(self, stream: Stream | Steps, timeout_s: float | None = None) -> AsyncAnswers:
        async def open_call() -> tuple[Any, ResponseReader]:
            if self._results.is_closed:
                raise client_closed()
            ready: Stream = stream if isinstance(stream, Stream) else await self._run(stream, deadline_after(timeout_s))
            requests = self._requests(ready)
            deadline = ready.deadline or deadline_after(ready.timeout_s)
            channel = await self._acquire(ready, deadline)
            try:
                method: Any = (channel.unary_stream if requests is None else channel.stream_stream)(ready.method)
                request = requests or self._serialized(ready.requests)
                metadata = await self._authorized(ready, deadline)
                call = method(request, timeout=remaining_s(deadline), metadata=metadata)
            except BaseException:
                self._channels.release(channel)
                raise
            call.add_done_callback(lambda _: self._channels.release(channel))
            if requests is not None:
                _grpc_workarounds.keep_status(call)
            return call, ResponseReader(self._results, ready, requests)

        return AsyncAnswers(open_call, self._results)

    async def _send(self, call: Call) -> Any:
        deadline = call.deadline or deadline_after(call.timeout_s)
        request, metadata = self._serialized(call.request), await self._authorized(call, deadline)
        channel = await self._acquire(call, deadline)
        try:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
            rpc = method(request, timeout=remaining_s(deadline), metadata=metadata)
            answer = await rpc
            trailers = await rpc.trailing_metadata()
        except grpc.RpcError as error:
            explain = functools.partial(self._results.error, call, error)
            raise await self._results.without_blocking(error, explain) from None
        except asyncio.CancelledError:
            # grpcio cancels the calls of a closed channel as if someone had cancelled their tasks.
            if self._results.is_closed and not is_current_task_cancelled():
                raise client_closed() from None
            raise
        finally:
            self._channels.release(channel)
        self._results.warn(call, trailers)
        return self._results.answer(call, answer)

    async def _authorized(self, call: Call | Stream, deadline: float) -> Metadata:
        """The metadata of a call with the token of the client; raises what the function of the token raises."""
        if self._token is None or has_authorization(call.metadata):
            return call.metadata
        token = await token_awaited_until(self._token, deadline, call.timeout_s)
        return (*call.metadata, (AUTHORIZATION_KEY, authorization(token)))

    async def _acquire(self, call: Call | Stream, deadline: float) -> grpc.aio.Channel:
        """The channel for a call, to be released when the call has ended."""
        # grpcio ties a channel to the loop that runs at its creation, which the constructor would be too early for.
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("this AsyncClient belongs to another event loop: make one for each")
        if resolution := self._channels.first_resolution():
            self._check_resolved(await self._take(Wait(resolution, call.timeout_s), deadline))
        channel: grpc.aio.Channel = self._channels.acquire()
        return channel

    def _make_channel(self, target: str) -> grpc.aio.Channel:
        channel: grpc.aio.Channel = self._new_channel(target, interceptors=self._interceptors or None)
        return channel

    def _close_channel(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.get_running_loop().create_task(channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Like `Client.close`."""
        self._results.is_closed = True
        for channel in self._channels.detach_all():
            await channel.close()
        await asyncio.gather(*self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
