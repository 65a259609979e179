"""Trials of what a server does with calls that wait: deadlines, batches and overload."""

from concurrent.futures import ThreadPoolExecutor

from benchmarks.peers.faces import PeerError
from benchmarks.peers.features.calls import ANSWERED, Caller, Result, words
from benchmarks.peers.features.models import FACTOR, payload, wait_until
from benchmarks.peers.features.stand import Observation, Stand, Started
from benchmarks.peers.features.tried import Options

ABANDONED, DEADLINE_S = 20, 0.5
BLOCKING_S, NOTICE_S, MAX_BLOCKING = 4.0, 0.5, 40
"""How long a call blocks the model, when it must have started, and how many calls may run at a time."""
DRAIN_LIMIT_S = 90.0
SINGLE_CALLS, IN_FLIGHT, PREDICTION_S = 64, 32, 0.02
BURST, BURST_PREDICTION_S, BURST_LIMIT_S = 200, 0.1, 60.0


def abandoned_calls(stand: Stand) -> Observation:
    """Calls that wait behind others until their callers have gone: how many of them the model still computes."""
    if "expiry" not in stand.server.settings:
        return _abandoned(stand.plain, "")
    setting = stand.server.settings["expiry"]
    by_default = _abandoned(stand.plain, " by default")
    with stand.start(Options(expiry=True)) as started:
        limited = _abandoned(started, f" with {setting}")
    short = by_default.short if limited.short == by_default.short else f"{limited.short} after one limit for all"
    return Observation(short, f"{by_default.seen}; {limited.seen}")


def _abandoned(started: Started, setting: str) -> Observation:
    """Lets calls wait until their callers give up, and looks what the model computes afterwards."""
    with started.caller() as caller, ThreadPoolExecutor(MAX_BLOCKING) as pool:
        running = _block(started, caller, pool)
        values = [1000.0 + number for number in range(ABANDONED)]
        results = caller.many([payload(value) for value in values], ABANDONED, DEADLINE_S)
        ran_before = sum(started.log.has_started(value) for value in values)
    # The queue is in order: when a later call is answered, those before it have been computed, or never will be.
    last = started.call(limit_s=DRAIN_LIMIT_S)
    wait_until(lambda: len(started.log.predicted()) == len(started.log.predicted("end")), DRAIN_LIMIT_S)
    if last.word != ANSWERED:
        raise PeerError(f"after {ABANDONED} abandoned calls, a call got {last}")
    late = sum(started.log.has_started(value) for value in values) - ran_before
    seen = (
        f"{ABANDONED} calls waited while the model was busy (calls at a time: {running}), and their callers gave up "
        f"after {DEADLINE_S:g} s ({words(results)}): the model computed {late} of them afterwards{setting}"
    )
    return Observation("computed" if late else "not computed", seen)


def batches(stand: Stand) -> Observation:
    """Many calls of one row in flight: how many rows the model gets at a time."""
    options, setting = _options(stand, "batches", Options(batches=True))
    with stand.start(options) as started, started.caller() as caller:
        values = [2000.0 + number for number in range(SINGLE_CALLS)]
        texts = [payload(value, wait_s=PREDICTION_S) for value in values]
        results = caller.many(texts, IN_FLIGHT)
        sizes = [len(rows) for rows in started.log.predicted() if rows[0] >= values[0]]
    right = sum(result.values == [FACTOR * value] for result, value in zip(results, values, strict=True))
    largest = max(sizes)
    seen = (
        f"{SINGLE_CALLS} calls of one row, {IN_FLIGHT} in flight{setting}: {len(sizes)} predictions of up to {largest} "
        f"rows, {right} right answers"
    )
    return Observation("yes" if largest > 1 else "no", seen)


def overload(stand: Stand) -> Observation:
    """A burst of calls to a slow model: whether the server refuses those that would wait too long."""
    options, setting = _options(stand, "limit", Options(limit=True))
    with stand.start(options) as started, started.caller() as caller:
        texts = [payload(3000.0 + number, wait_s=BURST_PREDICTION_S) for number in range(BURST)]
        results = caller.many(texts, BURST, BURST_LIMIT_S)
    answered = [result for result in results if result.word == ANSWERED]
    refused = [result for result in results if result.word != ANSWERED]
    seen = f"{BURST} calls at once to a model that takes {BURST_PREDICTION_S:g} s{setting}: {words(results)}"
    if answered:
        seen += f"; the slowest answer took {max(result.seconds for result in answered):.1f} s"
    if refused:
        seen += f", the median refusal {sorted(result.seconds for result in refused)[len(refused) // 2]:.1f} s"
    return Observation(_refusal(refused), seen)


def _refusal(refused: list[Result]) -> str:
    codes = sorted({result.word for result in refused})
    return f"refused with {', '.join(codes)}" if codes else "all wait"


def _block(started: Started, caller: Caller, pool: ThreadPoolExecutor) -> int:
    """Sends calls until one has to wait, and returns how many run."""
    for number in range(MAX_BLOCKING):
        value = 500.0 + number
        pool.submit(caller.call, payload(value, wait_s=BLOCKING_S), DRAIN_LIMIT_S)
        if not wait_until(lambda value=value: started.log.has_started(value), NOTICE_S):  # type: ignore[misc]
            return number
    return MAX_BLOCKING


def _options(stand: Stand, feature: str, options: Options) -> tuple[Options, str]:
    """Returns the options if the server documents a setting for the feature, and a remark for the report."""
    if feature in stand.server.settings:
        return options, f" ({stand.server.settings[feature]})"
    return Options(), " (no setting documented)"
