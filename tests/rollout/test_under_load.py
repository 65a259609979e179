"""Swaps while calls arrive at an even rate: no call fails, no answer mixes versions, and memory is given back.

Versions are swapped within the process, or, since they bring different code along, by replacing it. `make rollouts`
does 50 swaps of both types and prints the times; the suite does 3, with a quarter of the calls.
"""

import asyncio
import itertools
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from mlflow_grpc import protos
from tests.rollout.conftest import ROW, VERSION_KEY
from tests.support import depth
from tests.support.depth import examples
from tests.support.rollout_registry import LARGE, NAME, OWN, OWN_OTHER
from tests.support.typed import TypedCaller

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1500)]

SWAPS = int(os.environ.get("SWAPS", "3"))
RATE = 200.0 if depth.is_deep else 50.0
"""Calls per second."""

CONNECTIONS = 4
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
"""Each channel has a connection of its own."""

TYPED_EVERY, STREAM_EVERY = 4, 50
"""One call in this number is a typed one, and one is a stream of requests."""

QUIET_CALLS = examples(1000)
"""Number of calls before the first swap."""

MAX_GROWTH = 1.1
"""Maximum ratio of the memory after the last swap to that after the second one."""


@dataclass(frozen=True)
class Rollout:
    """A model whose alias moves through some versions, again and again."""

    name: str
    versions: tuple[str, ...]
    predictions: dict[str, str]
    """Prediction of each version, by which an answer shows its version."""
    replaces_process: bool


WITHIN = Rollout(NAME, LARGE, {version: version for version in ("1", *LARGE)}, replaces_process=False)
BY_PROCESS = Rollout(OWN, (OWN_OTHER, "1"), {"1": "1", OWN_OTHER: "3000"}, replaces_process=True)


@dataclass
class Load:
    """Calls of clients without a retry policy, and their outcomes."""

    address: str
    rollout: Rollout
    typed_input: bytes
    typed_output: Any
    durations_s: list[tuple[float, float]] = field(default_factory=list)
    """Start of each call by `time.monotonic`, and its duration."""
    versions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    answered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released once for each answer."""
    is_over: bool = False

    def run(self) -> None:
        """Makes calls until `is_over`, and waits for the answers."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        channels = [grpc.aio.insecure_channel(self.address, options=OPTIONS) for _ in range(CONNECTIONS)]
        calling = set()
        began = time.monotonic()
        for number in itertools.count():
            if self.is_over:
                break
            await asyncio.sleep(began + number / RATE - time.monotonic())
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
            rpc, numbers = await call(channel)
            self.durations_s.append((began, time.monotonic() - began))
            self.answered.release()
            version = dict(await rpc.trailing_metadata()).get(VERSION_KEY, "")
            self.versions[version] += 1
            if {str(number) for number in numbers} != {self.rollout.predictions.get(version)}:
                self.failures[f"version {version} answered {numbers}"] += 1
        except grpc.aio.AioRpcError as error:
            self.failures[f"{error.code().name}: {error.details()}"] += 1

    async def _json(self, channel: grpc.aio.Channel) -> tuple[Any, list[Any]]:
        predict: Any = channel.unary_unary("/MLflow/predict", None, protos.Output.FromString)
        rpc = predict(MESSAGE, timeout=30)
        return rpc, [_number(await rpc)]

    async def _typed(self, channel: grpc.aio.Channel) -> tuple[Any, list[Any]]:
        path = f"/model_grpc_service.ModelgRPCService/{self.rollout.name}_predict"
        predict: Any = channel.unary_unary(path, None, self.typed_output.FromString)
        rpc = predict(self.typed_input, timeout=30)
        return rpc, [(await rpc).prediction]

    async def _stream(self, channel: grpc.aio.Channel) -> tuple[Any, list[Any]]:
        predict_many: Any = channel.stream_stream("/MLflowStream/predict_many", None, protos.Output.FromString)
        rpc = predict_many(iter([MESSAGE] * 3), timeout=30)
        return rpc, [_number(output) async for output in rpc]


MESSAGE = protos.Input(value=ROW).SerializeToString()


def _number(output: Any) -> str:
    return str(output.value).removeprefix('{"predictions": [').removesuffix("]}")


def _p99_ms(durations_s: list[float]) -> float:
    return 1000 * sorted(durations_s)[int(len(durations_s) * 0.99)]


@pytest.mark.parametrize(
    "rollout",
    [
        pytest.param(WITHIN, id="within the process"),
        pytest.param(BY_PROCESS, id="by another process", marks=pytest.mark.deep),
    ],
)
def test_swaps_under_load(track, registry, capsys, rollout):
    """No call fails, each answer is of the version in its trailer, memory is given back and directories are deleted."""
    server = track("--keep-previous", "0", "--queue-calls", "4096", uri=f"models:/{rollout.name}@champion")
    typed = TypedCaller(server.call.channel)
    load = Load(
        server.address,
        rollout,
        typed.input(f"{rollout.name}_predict", {"a": 1.0}).SerializeToString(),
        GetMessageClass(typed.method(f"{rollout.name}_predict").output_type),
    )
    calling = threading.Thread(target=load.run)
    calling.start()
    memory_mb: list[tuple[float, float]] = []
    published_s: list[float] = []
    served, ended = Counter[str](), Counter[str]()
    try:
        for _ in range(QUIET_CALLS):
            load.answered.acquire(timeout=30)
        first_moved_at = time.monotonic()
        moves = itertools.islice(itertools.cycle(rollout.versions), SWAPS)
        for previous, version in itertools.pairwise(["1", *moves]):
            registry.move(version, name=rollout.name)
            moved_at = time.monotonic()
            served[version] += 1
            ended[previous] += 1
            server.wait_for_version(version, times=served[version])
            published_s.append(time.monotonic() - moved_at)
            if rollout.replaces_process:
                server.wait_until_replaced(times=ended.total())
            else:
                server.wait_until_unloaded(previous, times=ended[previous])
            memory_mb.append((server.rss_mb(), server.supervisor_mb()))
    finally:
        load.is_over = True
        calling.join()
    assert load.failures == {}
    assert set(load.versions) == {"1", *served}
    assert len(server.directories) == 1
    with capsys.disabled():
        quiet_ms = _p99_ms([duration_s for began, duration_s in load.durations_s if began < first_moved_at])
        swapping_ms = _p99_ms([duration_s for began, duration_s in load.durations_s if began >= first_moved_at])
        print(
            f"\n{rollout.name}: {SWAPS} swaps, {load.versions.total()} calls, 0 failed; p99 {quiet_ms:.1f} ms before the "
            f"first swap and {swapping_ms:.1f} ms afterwards; from the move of the alias to the publication "
            f"{max(published_s):.2f} s at most; memory of the worker and its supervisor "
            f"{', '.join(f'{worker:.0f}+{supervisor:.0f}' for worker, supervisor in memory_mb)} MB"
        )
    for after_second, after_last in zip(memory_mb[1], memory_mb[-1], strict=True):
        assert after_last <= MAX_GROWTH * after_second
