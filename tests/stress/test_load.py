"""The server in a process of its own, under more load than it can take, and for long."""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.machine import Stolen
from mlflow_grpc import protos
from tests.stress.conftest import ROWS
from tests.support.servers import Caller, ready_address, start_server

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]

OVERLOAD_S, OVERLOAD_TIMES = 30.0, 10

GRPC_KEEPS_THREADS_S = 60.0
"""By when gRPC, which starts threads by need and ends those that were idle for 20 s, has done so, in seconds."""


class Load:
    """Many calls at a time from one event loop, over several connections."""

    def __init__(self, address: str, connections: int = 4) -> None:
        self._channels = [
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(connections)
        ]
        self._calls: list[Any] = [channel.unary_unary("/MLflow/predict") for channel in self._channels]
        self.outcomes: Counter[str] = Counter()
        self.took_s: dict[str, list[float]] = {}

    async def one(self, text: str, *, timeout_s: float = 30.0) -> tuple[str, str]:
        """Status, and answer or message; counted."""
        began = time.perf_counter()
        try:
            data = await random.choice(self._calls)(protos.Input(value=text).SerializeToString(), timeout=timeout_s)
            outcome, answer = "OK", str(protos.Output.FromString(data).value)
        except grpc.aio.AioRpcError as error:
            outcome, answer = error.code().name, error.details() or ""
        self.outcomes[outcome] += 1
        self.took_s.setdefault(outcome, []).append(time.perf_counter() - began)
        return outcome, answer

    async def keep(self, in_flight: int, seconds: float, text: str) -> float:
        """Keeps so many calls in flight; gives the answers a second."""
        end, before = time.monotonic() + seconds, self.outcomes["OK"]

        async def caller() -> None:
            while time.monotonic() < end:
                await self.one(text)

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return (self.outcomes["OK"] - before) / seconds

    async def offer(self, per_second: float, seconds: float, text: str, *, timeout_s: float) -> int:
        """Begins so many calls a second, whether they are answered or not; gives how many those were."""
        began = time.monotonic()
        tasks: list[asyncio.Task[tuple[str, str]]] = []
        while (passed := time.monotonic() - began) < seconds:
            tasks += [
                asyncio.create_task(self.one(text, timeout_s=timeout_s))
                for _ in range(int(passed * per_second) - len(tasks))
            ]
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
        return len(tasks)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


class Use:
    """What a process has in use."""

    def __init__(self, pid: int) -> None:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        self.memory_mb = int(status["VmRSS"].split()[0]) / 1024
        self.threads = int(status["Threads"])
        self.files = len(list(Path(f"/proc/{pid}/fd").iterdir()))


def still_well(address: str, text: str) -> None:
    """A call is answered within a second, and health says SERVING."""
    with Caller(address) as call:
        call(text, timeout=5)
        assert call.outcome(text, timeout=1)[0] == "OK"
        health: Any = call.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert health(b"", timeout=1) == b"\x08\x01"


def test_ten_times_the_capacity(slow):
    """Most of what the server can do goes into answers; the rest is refused at once; health answers throughout."""
    text = json.dumps({"inputs": [1.0]})
    with start_server("-m", str(slow), "--threads", "2", "--log-level", "warning") as server:
        address = ready_address(server)

        async def run() -> tuple[float, Load, int]:
            load = Load(address)
            peak = await load.keep(8, 5, text)
            load.outcomes.clear()
            load.took_s.clear()
            offered = await load.offer(peak * OVERLOAD_TIMES, OVERLOAD_S, text, timeout_s=5)
            await load.close()
            return peak, load, offered

        before, stolen = Use(server.popen.pid), Stolen()
        poller = subprocess.Popen(
            [sys.executable, "-m", "tests.stress.poll_health", address], stdout=subprocess.PIPE, text=True
        )
        peak, load, offered = asyncio.run(run())
        poller.terminate()
        polled = json.loads(poller.communicate(timeout=30)[0])
        after = Use(server.popen.pid)
        goodput = load.outcomes["OK"] / OVERLOAD_S
        refused = load.took_s["RESOURCE_EXHAUSTED"]
        refused_p99 = statistics.quantiles(refused, n=100)[98]
        print(
            f"peak {peak:.0f}/s, goodput {goodput:.0f}/s of {offered / OVERLOAD_S:.0f}/s offered, {dict(load.outcomes)}; "
            f"refused in {statistics.median(refused) * 1000:.1f} ms, p99 "
            f"{refused_p99 * 1000:.1f} ms; health {max(polled) * 1000:.0f} ms at the most of {len(polled)}; memory "
            f"{before.memory_mb:.0f} -> {after.memory_mb:.0f} MB; other machines took {stolen.share():.0%} of the "
            "processors' time"
        )
        assert sum(load.outcomes.values()) == offered
        assert set(load.outcomes) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
        assert goodput >= 0.8 * peak
        assert refused_p99 < 0.05
        assert len(polled) > OVERLOAD_S * 5
        assert max(polled) < 0.2
        assert after.memory_mb - before.memory_mb < 200
        still_well(address, text)


def test_ten_thousand_distinct_inputs_at_once(identity):
    """Of random sizes, some cancelled, some refused, some with hardly any time: each answer belongs to its input."""
    dice = random.Random(2)

    def payload(ids: list[int]) -> str:
        return json.dumps({"dataframe_split": {"columns": ["id", "other"], "data": [[float(i), 0.0] for i in ids]}})

    with start_server("-m", str(identity), "--queue-calls", "20000", "--log-level", "warning") as server:
        address = ready_address(server)
        server.wait_for("ready")

        async def run() -> None:
            load = Load(address, connections=8)

            async def one(number: int) -> None:
                ids = [dice.randrange(ROWS) for _ in range(dice.choice((1, 1, 1, 2, 7, 40)))]
                if number % 97 == 0:
                    assert (await load.one(payload(ids).replace("0.0", '"x"', 1)))[0] == "INVALID_ARGUMENT"
                elif number % 31 == 0:
                    task = asyncio.create_task(load.one(payload(ids)))
                    await asyncio.sleep(dice.random() * 2)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                else:
                    outcome, answer = await load.one(payload(ids), timeout_s=0.05 if number % 29 == 0 else 120)
                    if outcome == "OK":
                        assert json.loads(answer) == {"predictions": [i * 3.0 for i in ids]}
                    else:
                        assert (outcome, number % 29) == ("DEADLINE_EXCEEDED", 0), (number, answer)

            await asyncio.gather(*(one(number) for number in range(10_000)))
            await load.close()
            print(dict(load.outcomes))
            assert load.outcomes["OK"] > 9_000
            assert set(load.outcomes) <= {"OK", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"}

        asyncio.run(run())
        still_well(address, payload([1]))


def test_a_hundred_thousand_calls_leave_nothing_behind(identity):
    """Mixed sizes, good, bad and given up: memory, threads and files are the same after the second half as before."""
    texts = [
        json.dumps({"dataframe_split": {"columns": ["id", "other"], "data": [[1.5, 0.0]] * rows}})
        for rows in (1, 1, 1, 10, 100, 1000)
    ] + ['{"dataframe_split": {}}', "nonsense"]
    # So few threads that all have been started by the half.
    with start_server("-m", str(identity), "--threads", "4", "--log-level", "warning") as server:
        address = ready_address(server)

        async def run(calls: int) -> None:
            load, left = Load(address), iter(range(calls))

            async def caller() -> None:
                for number in left:
                    await load.one(texts[number % len(texts)], timeout_s=0.001 if number % 50 == 0 else 60)

            await asyncio.gather(*(caller() for _ in range(32)))
            await load.close()

        asyncio.run(run(40_000))
        half = Use(server.popen.pid)
        asyncio.run(run(60_000))
        end = Use(server.popen.pid)
        deadline = time.monotonic() + GRPC_KEEPS_THREADS_S
        while end.threads > half.threads and time.monotonic() < deadline:
            time.sleep(0.5)
            end = Use(server.popen.pid)
        print(f"memory {half.memory_mb:.0f} -> {end.memory_mb:.0f} MB, threads {half.threads} -> {end.threads}")
        assert end.memory_mb - half.memory_mb < 20
        assert end.threads <= half.threads
        assert end.files <= half.files + 4
        still_well(address, texts[0])
