"""The client for asyncio."""

import asyncio
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from mlflow_grpc_client.base import BaseClient, Call
from mlflow_grpc_client.options import HEALTH_TIMEOUT_S, CallOptions
from mlflow_grpc_client.payloads import to_json
from mlflow_grpc_client.wire import Model


class AsyncClient(BaseClient):
    """`Client` with `await`: any number of calls at a time, all from one event loop.

    May be made before the loop runs; belongs to the loop of its first call.
    """

    def _set_up(self) -> None:
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def predict(self, data: Any, params: dict[str, Any] | None = None, **options: Unpack[CallOptions]) -> Any:
        """As `Client.predict`."""
        return self._predictions(data, await self.predict_text(to_json(data, params), **options))

    async def predict_text(self, text: str, *, content_type: str | None = None, **options: Unpack[CallOptions]) -> str:
        """As `Client.predict_text`."""
        answer: str = await self._make(self._predict_call(text, content_type, **options))
        return answer

    async def health(self, service: str = "", *, timeout_s: float = HEALTH_TIMEOUT_S) -> str:
        """As `Client.health`."""
        status: str = await self._make(self._health_call(service, timeout_s))
        return status

    async def models(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> list[Model]:
        """As `Client.models`."""
        found: list[Model] = await self._make(self._models_call(timeout_s))
        return found

    async def _make(self, call: Call) -> Any:
        if self._closed:
            raise self._closed_failure()
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel_of_this_loop().unary_unary(call.method)
        try:
            answer = await method(call.request, timeout=call.timeout_s, metadata=call.metadata)
        except grpc.RpcError as error:
            raise self._failure(call, error) from None
        except asyncio.CancelledError:
            # grpcio cancels the calls of a channel that is closed, as if somebody had cancelled their tasks.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise self._closed_failure() from None
            raise
        return self._read(call, answer)

    def _channel_of_this_loop(self) -> grpc.aio.Channel:
        # Not made with the client: grpcio ties a channel to the loop that is there at that moment.
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._channel, self._loop = self._new_channel(grpc.aio), loop
        if self._loop is not loop:
            raise RuntimeError("this AsyncClient belongs to another event loop: make one for each")
        return self._channel

    async def close(self) -> None:
        """As `Client.close`."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
