"""Calls at an even rate from clients without a retry policy, so each failure is visible to a caller."""

import asyncio
import collections
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from mlflow_grpc import protos
from tests.process.conftest import payload

STREAM_LENGTH = 3
"""Number of requests in a short stream."""

OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
"""Options of the clients' channels.

`grpc.enable_retries` has its default, which without a policy starts only calls again that no server has seen (gRFC A6,
transparent retries). With 0, gRPC's core fails the calls that it has not sent yet when GOAWAY arrives, whichever server
sends it.
"""


@dataclass
class Load:
    """Number of calls, and their outcomes."""

    address: str
    connections: int = 4
    rate: float = 200.0
    """Calls per second, over all connections."""
    long_every: int = 400
    long_s: float = 5.0
    stream_every: int = 0
    """A short stream of requests replaces a single call once in this number of calls; 0 for none."""
    credentials: grpc.ChannelCredentials | None = None
    """TLS credentials of the clients; None for connections without TLS."""
    calls: int = 0
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    failed_began_s: list[float] = field(default_factory=list)
    """Times at which the failed calls began, by `time.monotonic`."""
    is_over: bool = False

    async def run(self) -> None:
        """Makes calls until `is_over`, and then waits for the answers."""
        channels = [self._channel() for _ in range(self.connections)]
        calling = set()
        began = time.monotonic()
        for number in itertools.count():
            if self.is_over:
                break
            await asyncio.sleep(began + number / self.rate - time.monotonic())
            seconds = self.long_s if number % self.long_every == self.long_every - 1 else 0.0
            is_stream = self.stream_every > 0 and number % self.stream_every == 0
            call = self._stream if is_stream else self._unary
            task = asyncio.create_task(self._call(call, channels[number % self.connections], number, seconds))
            calling.add(task)
            task.add_done_callback(calling.discard)
        await asyncio.gather(*calling)
        for channel in channels:
            await channel.close()

    def _channel(self) -> grpc.aio.Channel:
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address, options=OPTIONS)
        return grpc.aio.secure_channel(self.address, self.credentials, options=OPTIONS)

    async def _call(self, call: "Call", channel: grpc.aio.Channel, number: int, seconds: float) -> None:
        self.calls += 1
        began_s = time.monotonic()
        message = protos.Input(value=payload(f"{seconds}", str(number))).SerializeToString()
        try:
            values = await call(channel, message)
            if not all(str(number) in value for value in values):
                self.failures["another call's answer"] += 1
        except grpc.aio.AioRpcError as error:
            self.failures[f"{error.code().name}: {error.details()}"] += 1
            self.failed_began_s.append(began_s)

    async def _unary(self, channel: grpc.aio.Channel, message: bytes) -> list[str]:
        predict: Any = channel.unary_unary("/MLflow/predict", None, protos.Output.FromString)
        return [(await predict(message, timeout=60)).value]

    async def _stream(self, channel: grpc.aio.Channel, message: bytes) -> list[str]:
        predict_many: Any = channel.stream_stream("/MLflowStream/predict_many", None, protos.Output.FromString)
        values = [output.value async for output in predict_many(iter([message] * STREAM_LENGTH), timeout=60)]
        return values if len(values) == STREAM_LENGTH else [f"{len(values)} answers"]


Call = Callable[[grpc.aio.Channel, bytes], Awaitable[list[str]]]
"""Makes one call with a serialized Input, and returns the values of its answers."""
