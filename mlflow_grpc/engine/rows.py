"""Runs the rows of several calls in one call of the model, and finds out whether that is right for a model.

Rule of this module: a model is trusted to treat rows independently only if its flavor is known for it, or its
owner says so, and if a check on real rows agrees.
"""

import json
import math
import time
from bisect import bisect_right
from collections.abc import Sequence
from enum import Enum
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np
import pandas as pd

from mlflow_grpc.hosting.rounding import Exactness
from mlflow_grpc.payload.codec import PLAIN_INPUT, Codec
from mlflow_grpc.payload.plain import PlainDecoder, PlainRows, Table
from mlflow_grpc.settings import Batching

TOLERANCE = 1e-9
"""How far, relatively, a float of a batch may be from the one predicted alone: sums over more rows are taken
in another order by the libraries below."""

FEWEST_SAMPLES, BUDGET_S = 4, 0.25
"""How many samples a model is tried with: as many as it takes one by one in that time, in seconds, since a server that
starts is waited for.
"""

QUICK_S = 0.003
"""The longest that the largest batch may take, in seconds, for the event loop to run it itself; under load it waits
longer for its turn at the interpreter while a thread runs the model.
"""


class RowModel(Protocol):
    """A model that takes tables which need no further check."""

    @property
    def rows_are_independent(self) -> bool:
        """Whether the model's flavor is known to predict each row by itself."""
        ...

    @property
    def takes_arrays(self) -> bool:
        """Whether it gives the same for the bare array in a frame."""
        ...

    @property
    def is_bounded(self) -> bool:
        """Whether it is known that no row takes longer than others: no code of a stranger's, no processes."""
        ...

    def examine(self, table: Table) -> Exactness:
        """How the numbers that decide its answers compare for rows together and alone."""
        ...

    def predict_by_scores(self, table: Table) -> tuple[Any, list[int]]:
        """The predictions of a model that is exact but for ties, and the places of the rows that are tied."""
        ...

    def predict_table(self, table: Table) -> Any:
        """The predictions for a table that has the columns and types of the signature."""
        ...


class RowRunner:
    """Runs plain rows for one model."""

    def __init__(self, model: RowModel, decoder: PlainDecoder, codec: Codec) -> None:
        self._model = model
        self._table = decoder.array if model.takes_arrays else decoder.table
        self._codec = codec
        self.together = True
        """Whether the rows of several calls are predicted at once; else one call after the other."""
        self.by_scores = False
        """Whether that is done by scores, and calls with rows that are tied are predicted alone all the same."""

    def run(self, members: Sequence[PlainRows]) -> list[str]:
        """The answers for the rows of several calls, in their order; raises what `predict` raises."""
        return [self.encode(part) for part in self.predict(members)]

    def encode(self, predictions: Any) -> str:
        """The predictions for the rows of one call as an answer."""
        return self._codec.encode(predictions, PLAIN_INPUT)

    def predict(self, members: Sequence[PlainRows]) -> list[Any]:
        """The predictions for the rows of several calls, in their order.

        Raises:
            ValueError: The predictions do not stand for rows.
            Exception: Whatever the model raises.

        """
        if len(members) > 1 and not self.together:
            return [self.predict([member])[0] for member in members]
        table = self._table(members)
        if len(members) == 1:
            return [self._model.predict_table(table)]
        counts = [rows.count for rows in members]
        if not self.by_scores:
            return split(self._model.predict_table(table), counts)
        predictions, tied = self._model.predict_by_scores(table)
        parts = split(predictions, counts)
        ends = list(accumulate(counts))
        for member in {bisect_right(ends, place) for place in tied}:
            parts[member] = self.predict([members[member]])[0]
        return parts

    def examine(self, samples: Sequence[PlainRows]) -> Exactness:
        """How exact the model is for rows together, tried with these."""
        return self._model.examine(self._table(samples))


def is_quick(model: RowModel, runner: RowRunner, samples: list[PlainRows], most_rows: int) -> bool:
    """Whether the largest batch is so quick that handing it to a thread would cost more than running it.

    Only of a model that cannot wait for anything: no call may hold up the event loop. Smaller batches go first: where
    one row takes longer than that, the server that starts does not wait for the largest.
    """
    if not model.is_bounded or not samples:
        return False
    largest = [samples[place % len(samples)] for place in range(most_rows)]
    return all(_is_quick(largest[:size], runner) for size in (1, 8, most_rows))


def _is_quick(batch: list[PlainRows], runner: RowRunner) -> bool:
    for _ in range(3):
        began = time.perf_counter()
        runner.predict(batch)
        if time.perf_counter() - began <= QUICK_S:
            return True
    return False


def split(predictions: Any, counts: list[int]) -> list[Any]:
    """Cuts predictions for rows into parts of so many rows each.

    Raises:
        ValueError: They are nothing that has rows, or another number of them.

    """
    if isinstance(predictions, np.ndarray) and predictions.ndim:
        predictions = predictions.tolist()
    elif isinstance(predictions, pd.DataFrame | pd.Series):
        predictions = predictions.iloc
    elif not isinstance(predictions, list) or _is_list_of_outputs(predictions, sum(counts)):
        raise ValueError("the predictions are nothing that has a row for each row")
    bounds = list(accumulate(counts, initial=0))
    total = len(predictions.obj) if hasattr(predictions, "obj") else len(predictions)
    if total != bounds[-1]:
        raise ValueError("there are more or less predictions than rows")
    return [predictions[start:end] for start, end in pairwise(bounds)]


def decide(mode: Batching, model: RowModel, runner: RowRunner, samples: list[PlainRows]) -> tuple[bool, str]:
    """Whether to batch a model, and why; tells the runner how.

    An answer should not depend on what else is in flight, to the bit. Where a model's answers do, or the numbers that
    decide them, in the last digits, a batch still spares calls the way to a thread and back, but they are predicted one
    after the other.

    Args:
        mode: What the owner says.
        model: The model.
        runner: Runs rows for it.
        samples: Single rows to check it with.

    """
    if mode is not Batching.AUTO:
        return mode is Batching.ON, f"its owner says {mode.value}"
    if not model.rows_are_independent:
        return False, "its flavor is not known to predict each row by itself"
    if not samples:
        return False, "it has no input example to check it with"
    try:
        alone = _alone(runner, samples)
        agreement = _agreement(runner, samples[: len(alone)], alone)
    except Exception as error:  # noqa: BLE001 - a model of any kind
        return False, f"the check failed with {type(error).__name__}"
    runner.together = agreement in (Agreement.TO_THE_BIT, Agreement.BUT_FOR_TIES)
    return agreement is not Agreement.NONE, f"of {len(alone)} sample rows, {agreement.value}"


def _is_list_of_outputs(predictions: list[Any], rows: int) -> bool:
    """Whether a list has an item for each output, as of `predict_proba` with several targets, and not one a row."""
    return bool(predictions) and all(getattr(item, "shape", (None,))[:1] == (rows,) for item in predictions)


class Agreement(Enum):
    """How rows predicted together compare to the same rows predicted one by one; the value says it in words."""

    TO_THE_BIT = "predicted together and one by one, the answers are the same"
    BUT_FOR_TIES = (
        "predicted together and one by one, the answers are the same: a row whose best scores are as good as tied is "
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


def _alone(runner: RowRunner, samples: list[PlainRows]) -> list[str]:
    """The answers to as many samples as can be had in the time that there is for it."""
    alone: list[str] = []
    began = time.perf_counter()
    while len(alone) < len(samples) and (len(alone) < FEWEST_SAMPLES or time.perf_counter() - began < BUDGET_S):
        alone += runner.run([samples[len(alone)]])
    return alone


def _agreement(runner: RowRunner, samples: list[PlainRows], alone: list[str]) -> Agreement:
    agreement = _compared(runner, samples, alone)
    if agreement is not Agreement.TO_THE_BIT:
        return agreement
    exactness = runner.examine(samples)
    if exactness is Exactness.BUT_FOR_TIES:
        runner.by_scores = True
        if _compared(runner, samples, alone) is Agreement.TO_THE_BIT:
            return Agreement.BUT_FOR_TIES
        runner.by_scores = False
    return Agreement.TO_THE_BIT if exactness is Exactness.EXACT else Agreement.INSIDE


def _compared(runner: RowRunner, samples: list[PlainRows], alone: list[str]) -> Agreement:
    agreement = Agreement.TO_THE_BIT
    for size in (2, 5, len(samples)):
        groups = [samples[start : start + size] for start in range(0, len(samples), size)]
        together = [answer for group in groups for answer in runner.run(group)]
        if together != alone:
            agreement = Agreement.CLOSE
        if not _close(list(map(json.loads, together)), list(map(json.loads, alone))):
            return Agreement.NONE
    return agreement


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or one == other or math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=0.0)
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(value, other[key]) for key, value in one.items())
    return bool(one == other)
