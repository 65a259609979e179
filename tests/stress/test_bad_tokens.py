"""A server process under a flood of calls with wrong tokens, beside callers with a valid one."""

import asyncio
import json
import random
import signal
import subprocess

import pytest

from benchmarks.machine import Stolen
from mlflow_grpc import protos
from tests.stress.test_load import ATTEMPTS, MAX_OFFERED_PER_S, MAX_STOLEN, Load, Use, grpc_frame, outcomes_in
from tests.support.access import TOKENS, lines_of
from tests.support.servers import ready_address, start_server

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]

FLOOD_S, IN_FLIGHT = 15, 32

TEXT = json.dumps({"inputs": [1.0]})


class KnownCaller(Load):
    """Callers with a valid token."""

    async def single_call(self, text: str, *, timeout_s: float = 30.0) -> tuple[str, str]:
        """Makes a call; one that fails is an error of the test."""
        data = protos.Input(value=text).SerializeToString()
        metadata = (("authorization", f"Bearer {TOKENS['web']}"),)
        answer = protos.Output.FromString(await random.choice(self._calls)(data, timeout=timeout_s, metadata=metadata))
        self.outcomes["OK"] += 1
        return "OK", str(answer.value)


async def rate(address: str, seconds: float) -> float:
    """Returns the answers per second that callers with a valid token get."""
    load = KnownCaller(address)
    try:
        return await load.keep(IN_FLIGHT, seconds, TEXT)
    finally:
        await load.close()


def flooded(model, tokens, directory) -> tuple[float, float, int, float, float]:
    """Returns the rates before and during a flood, the number of refusals, MB of more memory, and the stolen share."""
    body = directory / "body"
    body.write_bytes(grpc_frame(TEXT))
    flags = ["-m", str(model), "--threads", "4", "--log-format", "json", "--auth-tokens", str(tokens)]
    with start_server(*flags) as server:
        address = ready_address(server)
        asyncio.run(rate(address, 2))
        before = asyncio.run(rate(address, 5))
        used, stolen = Use(server.popen.pid), Stolen()
        command = ["h2load", "-c16", "-m500", f"-D{FLOOD_S}", f"--rps={min(10 * before, MAX_OFFERED_PER_S) / 16:.0f}"]
        command += [f"-d{body}", "-Hcontent-type: application/grpc", "-Hte: trailers", "-Hgrpc-timeout: 4500m"]
        command += ["-Hauthorization: Bearer not-a-token-of-this-server", f"http://{address}/MLflow/predict"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as flood:
            during = asyncio.run(rate(address, FLOOD_S - 2))
            assert flood.wait(60) == 0
        more_mb, share = Use(server.popen.pid).memory_mb - used.memory_mb, stolen.share()
        assert asyncio.run(rate(address, 1)) > 0
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        return before, during, outcomes_in(server.stderr)["UNAUTHENTICATED"], more_mb, share


def test_a_flood_of_wrong_tokens(slow, tmp_path):
    """Callers with a valid token keep 80 % of their rate, while ten times as many calls with a wrong one come in."""
    tokens = tmp_path / "tokens"
    tokens.write_text(lines_of(TOKENS))
    for _ in range(ATTEMPTS):
        before, during, refused, more_mb, stolen = flooded(slow, tokens, tmp_path)
        print(
            f"{before:.0f}/s before, {during:.0f}/s during a flood of {refused / FLOOD_S:.0f}/s; memory +{more_mb:.0f} "
            f"MB; other machines took {stolen:.0%} of the processors' time"
        )
        if stolen <= MAX_STOLEN:
            break
    assert during >= 0.8 * before
    assert refused >= 5 * before * FLOOD_S
    assert more_mb < 200
