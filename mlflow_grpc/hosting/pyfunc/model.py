"""A loaded MLflow model, which runs as in `mlflow models serve`.

Rule of this module: every call ends in one of the three outcomes of `HostedModel.predict`.
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
from mlflow_grpc.hosting.chunks import iterate_chunks
from mlflow_grpc.hosting.pyfunc import internals, mlflow_spans, row_exactness, sklearn_arrays, type_hints
from mlflow_grpc.hosting.pyfunc.info import info_of
from mlflow_grpc.hosting.pyfunc.label_scores import LabelScores
from mlflow_grpc.hosting.pyfunc.model_errors import translate_model_errors

ROW_WISE_LOADERS = frozenset({"mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"})
"""Loader modules of flavors whose models predict each row by itself and take an unconverted frame."""

_END = object()


class PyfuncModel:
    """An MLflow model of any flavor, loaded by `mlflow.pyfunc.load_model`."""

    def __init__(self, name: str, model: PyFuncModel, *, version: str = "", payload: str = "") -> None:
        """Collects the information about the model.

        Args:
            name: The model's name on this server.
            model: The model that MLflow loaded.
            version: Version in the registry.
            payload: The example payload that was logged with the model.

        """
        self.name = name
        self.version = version
        self.loaded = self._model = model
        self.metadata: Model = model.metadata
        self.loader_module: str | None = model.loader_module
        self._direct_on_array: Any = None
        self._scores: LabelScores | None = None
        has_params = self.metadata.get_params_schema() is not None
        self._direct = internals.predict_function(model) if self.rows_are_independent and not has_params else None
        flavors = [str(flavor) for flavor in self.metadata.flavors if flavor != internals.FLAVOR_NAME]
        self.description = ", ".join(flavors) or str(self.loader_module)
        self.item_hint = type_hints.item_hint(model)
        self.info = info_of(model, tuple(flavors), payload or self.example or "", self.item_hint)

    @property
    def rows_are_independent(self) -> bool:
        """True if models of this flavor predict each row by itself."""
        return self.loader_module in ROW_WISE_LOADERS

    @property
    def example(self) -> str | None:
        """The model's input example as a payload, if it is a table or an array."""
        example = self._model.input_example
        if isinstance(example, np.ndarray):
            return json.dumps({"inputs": example.tolist()}, default=_as_text)
        return _split(example) if isinstance(example, pd.DataFrame) else None

    @property
    def sample_example(self) -> str | None:
        """The input example for sample rows: without missing values in columns that have others."""
        example = self._model.input_example
        if not isinstance(example, pd.DataFrame) or not example.isna().any(axis=None):
            return self.example
        present = (example.iloc[:, index].dropna() for index in range(example.shape[1]))
        columns = [column if len(column) else example.iloc[:, index] for index, column in enumerate(present)]
        rows = [[column.iloc[row % len(column)] for column in columns] for row in range(len(example))]
        return _split(pd.DataFrame(rows, columns=example.columns))

    def try_arrays(self, table: pd.DataFrame | np.ndarray[Any, Any]) -> bool:
        """Uses arrays from now on if the model returns the same for a sample as an array; returns True if so.

        scikit-learn converts a frame to an array at every call, which takes longer than many estimators do. Arrays are
        tried only for estimators that consist of scikit-learn's own classes and do not select columns by name.
        """
        function = sklearn_arrays.predict_function(self._model)
        if (
            function is not None
            and self._direct is not None
            and isinstance(table, pd.DataFrame)
            and sklearn_arrays.agrees(function, self._direct, table)
        ):
            self._direct_on_array = function
        return self.takes_arrays

    def check_exactness(self, table: Any) -> row_exactness.BatchExactness:
        """Checks how exact the model is for batches; keeps the scores of a model that is exact except for ties.

        Args:
            table: Sample rows.

        """
        exactness, self._scores = row_exactness.check_exactness(self._model, table)
        return exactness

    def predict_by_scores(self, table: Any) -> tuple[Any, list[int]]:
        """Returns the predictions, and the indices of the rows whose prediction may depend on the other rows.

        Raises:
            ValueError: `check_exactness` did not find the model exact except for ties.

        """
        if self._scores is None:
            raise ValueError("this model is not predicted by its scores")
        return self._scores.predict(table)

    @property
    def is_bounded(self) -> bool:
        """True if the model takes arrays and runs only scikit-learn's own code, in one thread."""
        return self.takes_arrays and sklearn_arrays.is_bounded(self._model)

    @property
    def takes_arrays(self) -> bool:
        """True if `predict_table` takes arrays in place of frames."""
        return self._direct_on_array is not None

    def predict_table(self, table: Any) -> Any:
        """Runs the model on a table that MLflow's checks would pass on unchanged; raises the model's exceptions.

        For the flavors of ROW_WISE_LOADERS, it skips MLflow's checks, tracing context and search for params. They would
        change nothing and take longer than many models do. If the signature has params, MLflow passes their defaults.
        """
        if self._direct_on_array is not None:
            return self._direct_on_array(table)
        if self._direct is not None:
            return self._direct(table)
        with mlflow_spans.joined():
            return self._model.predict(table)

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """Runs `PyFuncModel.predict`: MLflow enforces the schema, then the model runs.

        Raises:
            InputRejected: MLflow's checks refused data or params.
            ModelFailed: The model raised any exception, including SystemExit, because a model must not be able to end
                the server.

        """
        with mlflow_spans.joined(), translate_model_errors():
            return self._model.predict(data, params=params)

    @property
    def streams(self) -> bool:
        """True if the model has its own `predict_stream`."""
        return internals.streams(self._model)

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Generator[Any]:
        """Runs `PyFuncModel.predict_stream`, which enforces the schema before the first chunk.

        Raises:
            InvalidPayload: There are several rows.
            InputRejected: MLflow's checks refused data or params.
            Unsupported: `predict_stream` itself raises NotImplementedError before the first chunk.
            ModelFailed: The model raised.

        """
        is_scalar = isinstance(data, np.ndarray) and not data.ndim
        if isinstance(data, pd.DataFrame | pd.Series | np.ndarray | list) and not is_scalar and len(data) != 1:
            raise InvalidPayload(f"predict_stream takes one row, and these are {len(data)}.")
        with (
            mlflow_spans.joined(),
            closing(
                iterate_chunks(lambda: self._model.predict_stream(data, params=params), translate_model_errors)
            ) as chunks,
        ):
            try:
                first = next(chunks, _END)
            except ModelFailed as error:
                if _is_raised_by_predict_stream(error.__cause__):
                    raise Unsupported(
                        "The model does not stream: its predict_stream is not implemented. Call predict."
                    ) from error.__cause__
                raise
            if first is not _END:
                yield first
                yield from chunks


def _is_raised_by_predict_stream(error: BaseException | None) -> bool:
    """Returns True if `predict_stream` itself raised NotImplementedError, instead of a function that it calls."""
    if not isinstance(error, NotImplementedError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_code.co_name == "predict_stream"


def _split(frame: pd.DataFrame) -> str:
    split = frame.to_dict(orient="split")
    return json.dumps({"dataframe_split": {"columns": split["columns"], "data": split["data"]}}, default=_as_text)


def _as_text(value: Any) -> str:
    """Returns a cell of an example that has no JSON form as the text that MLflow reads."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
