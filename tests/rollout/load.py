"""Calls at an even rate in a process of their own, so that the test's own work does not delay them.

    python -m tests.rollout.load ADDRESS MODEL CALLS_PER_SECOND QUIET_CALLS

Prints a line once QUIET_CALLS have been answered. SIGTERM ends it: it waits for the open calls and prints the outcomes
of all calls as one line of JSON.
"""

import asyncio
import itertools
import json
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from mlflow_grpc import protos
from tests.support.typed import SERVICE, TypedCaller

ROW = '{"dataframe_split": {"columns": ["a"], "data": [[1.0]]}}'
VERSION_KEY = "mlflow-model-version"
MESSAGE = protos.Input(value=ROW).SerializeToString()

CONNECTIONS = 4
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
"""Each channel has a connection of its own."""

TYPED_EVERY, STREAM_EVERY = 4, 50
"""One call in this number is a typed one, and one is a stream of requests."""


@dataclass
class Outcomes:
    """All that clients without a retry policy saw."""

    durations_s: list[tuple[float, float]] = field(default_factory=list)
    """Start of each answered call by `time.monotonic`, which all processes of a machine share, and its duration."""
    predictions: Counter[str] = field(default_factory=Counter)
    """Number of answers by "version: prediction", where the version is that of the trailer."""
    failures: Counter[str] = field(default_factory=Counter)


class Load:
    """Calls of clients without a retry policy."""

    def __init__(self, address: str, model: str, rate: float, quiet_calls: int) -> None:
        self._address, self._rate, self._quiet_calls = address, rate, quiet_calls
        with grpc.insecure_channel(address) as channel:
            caller, name = TypedCaller(channel), f"{model}_predict"
            self._typed_path = f"/{SERVICE}/{name}"
            self._typed_input = caller.input(name, {"a": 1.0}).SerializeToString()
            self._typed_output: Any = GetMessageClass(caller.method(name).output_type)
        self.outcomes = Outcomes()

    async def run(self) -> None:
        """Makes calls until SIGTERM, and waits for the answers."""
        is_over = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)
        channels = [grpc.aio.insecure_channel(self._address, options=OPTIONS) for _ in range(CONNECTIONS)]
        calling = set()
        began = time.monotonic()
        for number in itertools.count():
            if is_over.is_set():
                break
            await asyncio.sleep(began + number / self._rate - time.monotonic())
            call = (
                self._stream if number % STREAM_EVERY == 0 else self._typed if number % TYPED_EVERY == 0 else self._json
            )
            task = asyncio.create_task(self._call(call, channels[number % CONNECTIONS]))
            calling.add(task)
            task.add_done_callback(calling.discard)
        await asyncio.gather(*calling)
        for channel in channels:
            await channel.close()

    async def _call(self, call: Any, channel: grpc.aio.Channel) -> None:
        began = time.monotonic()
        try:
            rpc, predictions = await call(channel)
            self.outcomes.durations_s.append((began, time.monotonic() - began))
            version = dict(await rpc.trailing_metadata()).get(VERSION_KEY, "")
            self.outcomes.predictions.update(f"{version}: {prediction}" for prediction in set(predictions))
        except grpc.aio.AioRpcError as error:
            self.outcomes.failures[f"{error.code().name}: {error.details()}"] += 1
        if len(self.outcomes.durations_s) == self._quiet_calls:
            print(f"{self._quiet_calls} answers", flush=True)

    async def _json(self, channel: grpc.aio.Channel) -> tuple[Any, list[str]]:
        predict: Any = channel.unary_unary("/MLflow/predict", None, protos.Output.FromString)
        rpc = predict(MESSAGE, timeout=30)
        return rpc, [_prediction(await rpc)]

    async def _typed(self, channel: grpc.aio.Channel) -> tuple[Any, list[str]]:
        predict: Any = channel.unary_unary(self._typed_path, None, self._typed_output.FromString)
        rpc = predict(self._typed_input, timeout=30)
        return rpc, [str((await rpc).prediction)]

    async def _stream(self, channel: grpc.aio.Channel) -> tuple[Any, list[str]]:
        predict_many: Any = channel.stream_stream("/MLflowStream/predict_many", None, protos.Output.FromString)
        rpc = predict_many(iter([MESSAGE] * 3), timeout=30)
        return rpc, [_prediction(output) async for output in rpc]


def _prediction(output: Any) -> str:
    return str(output.value).removeprefix('{"predictions": [').removesuffix("]}")


if __name__ == "__main__":
    load = Load(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
    asyncio.run(load.run())
    print(json.dumps(vars(load.outcomes)), flush=True)
