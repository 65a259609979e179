"""An MLflow model as an `ml_base.MLModel`: for decorators, and for services that are written for that interface.

Rule of this module: the schemas are made from the model's signature, `predict` is what MLflow's `predict` is for a
frame of one row, `predict_many` for one of several, and its outputs as JSON are what MLflow writes. It needs the
package ml-base.
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
from mlflow_grpc.hosting.mlmodel.predicted_rows import each_row, only_row
from mlflow_grpc.hosting.pyfunc import internals, model_code


def _to_the_nanosecond(value: Any, handler: ValidatorFunctionWrapHandler) -> datetime:
    """Keeps what pydantic cuts off: a datetime has microseconds, a pandas.Timestamp, which is one too, has more."""
    if value == "NaT":  # As a DataFrame's is written.
        return pd.NaT  # type: ignore[return-value]  # It is an instance of datetime.
    moment: datetime = handler(value)
    if isinstance(value, pd.Timestamp):
        return value
    digits = re.search(r"(?<=:\d\d)[.,]\d{6}(\d{1,3})", value) if isinstance(value, str) else None
    if digits is None:
        return moment
    try:
        return pd.Timestamp(moment) + pd.Timedelta(nanoseconds=int(digits[1].ljust(3, "0")))
    except (pd.errors.OutOfBoundsDatetime, OverflowError):
        raise ValueError("it has nanoseconds, which are known of the years 1678 to 2261 only") from None


def _as_mlflow_writes(value: Any) -> Any:
    """A value as MLflow's server writes it: bytes in base64 with a line feed, moments with all of their digits."""
    text = StringIO()
    internals.unwrapped_predictions_to_json(value, text)
    return json.loads(text.getvalue())


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _unless_missing(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """None and NaN as they are: MLflow tells one from the other, and so may the model."""
    return value if value is None or (isinstance(value, float) and math.isnan(value)) else handler(value)


def _written_unless_missing(value: Any, handler: SerializerFunctionWrapHandler) -> Any:
    if _is_missing(value):
        return None if value is pd.NaT or value is pd.NA else value
    return handler(value)


_MAY_LACK = {DataType.STRING, DataType.FLOAT, DataType.DOUBLE, DataType.DATETIME, DataType.BOOLEAN}
"""Required columns in which MLflow takes a cell without a value; in optional ones it judges for itself."""


def _with_nine_digits(value: datetime) -> str:
    """A point in time as text; with as many digits as any other, since pandas takes a column of one form only."""
    if isinstance(value, pd.Timestamp | type(pd.NaT)):
        return str(value.isoformat(timespec="nanoseconds"))
    text = value.isoformat(timespec="microseconds")
    return f"{text}000" if value.tzinfo is None else text


_WRITTEN = PlainSerializer(_as_mlflow_writes, when_used="json")


def _moment(written: PlainSerializer) -> Any:
    return Annotated[
        NaiveDatetime,
        WrapValidator(_to_the_nanosecond),
        written,
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
    # MLflow refuses those with a zone.
    DataType.DATETIME: _moment(PlainSerializer(_with_nine_digits, when_used="json")),
}
"""What callers send, by the types of columns; under None what is of any type."""

_OUTPUTS = {
    **_SCALARS,
    # The model gives the bytes themselves.
    DataType.BINARY: Annotated[bytes, _WRITTEN, WithJsonSchema({"type": "string", "format": "base64"})],
    DataType.DATETIME: _moment(_WRITTEN),
    None: Annotated[Any, _WRITTEN],
}
"""What the model gives."""


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
            StartError: It has no signature of named columns, or brings code of a name that is taken.

        """
        self._model = loaded or model_code.load_model(model_uri, config=model_config)
        self._qualified_name = qualified_name
        self._version = version or str(self._model.metadata.run_id or "0")
        signature = self._model.metadata.signature
        contract = mlflow_schema.contract_of(signature.to_dict() if signature is not None else None)
        columns = contract.inputs
        if not isinstance(columns, types.Record) or not all(each.name for each in columns.fields):
            raise StartError("only an MLflow model whose signature names its columns can be shown as an MLModel")
        self._input_schema = _class_of(columns, "ModelInput", _SCALARS, may_lack=_MAY_LACK)
        self._outputs = contract.outputs
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
        """A field for each column. A cell without a value is None or NaN, as it was sent, where MLflow takes such."""
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
        try:
            predictions = self._predicted([data])
        except _Refused as refused:
            raise MLModelSchemaValidationException("The row does not fit the model's signature.") from refused
        return self._output_schema.model_validate(only_row(predictions, self._outputs))

    def predict_many(self, data: list[BaseModel]) -> list[BaseModel]:
        """What the model predicts for the rows of one frame; for one after the other, where MLflow takes no such frame
        or what is predicted has no rows.

        Raises:
            MLModelSchemaValidationException: A row does not fit the signature after all.

        """
        try:
            rows = each_row(self._predicted(data), self._outputs, len(data))
        except _Refused:
            rows = None
        if rows is not None:
            return [self._output_schema.model_validate(row) for row in rows]
        outputs = []
        for place, record in enumerate(data):
            try:
                outputs.append(self.predict(record))
            except MLModelSchemaValidationException as refused:
                raise MLModelSchemaValidationException(f"[{place}]: {refused}") from refused
        return outputs

    def _predicted(self, data: list[BaseModel]) -> Any:
        """What the model predicts for the rows of one frame, before anything is made of it."""
        rows = [each.model_dump(mode="json", by_alias=True, exclude_unset=True) for each in data]
        metadata, text = self._model.metadata, json.dumps({"dataframe_records": rows})
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
    """MLflow's checks do not take the rows."""


def _none_of_nothing(value: Any) -> Any:
    """None for what pandas has in its place where a column is of another type."""
    return None if value is pd.NaT or value is pd.NA else value


def _attributes(names: Iterable[str]) -> dict[str, str]:
    """Names for fields that pydantic takes, none of them twice: identifiers that are no attribute of its classes.

    A column that is called so keeps its name, and no other field is found by it.
    """
    names = list(names)
    taken, given = set(names), {}
    for name in names:
        made = re.sub(r"\W", "_", name)
        if not made[:1].isalpha() or hasattr(BaseModel, made):
            made = f"field_{made}"
        candidate, number = made, 2
        while candidate != name and candidate in taken:
            candidate, number = f"{made}_{number}", number + 1
        taken.add(candidate)
        given[name] = candidate
    return given


def _class_of(
    record: types.Record,
    name: str,
    scalars: dict[DataType | None, Any],
    *,
    may_lack: AbstractSet[DataType] = frozenset(),
) -> type[BaseModel]:
    attributes = _attributes(each.name for each in record.fields)
    fields: dict[str, Any] = {}
    for each in record.fields:
        attribute = attributes[each.name]
        kind = _python_type(each.type, f"{name}_{attribute}", scalars)
        optional = not each.required or each.nullable
        if optional:
            kind = Annotated[kind | None, BeforeValidator(_none_of_nothing)]
        if may_lack and isinstance(each.type, types.Scalar) and (optional or each.type.data_type in may_lack):
            kind = Annotated[kind, WrapValidator(_unless_missing), WrapSerializer(_written_unless_missing)]
        fields[attribute] = (
            kind,
            Field(None if optional else ..., alias=each.name, description=each.description or None),
        )
    return create_model(
        name,
        __config__=ConfigDict(populate_by_name=True, protected_namespaces=(), ser_json_inf_nan="constants"),
        **fields,
    )


def _output_class(outputs: types.Record | types.Tensor | None) -> type[BaseModel]:
    if isinstance(outputs, types.Record) and outputs.fields and all(each.name for each in outputs.fields):
        return _class_of(outputs, "ModelOutput", _OUTPUTS)
    only = outputs.fields[0] if isinstance(outputs, types.Record) and len(outputs.fields) == 1 else None
    kind = _python_type(only.type if only else types.AnyValue(), "ModelOutput", _OUTPUTS)
    if only is not None and not only.required:
        kind = Annotated[kind | None, BeforeValidator(_none_of_nothing)]
    return RootModel[kind]  # type: ignore[valid-type]


def _python_type(kind: types.Type, name: str, scalars: dict[DataType | None, Any]) -> Any:
    match kind:
        case types.Scalar():
            return scalars[kind.data_type]
        case types.ListOf():
            return list[_python_type(kind.items, name, scalars)]  # type: ignore[misc]
        case types.MapOf():
            return dict[str, _python_type(kind.values, name, scalars)]  # type: ignore[misc]
        case types.Record():
            return _class_of(kind, name, scalars)
        case _:
            return scalars[None]
