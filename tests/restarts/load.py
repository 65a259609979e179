"""Calls at an even rate from clients that never retry, so each failure is visible to a caller."""

import asyncio
import collections
import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import grpc

from mlflow_grpc import protos
from tests.process.conftest import payload

OPTIONS = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]


@dataclass
class Load:
    """Number of calls, and their outcomes."""

    address: str
    connections: int = 4
    rate: float = 200.0
    """Calls per second, over all connections."""
    long_every: int = 400
    long_s: float = 5.0
    calls: int = 0
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    is_over: bool = False

    async def run(self) -> None:
        """Makes calls until `is_over`, and then waits for the answers."""
        channels = [grpc.aio.insecure_channel(self.address, options=OPTIONS) for _ in range(self.connections)]
        calling = set()
        began = time.monotonic()
        for number in itertools.count():
            if self.is_over:
                break
            await asyncio.sleep(began + number / self.rate - time.monotonic())
            seconds = self.long_s if number % self.long_every == self.long_every - 1 else 0.0
            task = asyncio.create_task(self._call(channels[number % self.connections], number, seconds))
            calling.add(task)
            task.add_done_callback(calling.discard)
        await asyncio.gather(*calling)
        for channel in channels:
            await channel.close()

    async def _call(self, channel: grpc.aio.Channel, number: int, seconds: float) -> None:
        self.calls += 1
        predict: Any = channel.unary_unary("/MLflow/predict", None, protos.Output.FromString)
        try:
            answer = await predict(
                protos.Input(value=payload(f"{seconds}", str(number))).SerializeToString(), timeout=60
            )
            if str(number) not in answer.value:
                self.failures["another call's answer"] += 1
        except grpc.aio.AioRpcError as error:
            self.failures[f"{error.code().name}: {error.details()}"] += 1
