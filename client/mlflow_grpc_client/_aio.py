"""The client for asyncio."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from mlflow_grpc_client import _compat, _grpc_workarounds
from mlflow_grpc_client._base import BaseClient
from mlflow_grpc_client._calls import Call, OnError, Stream, deadline_after, remaining_s
from mlflow_grpc_client._connection.channels import Channels
from mlflow_grpc_client._models import Models
from mlflow_grpc_client._options import HEALTH_TIMEOUT_S, CallOptions, MoreMetadata
from mlflow_grpc_client._payloads import to_json
from mlflow_grpc_client._reflection import ProtoFile
from mlflow_grpc_client._requests import AsyncRequests
from mlflow_grpc_client._streams import AsyncAnswers, ResponseReader
from mlflow_grpc_client._typed.base_model import Effects
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client._typed.discovery import FetchContract, Pause
from mlflow_grpc_client._typed.model import AsyncTypedModel
from mlflow_grpc_client.errors import PredictError, client_closed, deadline_exceeded

if TYPE_CHECKING:
    # Only for annotations, so that it need not be installed; typing has them from Python 3.11 on.
    from typing_extensions import Self, Unpack


class AsyncClient(BaseClient):
    """`Client` with `await`, for any number of concurrent calls from a single event loop.

    It may be created before the loop runs, and belongs to the loop of its first call.
    """

    _INTERCEPTORS = (
        (
            grpc.aio.UnaryUnaryClientInterceptor,
            grpc.aio.UnaryStreamClientInterceptor,
            grpc.aio.StreamUnaryClientInterceptor,
            grpc.aio.StreamStreamClientInterceptor,
        ),
        "grpc.aio",
    )

    def _set_up(self) -> None:
        self._channel: grpc.aio.Channel | None = None
        self._channels = None if self._target.name else Channels(self._target, self._make_channel, self._close_later)
        self._closing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fetches: dict[str, asyncio.Future[Contract | PredictError]] = {}
        """Results of running fetches of contracts by the labels of their models."""

    async def predict(self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]) -> Any:
        """Like `Client.predict`."""
        return self._predictions(data, await self.predict_text(to_json(data, params), **options))

    async def predict_text(
        self, text: str | bytes, *, content_type: str | None = None, **options: Unpack[CallOptions]
    ) -> str:
        """Like `Client.predict_text`."""
        answer: str = await self._send(self._predict_call(text, content_type, **options))
        return answer

    async def health(self, service: str = "", *, timeout_s: float = HEALTH_TIMEOUT_S) -> str:
        """Like `Client.health`."""
        status: str = await self._send(self._health_call(service, timeout_s))
        return status

    async def models(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> Models:
        """Like `Client.models`."""
        models: Models = await self._send(self._models_call(timeout_s))
        return models

    async def proto_file(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> ProtoFile:
        """Like `Client.proto_file`."""
        proto_file: ProtoFile = await self._run(self._proto_file_calls(timeout_s), time.monotonic() + timeout_s)
        return proto_file

    def model(
        self,
        name: str = "",
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        metadata: MoreMetadata | None = None,
    ) -> AsyncTypedModel:
        """Like `Client.model`."""
        return AsyncTypedModel(
            self._run,
            self._start,
            name=name,
            timeout_s=timeout_s,
            default_timeout_s=self._timeout_s,
            request_id=request_id,
            metadata=self._merged(metadata),
        )

    def stream(
        self,
        payloads: Iterable[Any] | AsyncIterable[Any],
        *,
        on_error: OnError = "raise",
        **options: Unpack[CallOptions],
    ) -> AsyncAnswers:
        """Like `Client.stream`, as an asynchronous iterator. `payloads` may be asynchronous.

        The event loop draws payloads from an iterable that is not asynchronous.
        """
        return self._start(_ready(self._payload_stream(payloads, on_error, options)))

    def stream_text(
        self,
        texts: Iterable[str | bytes] | AsyncIterable[str | bytes],
        *,
        content_type: str | None = None,
        on_error: OnError = "raise",
        **options: Unpack[CallOptions],
    ) -> AsyncAnswers:
        """Like `Client.stream_text`, as an asynchronous iterator."""
        return self._start(_ready(self._given_texts(texts, on_error, content_type, options)))

    def predict_stream(
        self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> AsyncAnswers:
        """Like `Client.predict_stream`, as an asynchronous iterator."""
        return self._start(_ready(self._chunk_stream(data, params, options)))

    def predict_stream_text(
        self, text: str, *, content_type: str | None = None, **options: Unpack[CallOptions]
    ) -> AsyncAnswers:
        """Like `Client.predict_stream_text`, as an asynchronous iterator."""
        return self._start(_ready(self._text_chunks(text, content_type, str, options)))

    async def _run(self, effects: Effects, deadline: float) -> Any:
        """Performs effects in order before a deadline, and returns their result."""
        result: Any = None
        error: PredictError | None = None
        try:
            while True:
                effect = effects.send(result) if error is None else effects.throw(error)
                result, error = None, None
                try:
                    if isinstance(effect, FetchContract):
                        result = await self._contract(effect, deadline)
                    elif isinstance(effect, Pause):
                        result = time.monotonic() + effect.duration_s < deadline
                        if result:
                            await asyncio.sleep(effect.duration_s)
                    else:
                        result = await self._send(replace(effect, deadline=deadline))
                except PredictError as failed:
                    error = failed
        except StopIteration as end:
            return end.value

    async def _contract(self, fetch: FetchContract, deadline: float) -> Contract:
        """A contract from the cache or from the server. One task fetches it for all that wait."""
        while True:
            if contract := self._cached(fetch):
                return contract
            running = self._fetches.get(fetch.label)
            if running is None:
                return await self._fetch_for_all(fetch, deadline)
            try:
                shared = self._shared(await asyncio.wait_for(asyncio.shield(running), remaining_s(deadline)))
            except asyncio.TimeoutError:  # A class of its own before Python 3.11.
                raise deadline_exceeded(fetch.timeout_s) from None
            if shared is not None:
                return shared

    async def _fetch_for_all(self, fetch: FetchContract, deadline: float) -> Contract:
        future = self._fetches[fetch.label] = asyncio.get_running_loop().create_future()
        outcome: Contract | PredictError = self._abandoned_failure()
        try:
            contract: Contract = await self._run(self._fetch(fetch), deadline)
            outcome = contract
        except PredictError as error:
            outcome = error
            raise
        finally:
            del self._fetches[fetch.label]
            future.set_result(outcome)
        return contract

    def _start(self, make_stream: Callable[[], Awaitable[Stream]]) -> AsyncAnswers:
        async def open_call() -> tuple[Any, ResponseReader]:
            if self._closed:
                raise client_closed()
            stream = await make_stream()
            requests = self._requests(stream, AsyncRequests)
            deadline = deadline_after(stream.timeout_s)
            channel, release = await self._acquire(stream, deadline)
            try:
                method: Any = (channel.unary_stream if requests is None else channel.stream_stream)(stream.method)
                call = method(
                    requests or stream.requests.SerializeToString(),
                    timeout=remaining_s(deadline),
                    metadata=stream.metadata,
                )
            except BaseException:
                release()
                raise
            if self._channels is not None:
                call.add_done_callback(lambda _: release())
            if requests is not None:
                _grpc_workarounds.keep_status(call)
            return call, self._response_reader(stream, requests)

        return AsyncAnswers(open_call, lambda: self._closed)

    async def _send(self, call: Call) -> Any:
        if self._closed:
            raise client_closed()
        deadline = call.deadline or deadline_after(call.timeout_s)
        channel, release = await self._acquire(call, deadline)
        try:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
            rpc = method(call.request.SerializeToString(), timeout=remaining_s(deadline), metadata=call.metadata)
            answer = await rpc
            trailers = await rpc.trailing_metadata()
        except grpc.RpcError as error:
            raise self._failure(call, error) from None
        except asyncio.CancelledError:
            # grpcio cancels the calls of a closed channel as if someone had cancelled their tasks.
            if self._closed and not _compat.is_current_task_cancelled():
                raise client_closed() from None
            raise
        finally:
            release()
        self._warn(call, trailers)
        return self._read(call, answer)

    async def _acquire(self, call: Call | Stream, deadline: float) -> tuple[grpc.aio.Channel, Callable[[], None]]:
        """The channel for a call, and a function to call when the call has ended."""
        # grpcio ties a channel to the loop that runs at its creation, which the constructor would be too early for.
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("this AsyncClient belongs to another event loop: make one for each")
        if self._channels is None:
            self._channel = self._channel or self._make_channel(self._target.name)
            return self._channel, _nothing
        if resolution := self._channels.first_resolution():
            running = asyncio.shield(asyncio.wrap_future(resolution))  # Other calls may wait for it.
            try:
                self._check_resolved(await asyncio.wait_for(running, remaining_s(deadline)))
            except asyncio.TimeoutError:  # A class of its own before Python 3.11.
                raise deadline_exceeded(call.timeout_s or 0) from None
        channel = self._channels.acquire()
        return channel, functools.partial(self._channels.release, channel)

    def _make_channel(self, target: str) -> grpc.aio.Channel:
        channel: grpc.aio.Channel = self._new_channel(grpc.aio, target, interceptors=self._interceptors or None)
        return channel

    def _close_later(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.get_running_loop().create_task(channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Like `Client.close`."""
        self._closed = True
        channels = [self._channel] if self._channels is None else self._channels.detach_all()
        for channel in channels:
            if channel is not None:
                await channel.close()
        await asyncio.gather(*self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _nothing() -> None:
    """Releases a channel that is not counted."""


def _ready(stream: Stream) -> Callable[[], Awaitable[Stream]]:
    async def ready() -> Stream:
        return stream

    return ready
