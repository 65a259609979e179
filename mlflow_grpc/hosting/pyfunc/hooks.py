"""Plain functions around an MLflow model: `preprocess(df) -> df` and `postprocess(predictions) -> predictions`.

Rule of this module: only models with hooks use it. A hook runs in the model's thread. `preprocess` gets the frame that
MLflow's parser makes of a payload, or an array or list if the signature has no columns. The value that it returns is
checked against the signature like a payload.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import Array, Object

from mlflow_grpc.errors import FieldViolation, InvalidPayload, ModelFailed
from mlflow_grpc.hosting import import_path
from mlflow_grpc.hosting.model import InputRejected, ModelInfo
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.hosting.pyfunc.model import PyfuncModel
from mlflow_grpc.hosting.pyfunc.model_errors import failure_of
from mlflow_grpc.hosting.pyfunc.row_exactness import BatchExactness

Hook = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """The result of `preprocess` for one payload."""

    data: Any
    left_over: tuple[str, ...]
    """Columns of the payload that are not in the signature, and that `preprocess` has left in its result."""


class HookedModel:
    """An MLflow model with a function before it, after it, or both."""

    rows_are_independent = False
    """Always False, because a hook may combine several rows, for example to compute their mean."""
    takes_arrays = False
    is_bounded = False

    def __init__(self, model: PyfuncModel, *, preprocess: str | None, postprocess: str | None) -> None:
        """Imports the hooks.

        Args:
            model: The model.
            preprocess: Path of the function before the model, such as `package.module.function`. None if there is none.
            postprocess: Path of the function after the model. None if there is none.

        Raises:
            StartError: A module or function does not exist, or its import raised an exception.

        """
        self._model = model
        self._before = _hook("preprocess", preprocess)
        self._after = _hook("postprocess", postprocess)
        self.name: str = model.name
        self.version: str = model.version
        self.description: str = model.description
        self.info: ModelInfo = model.info
        self.streams: bool = model.streams
        self._has_preprocess = preprocess is not None
        schema = model.metadata.get_input_schema()
        has_columns = schema is not None and not schema.is_tensor_spec()
        is_hinted = internals.is_signature_from_type_hint(model.metadata)
        self._columns: Schema | None = schema if has_columns and not is_hinted else None
        self._names = frozenset(schema.input_names()) if self._columns is not None and schema is not None else None
        self._takes_nested = any(isinstance(spec.type, Array | Object) for spec in self._columns or ())

    def preprocess(self, data: Any) -> Preprocessed:
        """Runs `preprocess` alone; the result is for `predict` and `predict_stream`.

        Raises:
            InputRejected: The data are not a table.
            ModelFailed: The hook raised an exception, or returned None.

        """
        table = self._table(data)
        before = frozenset(table.columns) if isinstance(table, pd.DataFrame) else frozenset()
        result, names = self._before(table), self._names
        if names is None or not isinstance(result, pd.DataFrame):
            return Preprocessed(result, ())
        return Preprocessed(result, tuple(str(name) for name in result.columns if name not in names and name in before))

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """Runs `preprocess` unless it has run, the model and `postprocess`.

        Raises:
            InvalidPayload: The result of `preprocess` does not fit the signature.
            InputRejected: Data or params do not fit.
            ModelFailed: The model or a hook raised an exception, or a hook returned None.

        """
        preprocessed = data.data if isinstance(data, Preprocessed) else self._before(self._table(data))
        try:
            predictions = self._model.predict(preprocessed, params)
        except InputRejected:
            self._check(preprocessed)
            raise
        return self._after(predictions)

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Iterator[Any]:
        """Yields the chunks of the answer, with `postprocess` applied to every chunk; see `predict`.

        Raises:
            InvalidPayload: There are several rows, or the result of `preprocess` does not fit the signature.
            InputRejected: Data or params do not fit.
            ModelFailed: The model or a hook raised an exception, or a hook returned None.

        """
        preprocessed = data.data if isinstance(data, Preprocessed) else self._before(self._table(data))
        try:
            with closing(self._model.predict_stream(preprocessed, params)) as chunks:
                for chunk in chunks:
                    yield self._after(chunk)
        except InputRejected:
            self._check(preprocessed)
            raise

    def predict_table(self, table: Any) -> Any:
        """Runs `predict` without params."""
        return self.predict(table, None)

    def _table(self, data: Any) -> Any:
        """Returns the frame that MLflow's checks make of `inputs` if the signature has columns; else the data itself.

        Source: `mlflow.models.utils._enforce_schema`.
        """
        if self._columns is None or not self._has_preprocess or isinstance(data, pd.DataFrame):
            return data
        try:
            if not isinstance(data, dict):
                return pd.DataFrame(data)
            if self._takes_nested or all(np.ndim(value) == 0 for value in data.values()):
                return pd.DataFrame([data])
            return pd.DataFrame({name: _as_list(value) for name, value in data.items()})
        except ValueError as error:
            raise InputRejected from error

    def check_exactness(self, table: Any) -> BatchExactness:
        """Returns UNKNOWN, because a hook may change the numbers in any way."""
        return BatchExactness.UNKNOWN

    def predict_by_scores(self, table: Any) -> tuple[Any, list[int]]:
        """Raises ValueError, because a model with hooks is not predicted by its scores."""
        raise ValueError("a model with hooks is not predicted by its scores")

    def _check(self, preprocessed: Any) -> None:
        """Raises InvalidPayload if the result of `preprocess` does not fit the signature."""
        schema = self._model.metadata.get_input_schema()
        if not self._has_preprocess or schema is None or self._fits(preprocessed, schema):
            return
        faults: dict[str, str] = {}
        if isinstance(preprocessed, pd.DataFrame) and schema.has_input_names() and not internals.hides_schema_details():
            faults = {str(spec.name): fault for spec in schema if (fault := self._fault(preprocessed, spec))}
        details = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        if not isinstance(preprocessed, pd.DataFrame) and self._columns is not None:
            details = f"it is of type {type(preprocessed).__name__}, and the model takes a DataFrame"
        raise InvalidPayload(
            "The result of the hook preprocess does not fit the model's signature"
            + (f": {details}." if details else "."),
            reason="INVALID_PARAMETER_VALUE",
            error_class="SCHEMA_ENFORCEMENT_FAILED",
            violations=tuple(FieldViolation(name, fault) for name, fault in faults.items()),
        )

    def _fault(self, frame: pd.DataFrame, spec: ColSpec) -> str | None:
        if spec.name not in frame.columns:
            return "missing after preprocess, and the model needs it" if spec.required else None
        if self._fits(frame[[spec.name]], Schema([spec])):
            return None
        column_type = getattr(spec.type, "name", spec.type)
        return f"of type {frame[spec.name].dtype} after preprocess, and the model takes {column_type}"

    def _fits(self, data: Any, schema: Schema) -> bool:
        try:
            internals.enforce_schema(data, schema, self._model.loader_module)
        except MlflowException:
            return False
        return True


def _as_list(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim > 1 else value


def _hook(name: str, path: str | None) -> Hook:
    """Returns a function that calls the hook and names it in errors; without a hook, it returns its argument."""
    if path is None:
        return lambda value: value
    function = import_path.find_function(path)

    def call(value: Any) -> Any:
        try:
            result = function(value)
        except BaseException as error:
            raise failure_of(error, f"The hook {name}") from error
        if result is None:
            raise ModelFailed(f"The hook {name} returned None. It has to return a value.")
        return result

    return call
