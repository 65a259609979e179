"""The table of types: which Arrow types a model's columns take, and which they have in answers.

| in the model | in answers and schemas | taken too |
|---|---|---|
| boolean | bool | |
| integer, long, float, double | int32, int64, float32, float64 | all integers and floats |
| string, an enumeration | string | large_string, string_view |
| binary | binary | large_binary, binary_view, fixed_size_binary |
| datetime | timestamp in ns, in us and UTC for an MLModel package | timestamps in any unit and zone, dates |
| array | list | large_list, fixed_size_list |
| object | struct | |
| map | map with string keys | struct |
| any, a union | string with JSON | every type in this table |
| tensor | fixed_size_list for a fixed dimension, list for a free one | list, large_list, fixed_size_list |

Dictionaries of numbers or texts are taken wherever their values are, and a column of type null everywhere.

Rule of this module: it decides by types only. MLflow decides about the values.
"""

from collections import Counter

import pyarrow as pa

from mlflow_grpc.contract.types import (
    AnyValue,
    DataType,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Scalar,
    Tensor,
    Type,
    Union,
)
from mlflow_grpc.payload.arrow import predicates

TYPE_KEY = b"mlflow.type"
"""Key in the metadata of a field whose texts are JSON."""

_SCALARS = {
    DataType.BOOLEAN: pa.bool_(),
    DataType.INTEGER: pa.int32(),
    DataType.LONG: pa.int64(),
    DataType.FLOAT: pa.float32(),
    DataType.DOUBLE: pa.float64(),
    DataType.STRING: pa.string(),
    DataType.BINARY: pa.binary(),
}

_NUMBERS = frozenset((DataType.INTEGER, DataType.LONG, DataType.FLOAT, DataType.DOUBLE))

_ADVICE = {
    "decimal": "cast it to float64, or to string if the model takes texts: the model's types have no decimals",
    "time": "cast it to string",
    "duration": "cast it to int64",
    "list_view": "cast it to list",
    "run_end_encoded": "decode it, with `run_end_decode` in pyarrow",
    "extension": "send the values that it stores, which are `column.storage` of an array in pyarrow",
}
"""What to do about a type that the server does not take, by a word in the type's name."""


def fields_of(root: Record | Tensor, sole_name: str) -> list[Field]:
    """Returns the columns of an input or output, each with a name.

    Args:
        root: Type of the input or output.
        sole_name: Name of the only column if the model does not name it.

    """
    if isinstance(root, Tensor):
        return [Field(sole_name, root)]
    is_sole = len(root.fields) == 1
    return [
        Field(
            column.name or (sole_name if is_sole else f"column_{index}"), column.type, column.required, column.nullable
        )
        for index, column in enumerate(root.fields)
    ]


def schema_of(fields: list[Field], *, with_zone: bool) -> pa.Schema:
    """Returns the Arrow schema of columns.

    Args:
        fields: The columns.
        with_zone: True if points in time are in UTC; False if they have no zone.

    """
    return pa.schema([_field(column, with_zone, ()) for column in fields])


def _field(column: Field, with_zone: bool, outer: tuple[Record, ...]) -> pa.Field:
    type_ = column.type
    metadata = {TYPE_KEY: b"any"} if is_json(type_, outer) else None
    return pa.field(column.name, arrow_type(type_ if outer else row_type(type_), with_zone, outer), metadata=metadata)


def row_shape(tensor: Tensor) -> tuple[int, ...]:
    """Returns the shape of a row of a tensor, whose first dimension counts the rows of a table."""
    return tensor.shape[1:]


def row_type(type_: Type) -> Type:
    """Returns the type of a row of a column: a tensor without its first dimension, any other type as it is."""
    return Tensor(type_.dtype, row_shape(type_)) if isinstance(type_, Tensor) else type_


def is_json(type_: Type, outer: tuple[Record, ...] = ()) -> bool:
    """Returns True if values of a type are JSON texts in answers: of any type, of a union, or without an end."""
    return isinstance(type_, AnyValue | Union) or (isinstance(type_, Record) and (not type_.fields or type_ in outer))


def arrow_type(type_: Type, with_zone: bool, outer: tuple[Record, ...] = ()) -> pa.DataType:
    """Returns the Arrow type of a value in an answer.

    Args:
        type_: Type of the value.
        with_zone: True if points in time are in UTC.
        outer: The records that the value is in, because a record may contain itself.

    """
    if is_json(type_, outer):
        return pa.string()
    match type_:
        case Scalar(data_type=DataType.DATETIME):
            return pa.timestamp("us", "UTC") if with_zone else pa.timestamp("ns")
        case Scalar():
            return _SCALARS[type_.data_type]
        case ListOf():
            return pa.list_(arrow_type(type_.items, with_zone, outer))
        case MapOf():
            return pa.map_(pa.string(), arrow_type(type_.values, with_zone, outer))
        case Record():
            return pa.struct([_field(column, with_zone, (*outer, type_)) for column in type_.fields])
        case Tensor():
            return _tensor_type(type_)
    return pa.string()


def _tensor_type(tensor: Tensor) -> pa.DataType:
    arrow = element_type(tensor.dtype)
    for size in reversed(tensor.shape):
        arrow = pa.list_(arrow, size if size >= 0 else -1)
    return arrow


def element_type(dtype: str) -> pa.DataType:
    """Returns the Arrow type of a tensor's elements; string for those that are neither numbers nor bytes."""
    if dtype.startswith(("bytes", "|S", "S")):
        return pa.binary()
    try:
        return pa.from_numpy_dtype(dtype)
    except (pa.ArrowNotImplementedError, TypeError):
        return pa.string()


def problem_of(type_: Type, arrow: pa.DataType, outer: tuple[Record, ...] = ()) -> str:
    """Describes why a column of a model does not take an Arrow type; empty if it does.

    Args:
        type_: Type of the column.
        arrow: Type in the caller's schema.
        outer: The records that the value is in.

    """
    if problem := unreadable(arrow):
        return problem
    if pa.types.is_dictionary(arrow):
        arrow = arrow.value_type
    if pa.types.is_null(arrow) or is_json(type_, outer):
        return ""
    match type_:
        case ListOf():
            return (
                problem_of(type_.items, arrow.value_type, outer)
                if predicates.is_list(arrow)
                else _mismatch("a list", arrow)
            )
        case Tensor():
            return _tensor_problem(type_, arrow)
        case MapOf() if pa.types.is_map(arrow):
            return problem_of(type_.values, arrow.item_type, outer)
        case MapOf():
            problems = [problem_of(type_.values, arrow.field(index).type, outer) for index in range(arrow.num_fields)]
            return next(filter(None, problems), "") if pa.types.is_struct(arrow) else _mismatch("a map", arrow)
        case Record():
            return _record_problem(type_, arrow, outer)
    return "" if _fits(type_, arrow) else _mismatch(str(arrow_type(type_, False)), arrow)


def _record_problem(record: Record, arrow: pa.DataType, outer: tuple[Record, ...]) -> str:
    if not pa.types.is_struct(arrow):
        return _mismatch("a struct", arrow)
    for column in record.fields:
        index = arrow.get_field_index(column.name)
        if index >= 0 and (problem := problem_of(column.type, arrow.field(index).type, (*outer, record))):
            return f"its field {column.name} {problem}"
    return ""


def _tensor_problem(tensor: Tensor, arrow: pa.DataType) -> str:
    expected = arrow_type(row_type(tensor), with_zone=False)
    element, depth = arrow, 0
    while predicates.is_list(element):
        element, depth = element.value_type, depth + 1
    declared = element_type(tensor.dtype)
    fits = predicates.is_numeric(element) if predicates.is_numeric(declared) else _family(declared) == _family(element)
    return "" if fits and depth == len(row_shape(tensor)) else _mismatch(str(expected), arrow)


def _fits(type_: Type, arrow: pa.DataType) -> bool:
    if isinstance(type_, Enumeration):
        return _family(arrow) == "string"
    if not isinstance(type_, Scalar):
        return True
    if type_.data_type in _NUMBERS:
        return predicates.is_numeric(arrow)
    if type_.data_type is DataType.DATETIME:
        return predicates.is_moment(arrow)
    return _family(arrow) == _family(_SCALARS[type_.data_type])


def _family(arrow: pa.DataType) -> str:
    if predicates.is_text(arrow):
        return "string"
    if predicates.is_bytes(arrow):
        return "binary"
    return "timestamp" if predicates.is_moment(arrow) else str(arrow)


def unreadable(arrow: pa.DataType) -> str:
    """Describes why the server reads no values of an Arrow type; empty if it does."""
    if pa.types.is_dictionary(arrow):
        value_type = arrow.value_type
        is_plain = predicates.is_text(value_type) or predicates.is_numeric(value_type)
        return "" if is_plain else "has a dictionary of values that are neither texts nor numbers; decode it"
    if predicates.is_list(arrow):
        return unreadable(arrow.value_type)
    if pa.types.is_map(arrow):
        if not predicates.is_text(arrow.key_type):
            return "has a map whose keys are not strings; cast them to string"
        return unreadable(arrow.item_type)
    if pa.types.is_struct(arrow):
        fields = [arrow.field(index) for index in range(arrow.num_fields)]
        if (name := repeated([column.name for column in fields])) is not None:
            return f"has a struct with two fields {name[:64]}; give them different names"
        return next(filter(None, (unreadable(column.type) for column in fields)), "")
    if _family(arrow) in ("string", "binary", "timestamp", "bool", "null") or predicates.is_numeric(arrow):
        return ""
    advice = next((text for word, text in _ADVICE.items() if word in str(arrow)), "cast it to a plain type")
    return f"has the Arrow type {_shortened(arrow)}, which the server does not take; {advice}"


def repeated(names: list[str]) -> str | None:
    """Returns the first name that occurs twice; None if all differ."""
    counts = Counter(names)
    return next((name for name in names if counts[name] > 1), None) if len(counts) < len(names) else None


def _mismatch(expected: str, arrow: pa.DataType) -> str:
    return f"has the Arrow type {_shortened(arrow)}, and the model takes {expected}; cast it"


def _shortened(arrow: pa.DataType, limit: int = 60) -> str:
    text = str(arrow)
    return text if len(text) <= limit else f"{text[:limit]}…"
