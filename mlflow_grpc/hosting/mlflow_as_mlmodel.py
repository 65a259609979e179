"""An MLflow model as an `ml_base.MLModel`: for decorators, and for services that are written for that interface.

Rule of this module: the schemas are made from the model's signature, and `predict` is what MLflow's `predict` is for a
frame of one row. It needs the package ml-base.
"""

import json
import re
from typing import Annotated, Any

import mlflow
import numpy as np
import pandas as pd
from ml_base import MLModel
from ml_base.ml_model import MLModelSchemaValidationException
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, NaiveDatetime, RootModel, create_model

from mlflow_grpc.contract import mlflow_schema, types
from mlflow_grpc.contract.types import Kind
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting import mlflow_internals as internals

_SCALARS: dict[Kind, Any] = {
    Kind.BOOLEAN: bool,
    Kind.INTEGER: Annotated[int, Field(ge=-(2**31), lt=2**31)],
    Kind.LONG: Annotated[int, Field(ge=-(2**63), lt=2**63)],
    Kind.FLOAT: float,
    Kind.DOUBLE: float,
    Kind.STRING: str,
    Kind.BINARY: Base64Bytes,
    Kind.DATETIME: NaiveDatetime,  # MLflow refuses those with a zone.
}


class MlflowModel(MLModel):  # type: ignore[misc]  # ml_base has no types.
    """An MLflow model whose signature names its columns."""

    def __init__(
        self,
        model_uri: str = "",
        *,
        loaded: PyFuncModel | None = None,
        qualified_name: str = "mlflow_model",
        version: str = "",
        model_config: dict[str, Any] | None = None,
    ) -> None:
        """Args:
        model_uri: Any URI that `mlflow.pyfunc.load_model` takes.
        loaded: The model, if it is loaded already.
        qualified_name: What it is called.
        version: Its version.
        model_config: MLflow's `model_config`.

        Raises:
            StartError: It has no signature of named columns.

        """
        self._model = loaded or mlflow.pyfunc.load_model(model_uri, model_config=model_config)
        self._qualified_name = qualified_name
        self._version = version or str(self._model.metadata.run_id or "0")
        signature = self._model.metadata.signature
        contract = mlflow_schema.contract_of(signature.to_dict() if signature is not None else None)
        columns = contract.inputs
        if not isinstance(columns, types.Record) or not all(each.name for each in columns.fields):
            raise StartError("only an MLflow model whose signature names its columns can be shown as an MLModel")
        self._input_schema = _class_of(columns, "ModelInput")
        self._output_schema = _output_class(contract.outputs)

    @property
    def display_name(self) -> str:
        """The qualified name."""
        return self._qualified_name

    @property
    def qualified_name(self) -> str:
        """As it was given."""
        return self._qualified_name

    @property
    def description(self) -> str:
        """Where it comes from."""
        return f"An MLflow model ({self._model.loader_module})."

    @property
    def version(self) -> str:
        """As it was given, or the id of the run that logged the model."""
        return self._version

    @property
    def input_schema(self) -> type[BaseModel]:
        """A field for each column."""
        return self._input_schema

    @property
    def output_schema(self) -> type[BaseModel]:
        """A field for each column of the output; the bare value if it has but one, without a name."""
        return self._output_schema

    def predict(self, data: BaseModel) -> BaseModel:
        """What the model predicts for one row, which MLflow parses, casts and checks as if it came as JSON.

        Raises:
            MLModelSchemaValidationException: The row does not fit the signature after all.

        """
        row = data.model_dump(mode="json", by_alias=True, exclude_unset=True)
        metadata = self._model.metadata
        text = json.dumps({"dataframe_records": [row]})
        try:
            frame = internals.parse_json(text.encode(), metadata, metadata.get_input_schema()).data
        except MlflowException as error:
            raise MLModelSchemaValidationException("The row does not fit the model's signature.") from error
        predictions = self._model.predict(frame)
        return self._output_schema.model_validate(_only_row(predictions))


def _only_row(predictions: Any) -> Any:
    """What was predicted for the one row; the whole of what has no rows."""
    if isinstance(predictions, pd.DataFrame):
        return predictions.to_dict("records")[0]
    if isinstance(predictions, pd.Series):
        predictions = predictions.to_numpy()
    if isinstance(predictions, np.ndarray | np.generic):
        predictions = predictions.tolist()
    return predictions[0] if isinstance(predictions, list) and len(predictions) == 1 else predictions


def _attribute(name: str) -> str:
    """A name for a field that pydantic takes: an identifier that is no attribute of its classes."""
    made = re.sub(r"\W", "_", name)
    return f"field_{made}" if not made[:1].isalpha() or hasattr(BaseModel, made) else made


def _class_of(record: types.Record, name: str) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for each in record.fields:
        kind = _python_type(each.type, f"{name}_{_attribute(each.name)}")
        optional = not each.required or each.nullable
        fields[_attribute(each.name)] = (
            kind | None if optional else kind,
            Field(None if optional else ..., alias=each.name, description=each.description or None),
        )
    return create_model(name, __config__=ConfigDict(populate_by_name=True, protected_namespaces=()), **fields)


def _output_class(outputs: types.Record | types.Tensor | None) -> type[BaseModel]:
    if isinstance(outputs, types.Record) and outputs.fields and all(each.name for each in outputs.fields):
        return _class_of(outputs, "ModelOutput")
    only = outputs.fields[0].type if isinstance(outputs, types.Record) and len(outputs.fields) == 1 else None
    kind = _python_type(only, "ModelOutput") if only is not None else Any
    return RootModel[kind]  # type: ignore[valid-type]


def _python_type(kind: types.Type, name: str) -> Any:
    match kind:
        case types.Scalar():
            return _SCALARS[kind.kind]
        case types.ListOf():
            return list[_python_type(kind.items, name)]  # type: ignore[misc]
        case types.MapOf():
            return dict[str, _python_type(kind.values, name)]  # type: ignore[misc]
        case types.Record():
            return _class_of(kind, name)
        case _:
            return Any
