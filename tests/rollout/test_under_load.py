"""Swaps while calls arrive at an even rate: no call fails, no answer mixes versions, and memory is given back.

Versions are swapped within the process, or, since they bring different code along, by replacing it. `make rollouts`
does 50 swaps of both types and prints the times; the suite does 3, with a quarter of the calls.
"""

import itertools
import json
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from tests.rollout.load import Outcomes
from tests.support import depth
from tests.support.rollout_registry import LARGE, NAME, OWN, OWN_OTHER
from tests.support.servers import Process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
if depth.is_deep:
    pytestmark.append(pytest.mark.alone)  # It prints times.

SWAPS = int(os.environ.get("SWAPS", "3"))
RATE = 200 if depth.is_deep else 50
"""Calls per second."""

QUIET_CALLS = 2000 if depth.is_deep else 20
"""Number of calls before the first swap; a run that is not deep compares no times."""

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
    memory_mb: list[tuple[float, float]] = []
    published_s: list[float] = []
    served, ended = Counter[str](), Counter[str]()
    arguments = [server.address, rollout.name, str(RATE), str(QUIET_CALLS)]
    with Process([sys.executable, "-m", "tests.rollout.load", *arguments]) as load:
        load.wait_for(rf"^{QUIET_CALLS} answers$")
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
        last_ended_at = time.monotonic()
        load.signal(signal.SIGTERM)
        assert load.wait() == 0, load.output
    outcomes = Outcomes(**json.loads(load.stdout[-1]))
    assert outcomes.failures == {}
    assert set(outcomes.predictions) == {f"{version}: {rollout.predictions[version]}" for version in ("1", *served)}
    assert len(server.directories) == 1
    with capsys.disabled():
        durations_s = outcomes.durations_s
        quiet_ms = _p99_ms([duration_s for began, duration_s in durations_s if began < first_moved_at])
        swapping_ms = _p99_ms(
            [duration_s for began, duration_s in durations_s if first_moved_at <= began < last_ended_at]
        )
        print(
            f"\n{rollout.name}: {SWAPS} swaps, {len(durations_s)} calls, 0 failed; p99 {quiet_ms:.1f} ms before the "
            f"first swap and {swapping_ms:.1f} ms during swaps; from the move of the alias to the publication "
            f"{max(published_s):.2f} s at most; memory of the worker and its supervisor "
            f"{', '.join(f'{worker:.0f}+{supervisor:.0f}' for worker, supervisor in memory_mb)} MB"
        )
    for after_second, after_last in zip(memory_mb[1], memory_mb[-1], strict=True):
        assert after_last <= MAX_GROWTH * after_second
