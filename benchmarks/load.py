"""The load generator h2load, for gRPC (HTTP/2) and for MLflow's server (HTTP/1.1)."""

import re
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.machine import Stolen

MISSING = (
    "h2load is not installed. It comes with nghttp2: `apt-get install nghttp2-client` on Debian and Ubuntu, "
    "`brew install nghttp2` on macOS"
)
MAX_CONNECTIONS = 8
TOLERANCE = 0.05
"""Tolerance for the number of answer bytes, because h2load counts the first and last answers of a run in part."""

WARM_UP_S = 1
LIMIT_S = 60.0
"""Maximum time that the load generator takes beyond its duration."""

QUIET = 0.02
"""Maximum share of stolen CPU time for a figure that counts at the first attempt."""

_ANSWERS = re.compile(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_DATA = re.compile(r"traffic: .*\((\d+)\) data")


class LoadError(Exception):
    """A measurement is not valid."""


class Target(Protocol):
    """A running server that is called in one way."""

    @property
    def name(self) -> str:
        """The name in messages."""

    @property
    def http2(self) -> bool:
        """True for gRPC, false for HTTP/1.1."""

    @property
    def url(self) -> str:
        """The URL of the calls."""

    def body(self, text: str) -> bytes:
        """Converts a payload to the body of a request."""

    def answer_bytes(self, answer: str) -> int:
        """Returns the size in bytes that an answer of `ask` has on the wire."""

    def ask(self, text: str) -> str:
        """Returns the answer to one payload."""

    def processor_s(self) -> float:
        """Returns the CPU time of the server in seconds."""


@dataclass(frozen=True)
class Measured:
    """The figures of one run of the load generator."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU time of the server per call, in microseconds."""
    stolen: float
    """The share of busy CPU time that went to other machines."""


def check_installed() -> str:
    """Returns the version of h2load.

    Raises:
        LoadError: h2load is not installed.

    """
    if shutil.which("h2load") is None:
        raise LoadError(MISSING)
    return subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def run_quietly(server: Target, text: str, answer: str, *, tries: int, **how: Any) -> Measured:
    """Repeats a run until other machines take almost no CPU time, up to `tries` times, and returns the quietest run.

    Raises:
        LoadError: Calls failed.

    """
    runs: list[Measured] = []
    while len(runs) < tries and not (runs and runs[-1].stolen <= QUIET):
        runs.append(run(server, text, answer, **how))
    return min(runs, key=lambda measured: measured.stolen)


def run(
    server: Target,
    text: str,
    answer: str,
    *,
    in_flight: int,
    seconds: int,
    scratch: Path,
    rate: float | None = None,
) -> Measured:
    """Sends one payload repeatedly, with a fixed number of calls in flight or at a rate.

    Args:
        server: The server under load.
        text: The payload.
        answer: The expected answer. A run with other answers does not count.
        in_flight: The number of calls that are open at a time.
        seconds: The duration, after a second of warm-up.
        scratch: A directory for files.
        rate: Calls a second; None for no limit.

    Raises:
        LoadError: Calls failed.

    """
    body, log = scratch / "body.bin", scratch / "requests.tsv"
    body.write_bytes(server.body(text))
    connections = min(in_flight, MAX_CONNECTIONS) if server.http2 else in_flight
    command = ["h2load", "-c", str(connections)]
    command += ["-m", str(in_flight // connections), "-d", str(body), f"--log-file={log}"]
    if rate is not None:
        command.append(f"--rps={max(1, round(rate / connections))}")
    if server.http2:
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    else:
        command += ["--h1", "-H", "content-type: application/json"]
    command += [f"-D{seconds}", server.url]
    # The warm-up is a separate run, because h2load's own option counts the bytes of both together. The bytes are
    # needed to count answers, because a gRPC error is an HTTP success without data.
    subprocess.run([*command, f"-D{WARM_UP_S}"], capture_output=True, check=True, timeout=LIMIT_S)
    # Calls that h2load gave up at its end are still in the server. The answer to one more call comes after them.
    server.ask(text)
    log.unlink(missing_ok=True)  # h2load appends to the file.
    stolen, cpu_before_s = Stolen(), server.processor_s()
    limit_s = seconds + LIMIT_S
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit_s).stdout
    cpu_s = server.processor_s() - cpu_before_s
    share = stolen.share()
    succeeded, *lost = map(int, _groups(_ANSWERS, output))
    (data,) = map(int, _groups(_DATA, output))
    enough = succeeded * server.answer_bytes(answer) * (1 - TOLERANCE)
    if not succeeded and not sum(lost):
        raise LoadError(f"{server.name}: no call was answered within {seconds} s")
    if sum(lost) or not succeeded or (server.http2 and data < enough):
        raise LoadError(f"{server.name}: not every call was answered\n{output}")
    server.ask(text)
    cpu_us = cpu_s / succeeded * 1e6
    took_ms = sorted(int(line.split()[2]) / 1000 for line in log.read_text(encoding="ascii").splitlines())
    quantiles = statistics.quantiles(took_ms if len(took_ms) > 1 else took_ms * 2, n=100)
    return Measured(succeeded / seconds, quantiles[49], quantiles[98], cpu_us, share)


def _groups(pattern: re.Pattern[str], output: str) -> tuple[str, ...]:
    match = pattern.search(output)
    if match is None:
        raise LoadError(f"h2load's output is not as expected:\n{output}")
    return match.groups()
