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

from mlflow_grpc_client import _compat
from mlflow_grpc_client._base import BaseClient
from mlflow_grpc_client._calls import Call, Learn, OnError, Stream, left_s
from mlflow_grpc_client._connection import addresses, probing
from mlflow_grpc_client._connection.channels import Channels
from mlflow_grpc_client._connection.probing import Talk
from mlflow_grpc_client._options import HEALTH_TIMEOUT_S, CallOptions, MoreMetadata
from mlflow_grpc_client._payloads import as_text, to_json
from mlflow_grpc_client._proto_file import ProtoFile
from mlflow_grpc_client._streams import AsyncAnswers, AsyncRequests, Outcomes
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client._typed.model import AsyncTypedModel, Steps
from mlflow_grpc_client._wire import Models
from mlflow_grpc_client.errors import PredictError

if TYPE_CHECKING:
    # Only for annotations, so that it need not be installed; typing has them from Python 3.11 on.
    from typing_extensions import Self, Unpack


class AsyncClient(BaseClient):
    """`Client` with `await`: any number of calls at a time, all from one event loop.

    May be made before the loop runs; belongs to the loop of its first call.
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
        self._talks: dict[tuple[str, str], Talk] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flights: dict[str, asyncio.Future[Contract | PredictError]] = {}
        """What comes of asking for a contract, by the model's label, while a task does."""

    async def predict(self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]) -> Any:
        """As `Client.predict`."""
        return self._predictions(data, await self.predict_text(to_json(data, params), **options))

    async def predict_text(
        self, text: str | bytes, *, content_type: str | None = None, **options: Unpack[CallOptions]
    ) -> str:
        """As `Client.predict_text`."""
        answer: str = await self._make(self._predict_call(text, content_type, **options))
        return answer

    async def health(self, service: str = "", *, timeout_s: float = HEALTH_TIMEOUT_S) -> str:
        """As `Client.health`."""
        status: str = await self._make(self._health_call(service, timeout_s))
        return status

    async def models(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> Models:
        """As `Client.models`."""
        found: Models = await self._make(self._models_call(timeout_s))
        return found

    async def proto_file(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> ProtoFile:
        """As `Client.proto_file`."""
        found: ProtoFile = await self._run(self._proto_steps(timeout_s), time.monotonic() + timeout_s)
        return found

    def model(
        self,
        name: str = "",
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        metadata: MoreMetadata | None = None,
    ) -> AsyncTypedModel:
        """As `Client.model`."""
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
        """As `Client.stream`, with an asynchronous iterator, and of an iterable of either kind.

        One that is not asynchronous is drawn in the event loop.
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
        """As `Client.stream_text`, with an asynchronous iterator."""
        return self._start(_ready(self._text_stream(texts, on_error, content_type, as_text, str, options)))

    def predict_stream(
        self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> AsyncAnswers:
        """As `Client.predict_stream`, with an asynchronous iterator."""
        return self._start(_ready(self._parts_stream(data, params, options)))

    def predict_stream_text(
        self, text: str, *, content_type: str | None = None, **options: Unpack[CallOptions]
    ) -> AsyncAnswers:
        """As `Client.predict_stream_text`, with an asynchronous iterator."""
        return self._start(_ready(self._text_parts(text, content_type, str, options)))

    async def _run(self, steps: Steps, until: float) -> Any:
        """Does what the steps say, one after the other and up to a deadline, and gives what comes of them."""
        outcome: Any = None
        failed: PredictError | None = None
        try:
            while True:
                step = steps.send(outcome) if failed is None else steps.throw(failed)
                outcome, failed = None, None
                try:
                    if isinstance(step, Learn):
                        outcome = await self._learn(step, until)
                    else:
                        outcome = await self._make(replace(step, until=until))
                except PredictError as error:
                    failed = error
        except StopIteration as end:
            return end.value

    async def _learn(self, wanted: Learn, until: float) -> Contract:
        """The contract that is known, or that the server tells: to one task, for all that wait for it."""
        while True:
            if known := self._known(wanted):
                return known
            flight = self._flights.get(wanted.label)
            if flight is None:
                return await self._ask(wanted, until)
            try:
                shared = self._shared(await asyncio.wait_for(asyncio.shield(flight), left_s(until)))
            except asyncio.TimeoutError:  # Another class than TimeoutError before Python 3.11.
                raise self._too_late(wanted.timeout_s) from None
            if shared is not None:
                return shared

    async def _ask(self, wanted: Learn, until: float) -> Contract:
        flight = self._flights[wanted.label] = asyncio.get_running_loop().create_future()
        outcome: Contract | PredictError = self._given_up()
        try:
            contract: Contract = await self._run(self._learning(wanted), until)
            outcome = contract
        except PredictError as error:
            outcome = error
            raise
        finally:
            del self._flights[wanted.label]
            flight.set_result(outcome)
        return contract

    def _start(self, ready: Callable[[], Awaitable[Stream]]) -> AsyncAnswers:
        async def start() -> tuple[Any, Outcomes]:
            if self._closed:
                raise self._closed_failure()
            stream = await ready()
            requests = self._requests(stream, AsyncRequests)
            channel, ended = await self._take()
            try:
                method: Any = (channel.unary_stream if requests is None else channel.stream_stream)(stream.method)
                call = method(requests or stream.requests, timeout=stream.timeout_s, metadata=stream.metadata)
            except BaseException:
                ended()
                raise
            if self._channels is not None:
                call.add_done_callback(lambda _: ended())
            if requests is not None and hasattr(call, "_cython_call"):  # A call with interceptors has it later.
                call._cython_call = _KeepsStatus(call._cython_call)  # noqa: SLF001 - see there
            return call, self._outcomes(stream, requests)

        return AsyncAnswers(start, lambda: self._closed, self._find_out)

    async def _make(self, call: Call) -> Any:
        if self._closed:
            raise self._closed_failure()
        channel, ended = await self._take()
        try:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
            making = method(call.request, timeout=call.left_s, metadata=call.metadata)
            answer = await making
            trailers = await making.trailing_metadata()
        except grpc.RpcError as error:
            await self._find_out(error)
            raise self._failure(call, error) from None
        except asyncio.CancelledError:
            # grpcio cancels the calls of a channel that is closed, as if somebody had cancelled their tasks.
            task = asyncio.current_task()
            if self._closed and task is not None and not _compat.is_cancelled(task):
                raise self._closed_failure() from None
            raise
        finally:
            ended()
        self._warn(call, trailers)
        return self._read(call, answer)

    async def _take(self) -> tuple[grpc.aio.Channel, Callable[[], None]]:
        """The channel for a call, and what to do when the call has ended."""
        # Not made with the client: grpcio ties a channel to the loop that is there at that moment.
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("this AsyncClient belongs to another event loop: make one for each")
        if self._channels is None:
            self._channel = self._channel or self._make_channel(self._target.name)
            return self._channel, _nothing
        if not self._channels.is_known:
            await asyncio.to_thread(self._channels.look_up)
            if self._closed:
                raise self._closed_failure()
        channel = self._channels.take()
        return channel, functools.partial(self._channels.give_back, channel)

    def _make_channel(self, target: str) -> grpc.aio.Channel:
        made: grpc.aio.Channel = self._new_channel(grpc.aio, target, interceptors=self._interceptors or None)
        return made

    def _close_later(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.get_running_loop().create_task(channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _find_out(self, error: grpc.RpcError) -> None:
        """Finds out, without holding up the event loop, what a server speaks that does not get on with this client."""
        peer = addresses.unclear_peer(error.details() or "")
        if peer[1]:
            self._talks[peer] = await asyncio.to_thread(probing.talk_of, peer[0], int(peer[1]))

    def _talk_of(self, host: str, port: str) -> Talk:
        return self._talks.pop((host, port), Talk.UNKNOWN)

    async def close(self) -> None:
        """As `Client.close`."""
        self._closed = True
        channels = [self._channel] if self._channels is None else self._channels.all()
        for channel in channels:
            if channel is not None:
                await channel.close()
        await asyncio.gather(*self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _KeepsStatus:
    """The core of a call, whose status is the one that the server has sent.

    When a server ends a stream to which grpc.aio is writing, the write fails, and grpc.aio puts INTERNAL, "Internal
    error from Core", in the place of the status that has come or comes a moment later (grpc#36066). That is left to
    the case that there is none (grpc#34148).
    """

    def __init__(self, core: Any) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def set_internal_error(self, text: str) -> None:
        """Sets the status, if there is none within a second."""
        asyncio.get_running_loop().call_later(1, self._give_up, text)

    def _give_up(self, text: str) -> None:
        if not self._core.done():
            self._core.set_internal_error(text)


def _nothing() -> None:
    """For the end of a call that nobody waits for."""


def _ready(stream: Stream) -> Callable[[], Awaitable[Stream]]:
    async def ready() -> Stream:
        return stream

    return ready
