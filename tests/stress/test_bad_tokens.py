"""A server process under floods of wrong tokens and of forged JWTs, beside callers with a valid one, on both ports."""

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.machine import Stolen
from mlflow_grpc import protos
from tests.stress.test_load import ATTEMPTS, MAX_OFFERED_PER_S, MAX_STOLEN, Load, Use, grpc_frame, outcomes_in
from tests.support.access import AUDIENCE, ISSUER, TOKENS, IdentityProvider, lines_of
from tests.support.servers import ROOT, Process, ready_address, start_server

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]

FLOOD_S, IN_FLIGHT = 15, 32

TEXT = json.dumps({"inputs": [1.0]})

Rate = Callable[[float], float]
"""Returns the answers per second that callers with a valid token get in a number of seconds."""

Flood = Callable[["Port", float], list[str]]
"""Returns the command of a flood of a port, with a number of calls per second."""


@dataclass(frozen=True)
class Port:
    """One of the two ports of a server, for callers with a valid token and for floods."""

    address: str
    """Host and port."""
    rate: Rate
    connections: int
    """Number of connections of a flood."""
    body: Path
    """File with the frame of a message, or with the body of a request over HTTP."""
    load: list[str]
    """Arguments of h2load for a flood, without its rate, its time and the token."""


class KnownCaller(Load):
    """Callers with a valid token."""

    def __init__(self, address: str, token: str) -> None:
        super().__init__(address)
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def single_call(self, text: str, *, timeout_s: float = 30.0) -> tuple[str, str]:
        """Makes a call; one that fails is an error of the test."""
        data = protos.Input(value=text).SerializeToString()
        call = random.choice(self._calls)
        answer = protos.Output.FromString(await call(data, timeout=timeout_s, metadata=self._metadata))
        self.outcomes["OK"] += 1
        return "OK", str(answer.value)


def over_grpc(server: Process, folder: Path, token: str) -> Port:
    """Returns the gRPC port, with floods over 16 connections."""
    address = ready_address(server)

    async def rate(seconds: float) -> float:
        load = KnownCaller(address, token)
        try:
            return await load.keep(IN_FLIGHT, seconds, TEXT)
        finally:
            await load.close()

    body = folder / "frame"
    body.write_bytes(grpc_frame(TEXT))
    flood = ["-c16", "-m500", f"-d{body}", "-Hcontent-type: application/grpc", "-Hte: trailers"]
    flood += ["-Hgrpc-timeout: 4500m", f"http://{address}/MLflow/predict"]
    return Port(address, lambda seconds: asyncio.run(rate(seconds)), 16, body, flood)


def over_http(server: Process, folder: Path, token: str) -> Port:
    """Returns the HTTP port, with floods over 128 connections, each with one call at a time."""
    address = server.wait_for(r"HTTP on http://([^/ ;]+)")[1]
    url = f"http://{address}/invocations"
    body = folder / "body"
    body.write_text(TEXT)
    shared = ["--h1", "-m1", f"-d{body}", "-Hcontent-type: application/json"]

    def rate(seconds: float) -> float:
        command = ["h2load", f"-c{IN_FLIGHT}", f"-D{seconds:g}", f"-Hauthorization: Bearer {token}", *shared, url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
        answered, *others = re.findall(r"(\d+) [2-5]xx", ran.stdout)
        assert set(others) == {"0"}
        return int(answered) / seconds

    return Port(address, rate, 128, body, ["-c128", *shared, url])


def with_wrong_token(port: Port, per_second: float) -> list[str]:
    """Returns the command of a flood of calls with one wrong token."""
    command = ["h2load", f"-D{FLOOD_S}", f"--rps={per_second / port.connections:.2f}"]
    return [*command, "-Hauthorization: Bearer not-a-token-of-this-server", *port.load]


def with_forged_jwts(start: str) -> Flood:
    """Returns the command of a flood of JWTs that begin alike, with a signature of their own for each call."""

    def command(port: Port, per_second: float) -> list[str]:
        is_http = port.body.name == "body"
        arguments = ["http" if is_http else "grpc", port.address, start, str(port.body)]
        arguments += ["--path", "/invocations"] if is_http else []
        arguments += ["--connections", str(port.connections), "--seconds", str(FLOOD_S)]
        return [sys.executable, "-m", "tests.support.forged_jwts", *arguments, "--per-second", f"{per_second:.0f}"]

    return command


def flooded(protocol, model, flags, token, flood, directory) -> tuple[float, float, int, float, float]:
    """Returns the rates before and during a flood, the number of refusals, MB of more memory, and the stolen share."""
    flags = ["-m", str(model), "--threads", "4", "--log-format", "json", *flags]
    with start_server(*flags, "--http-port", "0") as server:
        port = protocol(server, directory, token)
        port.rate(2)
        before = port.rate(5)
        used, stolen = Use(server.popen.pid), Stolen()
        command = flood(port, min(10 * before, MAX_OFFERED_PER_S))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as running:
            during = port.rate(FLOOD_S - 2)
            assert running.wait(60) == 0
        more_mb, share = Use(server.popen.pid).memory_mb - used.memory_mb, stolen.share()
        assert port.rate(1) > 0
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        outcomes = outcomes_in(server.stderr)
        return before, during, outcomes["UNAUTHENTICATED"] + outcomes["UNAVAILABLE"], more_mb, share


def measured(*arguments) -> tuple[float, float, int, float]:
    """Returns what `flooded` does, of a run in which other machines left the processors to this one, if there is one."""
    for _ in range(ATTEMPTS):
        before, during, refused, more_mb, stolen = flooded(*arguments)
        print(
            f"{before:.0f}/s before, {during:.0f}/s during a flood of {refused / FLOOD_S:.0f}/s; memory +{more_mb:.0f} "
            f"MB; other machines took {stolen:.0%} of the processors' time"
        )
        if stolen <= MAX_STOLEN:
            break
    return before, during, refused, more_mb


@pytest.mark.parametrize("protocol", [over_grpc, over_http])
def test_a_flood_of_wrong_tokens(protocol, slow, tmp_path):
    """Callers with a valid token keep 80 % of their rate, while ten times as many calls with a wrong one come in."""
    tokens = tmp_path / "tokens"
    tokens.write_text(lines_of(TOKENS))
    flags = ["--auth-tokens", str(tokens)]
    before, during, refused, more_mb = measured(protocol, slow, flags, TOKENS["web"], with_wrong_token, tmp_path)
    assert during >= 0.8 * before
    assert refused >= 5 * before * FLOOD_S
    assert more_mb < 200


@pytest.mark.parametrize("protocol", [over_grpc, over_http])
def test_a_flood_of_forged_jwts(protocol, slow, tmp_path):
    """Callers with a valid JWT keep 80 % of their rate, while ten times as many forged ones come in, of which no two are
    the same, so that no memory of refused ones helps.
    """
    with IdentityProvider() as provider:
        provider.add_key("first")
        flags = ["--auth-jwt-issuer", ISSUER, "--auth-jwt-audience", AUDIENCE, "--auth-jwt-jwks", provider.url]
        token = provider.sign(exp=int(time.time()) + 3600)
        start = token.rpartition(".")[0]
        before, during, refused, more_mb = measured(protocol, slow, flags, token, with_forged_jwts(start), tmp_path)
    assert during >= 0.8 * before
    assert refused >= 5 * before * FLOOD_S
    assert more_mb < 200
