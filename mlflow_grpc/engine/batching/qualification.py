"""Decision at load time whether a model is batched, and how its rows are predicted.

Rule of this module: a model is batched only if its flavor is known to predict each row by itself, or its owner says so,
and if a check on sample rows agrees. An answer should not depend on what else is in flight, to the bit.
"""

import json
import math
import time
from collections.abc import Sequence
from enum import Enum

from mlflow_grpc.choices import Batching
from mlflow_grpc.engine.row_runner import RowModel, RowRunner
from mlflow_grpc.hosting.pyfunc.row_exactness import BatchExactness
from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock

TOLERANCE = 1e-9
"""Maximum relative difference between a float predicted in a batch and alone: libraries add up more rows in another
order.
"""

MIN_SAMPLES, BUDGET_S = 4, 0.25
"""Number of sample rows for the check: at least MIN_SAMPLES, and as many as are predicted one by one in BUDGET_S
seconds, because the start of the server waits for it.
"""

QUICK_S = 0.003
"""Maximum duration of a full batch that the event loop runs itself, in seconds. Under load the event loop waits longer
for its turn at the interpreter while a thread runs the model.
"""


class Agreement(Enum):
    """How rows predicted together compare with the same rows predicted one by one; the value is a phrase for people."""

    TO_THE_BIT = "predicted together and one by one, the answers are the same"
    BUT_FOR_TIES = (
        "predicted together and one by one, the answers are the same: a row whose best scores are nearly tied is "
        "predicted alone"
    )
    INSIDE = (
        "predicted together and one by one, the answers are the same, but the numbers that decide them differ in their "
        "last digits: the rows of a batch are predicted one by one (with --batching on, together)"
    )
    CLOSE = (
        "predicted together and one by one, the answers differ in their last digits: the rows of a batch are "
        "predicted one by one (with --batching on, together)"
    )
    NONE = "predicted together and one by one, the answers differ"


def decide(mode: Batching, model: RowModel, runner: RowRunner, samples: Sequence[RowBlock]) -> tuple[bool, str]:
    """Decides whether a model is batched, and configures its runner.

    If predicting rows together changes answers in their last digits, or the numbers that decide them, rows of a batch
    are predicted one after the other. A batch still saves calls the switch to a thread and back.

    Args:
        mode: The owner's setting.
        model: The model.
        runner: Predicts its rows.
        samples: Single rows to check it with.

    Returns:
        The decision, and the reason for people.

    """
    if mode is not Batching.AUTO:
        return mode is Batching.ON, f"its owner says {mode.value}"
    if not model.rows_are_independent:
        return False, "its flavor is not known to predict each row by itself"
    if not samples:
        return False, "it has no input example to check it with"
    try:
        alone = _predict_alone(runner, samples)
        agreement = _check(runner, samples[: len(alone)], alone)
    except Exception as error:  # noqa: BLE001 - models raise anything
        return False, f"the check failed with {type(error).__name__}"
    runner.predicts_jointly = agreement in (Agreement.TO_THE_BIT, Agreement.BUT_FOR_TIES)
    return agreement is not Agreement.NONE, f"of {len(alone)} sample rows, {agreement.value}"


def fits_event_loop(model: RowModel, runner: RowRunner, samples: Sequence[RowBlock], max_rows: int) -> bool:
    """Returns True if a full batch is so quick that handing it to a thread would cost more than running it.

    Only a model that cannot wait for anything qualifies, because no call may block the event loop. Smaller batches
    are tried first, so that a slow model does not delay the start.
    """
    if not model.is_bounded or not samples:
        return False
    batch = [samples[index % len(samples)] for index in range(max_rows)]
    return all(_is_quick(batch[:size], runner) for size in (1, 8, max_rows))


def _is_quick(batch: Sequence[RowBlock], runner: RowRunner) -> bool:
    for _ in range(3):
        started_at = time.perf_counter()
        runner.predict(batch)
        if time.perf_counter() - started_at <= QUICK_S:
            return True
    return False


def _predict_alone(runner: RowRunner, samples: Sequence[RowBlock]) -> list[str]:
    """Answers for as many samples as the time allows, one by one."""
    answers: list[str] = []
    started_at = time.perf_counter()
    while len(answers) < len(samples) and (len(answers) < MIN_SAMPLES or time.perf_counter() - started_at < BUDGET_S):
        answers += runner.run([samples[len(answers)]])
    return answers


def _check(runner: RowRunner, samples: Sequence[RowBlock], alone: list[str]) -> Agreement:
    agreement = _compare(runner, samples, alone)
    if agreement is not Agreement.TO_THE_BIT:
        return agreement
    exactness = runner.check_exactness(samples)
    if exactness is BatchExactness.EXCEPT_TIES:
        runner.uses_scores = True
        if _compare(runner, samples, alone) is Agreement.TO_THE_BIT:
            return Agreement.BUT_FOR_TIES
        runner.uses_scores = False
    return Agreement.TO_THE_BIT if exactness is BatchExactness.EXACT else Agreement.INSIDE


def _compare(runner: RowRunner, samples: Sequence[RowBlock], alone: list[str]) -> Agreement:
    agreement = Agreement.TO_THE_BIT
    for size in (2, 5, len(samples)):
        groups = [samples[start : start + size] for start in range(0, len(samples), size)]
        together = [answer for group in groups for answer in runner.run(group)]
        if together != alone:
            agreement = Agreement.CLOSE
        if not _are_close(list(map(json.loads, together)), list(map(json.loads, alone))):
            return Agreement.NONE
    return agreement


def _are_close(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        both_nan = math.isnan(left) and math.isnan(right)
        return both_nan or left == right or math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=0.0)
    if type(left) is not type(right):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_are_close, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_are_close(value, right[key]) for key, value in left.items())
    return left == right
