"""Loads an MLflow model and runs it as `mlflow models serve` does.

Rule of this module: every way in which a model cannot be loaded becomes a StartError of one line, and
every way in which a call to it ends becomes one of the three outcomes of `HostedModel.predict`.
"""

import base64
import json
import traceback
from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel

from mlflow_grpc.errors import InvalidPayload, ModelFailed, Unsupported
from mlflow_grpc.hosting.chunks import each_part
from mlflow_grpc.hosting.pyfunc import internals, row_exactness, sklearn_arrays, type_hints
from mlflow_grpc.hosting.pyfunc.info import about_of
from mlflow_grpc.hosting.pyfunc.model_errors import translate_model_errors

ROW_WISE_LOADERS = frozenset({"mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"})
"""The loader modules of flavors whose models predict each row by itself and take a frame as it is."""

_END = object()


class PyfuncModel:
    """An MLflow model of any flavor, loaded by `mlflow.pyfunc.load_model`."""

    def __init__(self, name: str, model: PyFuncModel, *, version: str = "", payload: str = "") -> None:
        """Args:
        name: What to call it.
        model: What MLflow loaded.
        version: Its version in the registry.
        payload: The example payload that was logged with it.
        """
        self.name = name
        self.version = version
        self.loaded = self._model = model
        self.metadata: Model = model.metadata
        self.loader_module: str | None = model.loader_module
        self._direct_on_array: Any = None
        self._scores: row_exactness.Scores | None = None
        self._direct = internals.predict_function(model)
        flavors = [str(flavor) for flavor in self.metadata.flavors if flavor != internals.FLAVOR_NAME]
        self.description = ", ".join(flavors) or str(self.loader_module)
        self.item_hint = type_hints.item_hint(model)
        self.about = about_of(model, tuple(flavors), payload or self.example or "", self.item_hint)

    @property
    def rows_are_independent(self) -> bool:
        """Whether the flavor is one whose models predict each row by itself."""
        return self.loader_module in ROW_WISE_LOADERS

    @property
    def example(self) -> str | None:
        """The model's input example as a payload, if it is a table or an array."""
        example = self._model.input_example
        if isinstance(example, np.ndarray):
            return json.dumps({"inputs": example.tolist()}, default=_as_text)
        if not isinstance(example, pd.DataFrame):
            return None
        split = example.to_dict(orient="split")
        return json.dumps({"dataframe_split": {"columns": split["columns"], "data": split["data"]}}, default=_as_text)

    def try_arrays(self, table: pd.DataFrame | np.ndarray[Any, Any]) -> bool:
        """Finds out on a sample whether the model gives the same for the bare array in a frame, and if so uses it.

        scikit-learn takes a frame apart at every call, which costs more than many an estimator. It is tried only
        for estimators that are scikit-learn's own through and through and do not choose columns by name.
        """
        function = sklearn_arrays.predict_function(self._model)
        if (
            function is not None
            and isinstance(table, pd.DataFrame)
            and sklearn_arrays.agrees(function, self._direct, table)
        ):
            self._direct_on_array = function
        return self.takes_arrays

    def examine(self, table: Any) -> row_exactness.Exactness:
        """Finds out how exact the model is for rows together; from then on one that is but for ties has scores.

        Args:
            table: Sample rows.

        """
        exactness, self._scores = row_exactness.examine(self._model, table)
        return exactness

    def predict_by_scores(self, table: Any) -> tuple[Any, list[int]]:
        """The predictions, and the places of the rows for which they may depend on the other rows.

        Raises:
            ValueError: It was not found to be exact but for ties.

        """
        if self._scores is None:
            raise ValueError("this model is not known to go by scores")
        return self._scores.predict(table)

    @property
    def is_bounded(self) -> bool:
        """Whether it is scikit-learn's own code alone, given arrays, in one thread."""
        return self.takes_arrays and sklearn_arrays.is_bounded(self._model)

    @property
    def takes_arrays(self) -> bool:
        """Whether `predict_table` is to be given arrays in place of frames."""
        return self._direct_on_array is not None

    def predict_table(self, table: Any) -> Any:
        """Runs the model on a table that MLflow's checks would hand on as it is.

        For the flavors of ROW_WISE_LOADERS the checks, the tracing context and the look for params, which have
        nothing to find, are passed by: they cost more than many a model. Raises whatever the model raises.
        """
        if self._direct_on_array is not None:
            return self._direct_on_array(table)
        if self.rows_are_independent:
            return self._direct(table)
        return self._model.predict(table)

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """Runs `PyFuncModel.predict`: MLflow enforces the schema, then the model runs.

        Raises:
            InputRefused: MLflow's checks refused data or params.
            ModelFailed: The model raised, whatever it raised; SystemExit and its like included, since a
                model must not be able to end the server.

        """
        with translate_model_errors():
            return self._model.predict(data, params=params)

    @property
    def streams(self) -> bool:
        """Whether it has a `predict_stream` of its own."""
        return internals.streams(self._model)

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Generator[Any]:
        """Runs `PyFuncModel.predict_stream`, which enforces the schema before the first part.

        Raises:
            InvalidPayload: There are several rows.
            InputRefused: MLflow's checks refused data or params.
            Unsupported: Its `predict_stream` itself raises NotImplementedError before the first part.
            ModelFailed: The model raised.

        """
        if isinstance(data, pd.DataFrame | pd.Series | np.ndarray | list) and len(data) != 1:
            raise InvalidPayload(f"predict_stream takes one row, and these are {len(data)}.")
        with closing(
            each_part(lambda: self._model.predict_stream(data, params=params), translate_model_errors)
        ) as parts:
            try:
                first = next(parts, _END)
            except ModelFailed as error:
                if _is_of_predict_stream(error.__cause__):
                    raise Unsupported(
                        "The model does not stream: its predict_stream is not implemented. Call predict."
                    ) from error.__cause__
                raise
            if first is not _END:
                yield first
                yield from parts


def _is_of_predict_stream(error: BaseException | None) -> bool:
    """Whether `predict_stream` itself says that it is not implemented; what it calls may mean something else."""
    if not isinstance(error, NotImplementedError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_code.co_name == "predict_stream"


def _as_text(value: Any) -> str:
    """A cell of an example that JSON has no word for, as MLflow reads it."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
