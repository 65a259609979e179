"""Prediction of plain rows of several calls in one call of the model.

Rule of this module: it predicts and splits. Whether that is right for a model is decided in `batching.qualification`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np
import pandas as pd

from mlflow_grpc.hosting.pyfunc.row_exactness import BatchExactness
from mlflow_grpc.payload.codec import PLAIN_INPUT, Codec
from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder, RowBlock, Table


class RowModel(Protocol):
    """A model that takes tables without further checks: a PyfuncModel, or a HookedModel around it."""

    @property
    def rows_are_independent(self) -> bool:
        """True if the model's flavor is known to predict each row by itself."""
        ...

    @property
    def takes_arrays(self) -> bool:
        """True if the model predicts the same for a bare array as for a DataFrame."""
        ...

    @property
    def is_bounded(self) -> bool:
        """True if no row takes longer than others: no foreign code, no processes."""
        ...

    def check_exactness(self, table: Table) -> BatchExactness:
        """Compares the numbers that decide the answers, for rows together and alone."""
        ...

    def predict_by_scores(self, table: Table) -> tuple[object, list[int]]:
        """Predicts with a model that is exact except for ties; returns the indexes of the tied rows too."""
        ...

    def predict_table(self, table: Table) -> object:
        """Predicts a table that has the columns and types of the signature."""
        ...


class RowRunner:
    """Predicts plain rows with one model."""

    def __init__(self, model: RowModel, decoder: FastDecoder, codec: Codec) -> None:
        """Takes the model's own table format.

        Args:
            model: What predicts.
            decoder: Makes tables from decoded rows.
            codec: Encodes answers.

        """
        self._model = model
        self._table = decoder.array if model.takes_arrays else decoder.table
        self._codec = codec
        self.predicts_jointly = True
        """True if the rows of several calls are predicted at once; False for one call after the other."""
        self.uses_scores = False
        """True if predictions are made from scores, and calls with tied rows are predicted again alone."""

    def run(self, requests: Sequence[RowBlock]) -> list[str]:
        """Answers for the rows of several requests, in order; raises the errors of `predict`."""
        return [self.encode(predictions) for predictions in self.predict(requests)]

    def encode(self, predictions: object) -> str:
        """Writes the predictions for the rows of one request as an answer."""
        return self._codec.encode(predictions, PLAIN_INPUT)

    def predict(self, requests: Sequence[RowBlock]) -> list[Any]:
        """Predicts the rows of several requests; returns the predictions of each, in order.

        Raises:
            ValueError: The predictions cannot be assigned to rows.
            Exception: Whatever the model raises.

        """
        if len(requests) > 1 and not self.predicts_jointly:
            return [self.predict([rows])[0] for rows in requests]
        table = self._table(requests)
        counts = [rows.count for rows in requests]
        if not self.uses_scores:
            predictions = self._model.predict_table(table)
            return [predictions] if len(requests) == 1 else split(predictions, counts)
        predictions, tied_rows = self._model.predict_by_scores(table)
        parts = split(predictions, counts)
        ends = list(accumulate(counts))
        for index in {bisect_right(ends, row) for row in tied_rows}:
            parts[index] = self._model.predict_table(self._table([requests[index]]))
        return parts

    def check_exactness(self, samples: Sequence[RowBlock]) -> BatchExactness:
        """Compares the model's exactness for sample rows together and alone."""
        return self._model.check_exactness(self._table(samples))


def split(predictions: Any, counts: Sequence[int]) -> list[Any]:
    """Splits predictions by the number of rows of each request.

    Raises:
        ValueError: The predictions have no rows, or another number of rows.

    """
    if isinstance(predictions, pd.DataFrame | pd.Series):
        predictions = predictions.iloc
    elif isinstance(predictions, list):
        if _is_list_of_outputs(predictions, sum(counts)):
            raise ValueError("the predictions have no rows")
    elif not isinstance(predictions, np.ndarray) or not predictions.ndim:
        raise ValueError("the predictions have no rows")
    bounds = list(accumulate(counts, initial=0))
    total = len(predictions.obj) if hasattr(predictions, "obj") else len(predictions)
    if total != bounds[-1]:
        raise ValueError(f"{total} predictions for {bounds[-1]} rows")
    return [predictions[start:end] for start, end in pairwise(bounds)]


def _is_list_of_outputs(predictions: list[object], rows: int) -> bool:
    """Returns True for a list with an item for each output, such as `predict_proba` of several targets returns."""
    return bool(predictions) and all(getattr(item, "shape", (None,))[:1] == (rows,) for item in predictions)
