"""Two real servers and the simulation of the same calls, side by side.

The simulation gets the service time of a lone call to a real server. The model sleeps, so that the servers do not
compete for the processors of one machine with the callers.
"""

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import mlflow
import simpy
from mlflow.pyfunc.model import PythonModel

from benchmarks.fleet_model import BALANCERS, Balancer, Server, balancer_for, dice_for
from mlflow_grpc import protos

SHORT_S, LONG_S, LONG_SHARE = 0.02, 0.2, 0.1
LOAD = 0.6
SECONDS = 60.0
LONE_CALLS = 50
START_LIMIT_S = 60.0


class Sleeps(PythonModel):
    """Sleeps for as many seconds as its input says."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Sleeps."""
        time.sleep(float(model_input[0]))
        return [0.0]


class RealServer:
    """A server process, as a balancer sees it."""

    def __init__(self, model: Path, stack: ExitStack) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "mlflow_grpc", "serve", "-m", str(model), "-p", str(port), "--threads", "1"]
        self._process = subprocess.Popen(
            [*command, "--log-level", "error"], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        stack.callback(self._process.wait)
        stack.callback(self._process.terminate)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.open_calls = 0

    async def answer(self, service_s: float) -> None:
        """Calls the model; raises the error of the call."""
        self.open_calls += 1
        try:
            message = protos.Input(value=json.dumps({"inputs": [service_s]})).SerializeToString()
            await self.channel.unary_unary("/MLflow/predict")(message, timeout=30, wait_for_ready=True)
        finally:
            self.open_calls -= 1

    async def wait_until_ready(self) -> None:
        """Waits for the first answer."""
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                return await self.answer(0.0)
            except grpc.aio.AioRpcError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)


def plan() -> list[tuple[float, float]]:
    """Returns when each call starts and how long the model takes, in seconds."""
    dice = dice_for(5)
    rate = LOAD * 2 / ((1 - LONG_SHARE) * SHORT_S + LONG_SHARE * LONG_S)
    calls, now = [], 0.0
    while (now := now + dice.expovariate(rate)) < SECONDS:
        calls.append((now, LONG_S if dice.random() < LONG_SHARE else SHORT_S))
    return calls


async def overhead_s(server: RealServer) -> float:
    """Returns how much longer a call takes than its model sleeps, in seconds."""
    took_s = []
    for _ in range(LONE_CALLS):
        sent_at = time.perf_counter()
        await server.answer(SHORT_S)
        took_s.append(time.perf_counter() - sent_at)
    return statistics.median(took_s) - SHORT_S


def simulated_s(calls: Sequence[tuple[float, float]], balancer: Balancer) -> list[float]:
    """Returns the durations of calls to two simulated servers, in seconds."""
    env = simpy.Environment()
    servers = [Server(env, timeout_s=30.0) for _ in range(2)]
    took_s: list[float] = []

    def call(start_s: float, service_s: float) -> Any:
        yield env.timeout(start_s)
        yield from balancer(servers).answer(service_s)
        took_s.append(env.now - start_s)

    for start_s, service_s in calls:
        env.process(call(start_s, service_s))
    env.run()
    return took_s


async def real_s(calls: Sequence[tuple[float, float]], balancer: Any, servers: Sequence[RealServer]) -> list[float]:
    """Returns the durations of the same calls to two real servers, in seconds."""
    began = time.perf_counter()

    async def call(start_s: float, service_s: float) -> float:
        await asyncio.sleep(max(0.0, began + start_s - time.perf_counter()))
        sent_at = time.perf_counter()
        await balancer(servers).answer(service_s)
        return time.perf_counter() - sent_at

    return await asyncio.gather(*(call(*planned) for planned in calls))


async def _compare() -> str:
    calls = plan()
    lines = ["| balancer | | p50 | p90 | p99 |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = Path(folder) / "model"
        mlflow.pyfunc.save_model(model, python_model=Sleeps(), pip_requirements=["mlflow"])
        servers = [RealServer(model, stack) for _ in range(2)]
        for server in servers:
            await server.wait_until_ready()
        extra_s = await overhead_s(servers[0])
        timed = [(start_s, service_s + extra_s) for start_s, service_s in calls]
        for name in BALANCERS:
            balancers = [balancer_for(name, dice_for(7)) for _ in range(2)]
            for label, took_s in (
                ("simulated", simulated_s(timed, balancers[0])),
                ("real", await real_s(calls, balancers[1], servers)),
            ):
                cuts = statistics.quantiles(took_s, n=100)
                quantiles = " | ".join(f"{cuts[index] * 1000:.0f} ms" for index in (49, 89, 98))
                lines.append(f"| {name} | {label} | {quantiles} |")
        for server in servers:
            await server.channel.close()
    return "\n".join(lines)


def compare() -> str:
    """Returns a table with the durations of the same calls to two simulated and two real servers."""
    return asyncio.run(_compare())
