"""Plain functions around an MLflow model: `preprocess(df) -> df` and `postprocess(predictions) -> predictions`.

Rule of this module: a model without hooks does not come here. A hook runs in the thread of the model. `preprocess` gets
the frame that MLflow's parser makes of what was sent, or the array or list where the signature is not one of columns.
What it returns is checked against the signature as a payload is.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import Array, Object

from mlflow_grpc.errors import FieldViolation, InvalidPayload, ModelFailed
from mlflow_grpc.hosting import import_path
from mlflow_grpc.hosting.model import About, InputRefused
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.hosting.pyfunc.model import PyfuncModel
from mlflow_grpc.hosting.pyfunc.model_errors import failure_of
from mlflow_grpc.hosting.pyfunc.row_exactness import Exactness

Hook = Callable[[Any], Any]


class HookedModel:
    """An MLflow model with functions before and after it."""

    rows_are_independent = False
    """A hook may look at several rows at once, such as for their mean."""
    takes_arrays = False
    is_bounded = False

    def __init__(self, model: PyfuncModel, *, preprocess: str | None, postprocess: str | None) -> None:
        """Args:
        model: The model.
        preprocess: The path of the function before it, such as `package.module.function`.
        postprocess: The path of the function after it.

        Raises:
            StartError: There is no such module or function, or importing it raised.

        """
        self._model = model
        self._before = _hook("preprocess", preprocess)
        self._after = _hook("postprocess", postprocess)
        self.name: str = model.name
        self.version: str = model.version
        self.description: str = model.description
        self.about: About = model.about
        self.streams: bool = model.streams
        self._has_preprocess = preprocess is not None
        schema = model.metadata.get_input_schema()
        has_columns = schema is not None and not schema.is_tensor_spec()
        is_hinted = internals.is_signature_from_type_hint(model.metadata)
        self._columns: Schema | None = schema if has_columns and not is_hinted else None
        self._takes_nested = any(isinstance(spec.type, Array | Object) for spec in self._columns or ())

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """What the model predicts for what `preprocess` makes of the data, after `postprocess`.

        Raises:
            InvalidPayload: What `preprocess` made of the data does not fit the signature.
            InputRefused: Data or params do not fit.
            ModelFailed: The model or a hook raised, or a hook returned None.

        """
        given = self._before(self._table(data))
        try:
            predictions = self._model.predict(given, params)
        except InputRefused:
            self._check(given)
            raise
        return self._after(predictions)

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Iterator[Any]:
        """The parts of the answer, each after `postprocess`.

        Raises:
            InvalidPayload: There are several rows, or what `preprocess` made of the data does not fit the signature.
            InputRefused: Data or params do not fit.
            ModelFailed: The model or a hook raised, or a hook returned None.

        """
        given = self._before(self._table(data))
        try:
            with closing(self._model.predict_stream(given, params)) as parts:
                for part in parts:
                    yield self._after(part)
        except InputRefused:
            self._check(given)
            raise

    def predict_table(self, table: Any) -> Any:
        """As `predict`, without params."""
        return self.predict(table, None)

    def _table(self, data: Any) -> Any:
        """The frame that MLflow's checks make of `inputs` where the signature has columns; else the data itself.

        Source: `mlflow.models.utils._enforce_schema`.
        """
        if self._columns is None or not self._has_preprocess or isinstance(data, pd.DataFrame):
            return data
        try:
            if not isinstance(data, dict):
                return pd.DataFrame(data)
            if self._takes_nested or all(np.ndim(value) == 0 for value in data.values()):
                return pd.DataFrame([data])
            return pd.DataFrame({name: _listed(value) for name, value in data.items()})
        except ValueError as error:
            raise InputRefused from error

    def examine(self, table: Any) -> Exactness:
        """UNKNOWN: what a hook does to the numbers of a model is not known."""
        return Exactness.UNKNOWN

    def predict_by_scores(self, table: Any) -> tuple[Any, list[int]]:
        """Raises ValueError: it is not known to go by scores."""
        raise ValueError("a model with hooks is not known to go by scores")

    def _check(self, given: Any) -> None:
        """Raises the words for a refusal, if it is what `preprocess` returned that does not fit."""
        schema = self._model.metadata.get_input_schema()
        if not self._has_preprocess or schema is None or self._fits(given, schema):
            return
        faults: dict[str, str] = {}
        if isinstance(given, pd.DataFrame) and schema.has_input_names() and not internals.hides_schema_details():
            faults = {str(spec.name): words for spec in schema if (words := self._fault(given, spec))}
        listed = "; ".join(f"{name}: {words}" for name, words in faults.items())
        if not isinstance(given, pd.DataFrame) and self._columns is not None:
            listed = f"it is of type {type(given).__name__}, and the model takes a DataFrame"
        raise InvalidPayload(
            "What the hook preprocess made of the payload does not fit the model's signature"
            + (f": {listed}." if listed else "."),
            reason="INVALID_PARAMETER_VALUE",
            error_class="SCHEMA_ENFORCEMENT_FAILED",
            violations=tuple(FieldViolation(name, words) for name, words in faults.items()),
        )

    def _fault(self, frame: pd.DataFrame, spec: ColSpec) -> str | None:
        if spec.name not in frame.columns:
            return "missing after preprocess, and the model needs it" if spec.required else None
        if self._fits(frame[[spec.name]], Schema([spec])):
            return None
        kind = getattr(spec.type, "name", spec.type)
        return f"of type {frame[spec.name].dtype} after preprocess, and the model takes {kind}"

    def _fits(self, data: Any, schema: Schema) -> bool:
        try:
            internals.enforce_schema(data, schema, self._model.loader_module)
        except MlflowException:
            return False
        return True


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim > 1 else value


def _hook(name: str, path: str | None) -> Hook:
    """A function that calls the hook and says which one failed; what is given comes back if there is none."""
    if path is None:
        return lambda value: value
    function = import_path.find_function(path)

    def call(value: Any) -> Any:
        try:
            found = function(value)
        except BaseException as error:
            raise failure_of(error, f"The hook {name}") from error
        if found is None:
            raise ModelFailed(f"The hook {name} returned None. It has to return what it makes of its argument.")
        return found

    return call
