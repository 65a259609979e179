"""A server process under more load than it can take, and for a long time."""

import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.machine import Stolen
from mlflow_grpc import protos
from tests.stress.conftest import ROWS
from tests.support.servers import Caller, ready_address, start_server

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]

OVERLOAD_S = 20

MAX_OFFERED_PER_S = 1700
"""Number of calls a second that gRPC's Python takes in one process on two cores, whether it answers or refuses them."""

MAX_HEALTH_S = 0.5
"""Maximum time of a health check under overload, in seconds."""

MAX_STOLEN, ATTEMPTS = 0.05, 4
"""A measurement is repeated, up to ATTEMPTS in total, if other machines took a larger share of the processors' time."""

GRPC_KEEPS_THREADS_S = 60.0
"""Time by which gRPC has ended its idle threads, in seconds. It starts threads on demand and ends them after 20 s."""


class Load:
    """Many concurrent calls from one event loop, over several connections."""

    def __init__(self, address: str, connections: int = 4) -> None:
        self._channels = [
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(connections)
        ]
        self._calls: list[Any] = [channel.unary_unary("/MLflow/predict") for channel in self._channels]
        self.outcomes: Counter[str] = Counter()
        self.took_s: dict[str, list[float]] = {}

    async def single_call(self, text: str, *, timeout_s: float = 30.0) -> tuple[str, str]:
        """Returns status, and answer or message; counts the call."""
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
        """Keeps a number of calls in flight; returns the answers per second."""
        end, before = time.monotonic() + seconds, self.outcomes["OK"]

        async def caller() -> None:
            while time.monotonic() < end:
                await self.single_call(text)

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return (self.outcomes["OK"] - before) / seconds

    async def offer(self, per_second: float, seconds: float, text: str, *, timeout_s: float) -> int:
        """Starts a number of calls per second, answered or not; returns how many were started."""
        began = time.monotonic()
        tasks: list[asyncio.Task[tuple[str, str]]] = []
        while (passed := time.monotonic() - began) < seconds:
            tasks += [
                asyncio.create_task(self.single_call(text, timeout_s=timeout_s))
                for _ in range(int(passed * per_second) - len(tasks))
            ]
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
        return len(tasks)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


class Use:
    """Resources that a process uses."""

    def __init__(self, pid: int) -> None:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        self.memory_mb = int(status["VmRSS"].split()[0]) / 1024
        self.threads = int(status["Threads"])
        self.files = len(list(Path(f"/proc/{pid}/fd").iterdir()))


def still_well(address: str, text: str) -> None:
    """Checks that a call is answered within a second, and that health is SERVING."""
    with Caller(address) as call:
        call(text, timeout=5)
        assert call.outcome(text, timeout=1)[0] == "OK"
        health: Any = call.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert health(b"", timeout=1) == b"\x08\x01"


def grpc_frame(text: str) -> bytes:
    """Returns the body of a request as HTTP/2 carries it."""
    message: bytes = protos.Input(value=text).SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


def outcomes_in(log: list[str]) -> Counter[str]:
    """Returns the number of calls by status in the server's log."""
    outcomes: Counter[str] = Counter()
    for line in map(json.loads, log):
        if line["message"] in ("call", "refused"):
            outcomes[line["status"]] += line.get("calls", 1)
    return outcomes


@dataclass(frozen=True)
class Overload:
    """A server under more calls than it can answer."""

    peak: float
    """Answers per second with twice as many calls in flight as the server has threads."""
    offered: float
    """Calls per second that were started."""
    outcomes: Counter[str]
    took_ms: list[float]
    """Duration of each call, refusals included."""
    health_s: list[float]
    """Duration of each health check."""
    memory_mb: tuple[float, float]
    """Memory of the server before and after."""
    stolen: float
    """Share of the processors' time that other machines took."""

    @property
    def goodput(self) -> float:
        """Answers per second."""
        return self.outcomes["OK"] / OVERLOAD_S

    @property
    def health_p95_s(self) -> float:
        """Duration that one health check in twenty exceeds."""
        return statistics.quantiles(self.health_s, n=20)[18]

    def __str__(self) -> str:
        return (
            f"peak {self.peak:.0f}/s, goodput {self.goodput:.0f}/s of {self.offered:.0f}/s offered, "
            f"{dict(self.outcomes)}; half of the calls ended within {statistics.median(self.took_ms):.0f} ms; health "
            f"median {statistics.median(self.health_s) * 1000:.0f} ms, p95 {self.health_p95_s * 1000:.0f} ms, longest "
            f"{max(self.health_s) * 1000:.0f} ms; memory {self.memory_mb[0]:.0f} -> {self.memory_mb[1]:.0f} MB; other "
            f"machines took {self.stolen:.0%} of the processors' time"
        )


def overload(model: Path, threads: int, times: float, text: str, directory: Path) -> Overload:
    """Offers a server `times` as many calls as it can answer, and checks that it is well and stops afterwards."""
    body, times_file = directory / "body", directory / "times"
    body.write_bytes(grpc_frame(text))
    times_file.unlink(missing_ok=True)
    with start_server("-m", str(model), "--threads", str(threads), "--log-format", "json") as server:
        address = ready_address(server)

        async def find_peak() -> float:
            load = Load(address)
            peak = await load.keep(2 * threads, 5, text)
            await load.close()
            return peak

        peak = asyncio.run(find_peak())
        offered = min(peak * times, MAX_OFFERED_PER_S)
        before, stolen, lines_before = Use(server.popen.pid), Stolen(), len(server.stderr)
        poller = subprocess.Popen(
            [sys.executable, "-m", "tests.stress.poll_health", address], stdout=subprocess.PIPE, text=True
        )
        command = ["h2load", "-c16", "-m500", f"-D{OVERLOAD_S}", f"--rps={offered / 16:.0f}", f"-d{body}"]
        command += ["-Hcontent-type: application/grpc", "-Hte: trailers", "-Hgrpc-timeout: 4500m"]
        subprocess.run(
            [*command, f"--log-file={times_file}", f"http://{address}/MLflow/predict"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        poller.terminate()
        health_s = json.loads(poller.communicate(timeout=30)[0])
        after, stolen_share = Use(server.popen.pid), stolen.share()
        still_well(address, text)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        return Overload(
            peak=peak,
            offered=offered,
            outcomes=outcomes_in(server.stderr[lines_before:]),
            took_ms=[int(line.split()[2]) / 1000 for line in times_file.read_text().splitlines()],
            health_s=health_s,
            memory_mb=(before.memory_mb, after.memory_mb),
            stolen=stolen_share,
        )


@pytest.mark.parametrize(
    ("model", "threads", "times", "min_goodput"),
    [("slow", 4, 10, 0.8), ("holding", 4, 10, 0.5), ("holding", 1, 10, 0.5), ("identity", 4, 1, 0.8)],
)
def test_more_than_the_capacity(request, tmp_path, model, threads, times, min_goodput):
    """The server answers as much as it can, refuses the rest at once, and answers health checks all the time.

    Refusals take CPU time from a model that holds the interpreter. A fast model is called as often as it can answer,
    because it is as fast as gRPC's Python.
    """
    text = json.dumps({"dataframe_records": [{"id": 1.0, "other": 0.0}]} if model == "identity" else {"inputs": [1.0]})
    for _ in range(ATTEMPTS):
        measured = overload(request.getfixturevalue(model), threads, times, text, tmp_path)
        print(f"{model}, {threads} at a time: {measured}")
        if measured.stolen <= MAX_STOLEN:
            break
    assert measured.goodput >= min_goodput * measured.peak
    assert measured.outcomes["DEADLINE_EXCEEDED"] <= 0.02 * len(measured.took_ms)
    assert statistics.median(measured.took_ms) < 100
    assert measured.health_p95_s < 0.2
    assert max(measured.health_s) < MAX_HEALTH_S
    assert measured.memory_mb[1] - measured.memory_mb[0] < 200


def test_ten_thousand_distinct_inputs_at_once(identity):
    """With random sizes, some calls cancelled, some refused, and some nearly expired, each answer belongs to its input."""
    dice = random.Random(2)

    def payload(ids: list[int]) -> str:
        return json.dumps({"dataframe_split": {"columns": ["id", "other"], "data": [[float(i), 0.0] for i in ids]}})

    with start_server("-m", str(identity), "--queue-calls", "20000", "--log-level", "warning") as server:
        address = ready_address(server)
        server.wait_for("ready")

        async def run() -> None:
            load = Load(address, connections=8)

            async def single_request(number: int) -> None:
                ids = [dice.randrange(ROWS) for _ in range(dice.choice((1, 1, 1, 2, 7, 40)))]
                if number % 97 == 0:
                    assert (await load.single_call(payload(ids).replace("0.0", '"x"', 1)))[0] == "INVALID_ARGUMENT"
                elif number % 31 == 0:
                    task = asyncio.create_task(load.single_call(payload(ids)))
                    await asyncio.sleep(dice.random() * 2)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                else:
                    outcome, answer = await load.single_call(payload(ids), timeout_s=0.05 if number % 29 == 0 else 120)
                    if outcome == "OK":
                        assert json.loads(answer) == {"predictions": [i * 3.0 for i in ids]}
                    else:
                        assert (outcome, number % 29) == ("DEADLINE_EXCEEDED", 0), (number, answer)

            await asyncio.gather(*(single_request(number) for number in range(10_000)))
            await load.close()
            print(dict(load.outcomes))
            assert load.outcomes["OK"] > 9_000
            assert set(load.outcomes) <= {"OK", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"}

        asyncio.run(run())
        still_well(address, payload([1]))


def test_a_hundred_thousand_calls_leak_nothing(identity):
    """With mixed sizes, valid, invalid and abandoned calls, memory, threads and files are the same after each half."""
    texts = [
        json.dumps({"dataframe_split": {"columns": ["id", "other"], "data": [[1.5, 0.0]] * rows}})
        for rows in (1, 1, 1, 10, 100, 1000)
    ] + ['{"dataframe_split": {}}', "nonsense"]
    # Few threads, so that all have been started at half-time.
    with start_server("-m", str(identity), "--threads", "4", "--log-level", "warning") as server:
        address = ready_address(server)

        async def run(calls: int) -> None:
            load, left = Load(address), iter(range(calls))

            async def caller() -> None:
                for number in left:
                    await load.single_call(texts[number % len(texts)], timeout_s=0.001 if number % 50 == 0 else 60)

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
