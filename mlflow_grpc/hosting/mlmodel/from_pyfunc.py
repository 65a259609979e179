"""An MLflow model as an `ml_base.MLModel`: for decorators, and for services that use this interface.

Rule of this module: the schemas come from the model's signature, and the outputs as JSON are what MLflow writes.
`predict` does what MLflow's `predict` does for a frame of one row, and `predict_many` for a frame of several rows. The
module needs the package ml-base.

It has more than 300 lines, because it holds the interface and the pydantic types that MLflow's cells need.
"""

import json
import math
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import datetime
from io import StringIO
from typing import Annotated, Any

import pandas as pd
from ml_base import MLModel
from ml_base.ml_model import MLModelSchemaValidationException
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from pydantic import (
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NaiveDatetime,
    PlainSerializer,
    RootModel,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapSerializer,
    WrapValidator,
    create_model,
)

from mlflow_grpc.contract import mlflow_schema, types
from mlflow_grpc.contract.types import DataType
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.mlmodel.column_refusals import refusal_of
from mlflow_grpc.hosting.mlmodel.predicted_rows import single_row, split_rows
from mlflow_grpc.hosting.pyfunc import internals, model_code


def _to_the_nanosecond(value: Any, handler: ValidatorFunctionWrapHandler) -> datetime:
    """Keeps nanoseconds, which pydantic drops: a datetime has microseconds only, its subclass pandas.Timestamp more."""
    if value == "NaT":  # The text of an empty cell of a DataFrame.
        return pd.NaT  # type: ignore[return-value]  # It is an instance of datetime.
    timestamp: datetime = handler(value)
    if isinstance(value, pd.Timestamp):
        return value
    digits = re.search(r"(?<=:\d\d)[.,]\d{6}(\d{1,3})", value) if isinstance(value, str) else None
    if digits is None:
        return timestamp
    try:
        return pd.Timestamp(timestamp) + pd.Timedelta(nanoseconds=int(digits[1].ljust(3, "0")))
    except (pd.errors.OutOfBoundsDatetime, OverflowError):
        raise ValueError("it has nanoseconds, which are supported for the years 1678 to 2261 only") from None


def _as_mlflow_writes(value: Any) -> Any:
    """Returns a value as MLflow's server writes it: bytes in base64 with a line feed, timestamps with all digits."""
    text = StringIO()
    internals.unwrapped_predictions_to_json(value, text)
    return json.loads(text.getvalue())


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _validate_unless_missing(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Returns None and NaN unchanged, because MLflow and the model may tell them apart."""
    return value if value is None or (isinstance(value, float) and math.isnan(value)) else handler(value)


def _serialize_unless_missing(value: Any, handler: SerializerFunctionWrapHandler) -> Any:
    if _is_missing(value):
        return None if value is pd.NaT or value is pd.NA else value
    return handler(value)


_TYPES_WITH_EMPTY_CELLS = {DataType.STRING, DataType.FLOAT, DataType.DOUBLE, DataType.DATETIME, DataType.BOOLEAN}
"""Types of required columns in which MLflow takes empty cells; an optional column of any type takes them."""


def _with_nine_digits(value: datetime) -> str:
    """Returns a timestamp as text with nine digits, because pandas needs the same form in a whole column."""
    if isinstance(value, pd.Timestamp | type(pd.NaT)):
        return str(value.isoformat(timespec="nanoseconds"))
    text = value.isoformat(timespec="microseconds")
    return f"{text}000" if value.tzinfo is None else text


_SERIALIZED_BY_MLFLOW = PlainSerializer(_as_mlflow_writes, when_used="json")


def _timestamp_type(serializer: PlainSerializer) -> Any:
    return Annotated[
        NaiveDatetime,
        WrapValidator(_to_the_nanosecond),
        serializer,
        WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
    ]


_SCALARS: dict[DataType | None, Any] = {
    None: Any,
    DataType.BOOLEAN: bool,
    DataType.INTEGER: Annotated[int, Field(ge=-(2**31), lt=2**31)],
    DataType.LONG: Annotated[int, Field(ge=-(2**63), lt=2**63)],
    DataType.FLOAT: float,
    DataType.DOUBLE: float,
    DataType.STRING: str,
    DataType.BINARY: Base64Bytes,
    # MLflow refuses timestamps with a timezone.
    DataType.DATETIME: _timestamp_type(PlainSerializer(_with_nine_digits, when_used="json")),
}
"""Types of input fields, by the column's data type; None is the key for a column of any type."""

_OUTPUTS = {
    **_SCALARS,
    # The model returns bytes that are not encoded.
    DataType.BINARY: Annotated[bytes, _SERIALIZED_BY_MLFLOW, WithJsonSchema({"type": "string", "format": "base64"})],
    DataType.DATETIME: _timestamp_type(_SERIALIZED_BY_MLFLOW),
    None: Annotated[Any, _SERIALIZED_BY_MLFLOW],
}
"""Types of output fields, by the column's data type."""


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
        """Loads the model unless it is passed in, and creates its schemas.

        Args:
            model_uri: Any URI that `mlflow.pyfunc.load_model` takes.
            loaded: The model, if it is loaded already.
            qualified_name: The model's name.
            version: The model's version. The id of its run if empty.
            model_config: MLflow's `model_config`.

        Raises:
            StartError: The model has no signature with named columns, or its code has the module name of other code.

        """
        self._model = loaded or model_code.load_model(model_uri, config=model_config)
        self._qualified_name = qualified_name
        self._version = version or str(self._model.metadata.run_id or "0")
        signature = self._model.metadata.signature
        contract = mlflow_schema.contract_of(signature.to_dict() if signature is not None else None)
        columns = contract.inputs
        if not isinstance(columns, types.Record) or not all(column.name for column in columns.fields):
            raise StartError("only an MLflow model whose signature names its columns can be adapted to MLModel")
        self._input_schema = _class_of(columns, "ModelInput", _SCALARS, types_with_empty_cells=_TYPES_WITH_EMPTY_CELLS)
        self.columns_with_empty_csv_cells = frozenset(
            column.name
            for column in columns.fields
            if column.required
            and isinstance(column.type, types.Scalar)
            and column.type.data_type in _TYPES_WITH_EMPTY_CELLS - {DataType.BOOLEAN}
        )
        """The required columns in which MLflow takes empty cells of CSV. It refuses those of booleans."""
        self._outputs = contract.outputs
        self._output_schema = _output_class(contract.outputs)

    @property
    def display_name(self) -> str:
        """The qualified name."""
        return self._qualified_name

    @property
    def qualified_name(self) -> str:
        """The name that the constructor got."""
        return self._qualified_name

    @property
    def description(self) -> str:
        """The MLflow module that loads the model."""
        return f"An MLflow model ({self._model.loader_module})."

    @property
    def version(self) -> str:
        """The version that the constructor got, or the id of the run that logged the model."""
        return self._version

    @property
    def input_schema(self) -> type[BaseModel]:
        """A class with a field for each column. Where MLflow takes an empty cell, it is None or NaN, as it was sent."""
        return self._input_schema

    @property
    def output_schema(self) -> type[BaseModel]:
        """A class with a field for each output column, or of the bare value if the only column has no name."""
        return self._output_schema

    def predict(self, data: BaseModel) -> BaseModel:
        """Runs the model on one row, which MLflow parses, casts and checks as if it came as JSON.

        Raises:
            MLModelSchemaValidationException: MLflow's checks refuse the row.

        """
        return self._predict_row(data)

    def _predict_row(self, data: BaseModel, path: str = "") -> BaseModel:
        try:
            predictions = self._run([data])
        except _Refused:
            refusal = refusal_of(_as_json(data), path, self._model.metadata, self._model.loader_module)
            raise MLModelSchemaValidationException(str(refusal)) from refusal
        return self._output_schema.model_validate(single_row(predictions, self._outputs))

    def predict_many(self, data: list[BaseModel]) -> list[BaseModel]:
        """Runs the model on all rows in one frame.

        Runs it on one row after the other if MLflow refuses this frame, or if the predictions have no rows.

        Raises:
            MLModelSchemaValidationException: MLflow's checks refuse a row.

        """
        try:
            rows = split_rows(self._run(data), self._outputs, len(data))
        except _Refused:
            rows = None
        if rows is not None:
            return [self._output_schema.model_validate(row) for row in rows]
        paths = [f"[{index}]" for index in range(len(data))] if len(data) > 1 else [""]
        return [self._predict_row(record, path) for record, path in zip(data, paths, strict=True)]

    def _run(self, data: list[BaseModel]) -> Any:
        """Runs the model on the rows in one frame and returns its predictions unconverted."""
        metadata, text = self._model.metadata, json.dumps({"dataframe_records": [_as_json(record) for record in data]})
        try:
            frame = internals.parse_json(text.encode(), metadata, metadata.get_input_schema()).data
        except MlflowException as error:
            raise _Refused from error
        try:
            return self._model.predict(frame)
        except MlflowException as error:
            if internals.input_was_refused(error):
                raise _Refused from error
            raise


class _Refused(Exception):
    """MLflow's checks refuse the rows."""


def _as_json(record: BaseModel) -> dict[str, Any]:
    """Returns the columns that a caller sent, as JSON has them."""
    return record.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _none_if_missing(value: Any) -> Any:
    """Returns None for NaT and NA, which pandas has in place of None in some columns."""
    return None if value is pd.NaT or value is pd.NA else value


def _attributes(names: Iterable[str]) -> dict[str, str]:
    """Returns a unique attribute name for each column, which pydantic takes as the name of a field.

    An attribute name is an identifier that the classes of pydantic do not use. A column whose name is one keeps it.
    """
    names = list(names)
    taken, attributes = set(names), {}
    for name in names:
        stem = re.sub(r"\W", "_", name)
        if not stem[:1].isalpha() or hasattr(BaseModel, stem):
            stem = f"field_{stem}"
        candidate, number = stem, 2
        while candidate != name and candidate in taken:
            candidate, number = f"{stem}_{number}", number + 1
        taken.add(candidate)
        attributes[name] = candidate
    return attributes


def _class_of(
    record: types.Record,
    name: str,
    scalars: dict[DataType | None, Any],
    *,
    types_with_empty_cells: AbstractSet[DataType] = frozenset(),
) -> type[BaseModel]:
    attributes = _attributes(field.name for field in record.fields)
    fields: dict[str, Any] = {}
    for field in record.fields:
        attribute = attributes[field.name]
        python_type = _python_type(field.type, f"{name}_{attribute}", scalars)
        optional = not field.required or field.nullable
        if optional:
            python_type = Annotated[python_type | None, BeforeValidator(_none_if_missing)]
        if (
            types_with_empty_cells
            and isinstance(field.type, types.Scalar)
            and (optional or field.type.data_type in types_with_empty_cells)
        ):
            python_type = Annotated[
                python_type, WrapValidator(_validate_unless_missing), WrapSerializer(_serialize_unless_missing)
            ]
        fields[attribute] = (
            python_type,
            Field(None if optional else ..., alias=field.name, description=field.description or None),
        )
    return create_model(
        name,
        __config__=ConfigDict(populate_by_name=True, protected_namespaces=(), ser_json_inf_nan="constants"),
        **fields,
    )


def _output_class(outputs: types.Record | types.Tensor | None) -> type[BaseModel]:
    if isinstance(outputs, types.Record) and outputs.fields and all(field.name for field in outputs.fields):
        return _class_of(outputs, "ModelOutput", _OUTPUTS)
    only = outputs.fields[0] if isinstance(outputs, types.Record) and len(outputs.fields) == 1 else None
    python_type = _python_type(only.type if only else types.AnyValue(), "ModelOutput", _OUTPUTS)
    if only is not None and not only.required:
        python_type = Annotated[python_type | None, BeforeValidator(_none_if_missing)]
    return RootModel[python_type]  # type: ignore[valid-type]


def _python_type(field_type: types.Type, name: str, scalars: dict[DataType | None, Any]) -> Any:
    match field_type:
        case types.Scalar():
            return scalars[field_type.data_type]
        case types.ListOf():
            return list[_python_type(field_type.items, name, scalars)]  # type: ignore[misc]
        case types.MapOf():
            return dict[str, _python_type(field_type.values, name, scalars)]  # type: ignore[misc]
        case types.Record():
            return _class_of(field_type, name, scalars)
        case _:
            return scalars[None]
