"""A column of predictions in a Spark DataFrame, from a model of a served fleet.

    from mlflow_grpc_client.spark import predict_udf

    predict = predict_udf("grpc://models.example:50051", "iris")
    frame.withColumn("prediction", predict(struct("sepal_length_cm", "sepal_width_cm")))

Executors need this package, and neither MLflow nor the model with its environment. Rule of this module: only programs
with Spark import it; calls of a model are in `_bulk`.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Union

try:
    import pandas as pd
    from pyspark.sql import Column, types
    from pyspark.sql.functions import pandas_udf, udf
except ModuleNotFoundError as error:
    from _mlflow_grpc_protocol.install_sources import CLIENT, install_argument

    missing = str(error.name).partition(".")[0]
    raise ModuleNotFoundError(
        f"mlflow_grpc_client.spark needs {missing}: pip install {install_argument(CLIENT, 'spark')}", name=missing
    ) from None
from _mlflow_grpc_protocol.shapes import EnumShape, FieldShape, MessageShape, ScalarShape, TimestampShape, WrapperShape
from google.protobuf.descriptor import FieldDescriptor

from mlflow_grpc_client._bulk import (
    RETRY_FOR_S,
    ROWS_PER_CALL,
    BulkModel,
    BulkOptions,
    contract_of,
    input_fields,
    is_plain,
    output_fields,
    values_of,
)
from mlflow_grpc_client._connection.targets import Addresses

CALLS_PER_EXECUTOR = 4
"""Default limit of calls in flight of an executor."""

_SCALARS = {
    FieldDescriptor.TYPE_BOOL: types.BooleanType(),
    FieldDescriptor.TYPE_INT32: types.IntegerType(),
    FieldDescriptor.TYPE_UINT32: types.LongType(),
    FieldDescriptor.TYPE_INT64: types.LongType(),
    FieldDescriptor.TYPE_FLOAT: types.FloatType(),
    FieldDescriptor.TYPE_DOUBLE: types.DoubleType(),
    FieldDescriptor.TYPE_STRING: types.StringType(),
    FieldDescriptor.TYPE_BYTES: types.BinaryType(),
}

_LOCK_FILE = f"mlflow-grpc-calls-{os.getuid()}"


def predict_udf(
    address: Addresses,
    model: str = "",
    *,
    result_type: types.DataType | str | None = None,
    params: Mapping[str, Any] | None = None,
    rows_per_call: int = ROWS_PER_CALL,
    calls_per_executor: int = CALLS_PER_EXECUTOR,
    retry_for_s: float = RETRY_FOR_S,
    **client_options: Any,
) -> Callable[..., Column]:
    """Returns a function of columns that results in a column of predictions, like `mlflow.pyfunc.spark_udf`.

    The function takes a struct, whose fields have the names of the model's inputs; further fields are ignored. Or it
    takes the inputs one by one, in the model's order, or nothing for columns with the names of the inputs.

    Args:
        address: The fleet, as in `Client`. This process and the executors connect to it.
        model: `name` or `name/version`; empty for the default model.
        result_type: The type of the column, as a Spark type or its DDL text. The default is that of the model's output,
            or a struct of its outputs if it has several.
        params: Params of the model.
        rows_per_call: Maximum number of rows of a call.
        calls_per_executor: Maximum number of calls that all tasks of an executor have in flight.
        retry_for_s: The time for which a call is repeated while servers are overloaded, away or restarting, in seconds.
        client_options: Further options of `Client`, such as `timeout_s`, `tls` and `token`. Executors read the files of
            TLS, and that of a token if it is `TokenFile(path)`.

    Raises:
        PredictError: There is no such model, it takes no rows, or no server answers.
        ValueError: An option is invalid.
        TypeError: An option is invalid, or the model's output has no Spark type and `result_type` is missing.

    """
    if calls_per_executor < 1:
        raise ValueError(f"calls_per_executor is at least 1; not {calls_per_executor!r}")
    options = BulkOptions(address, model, params, rows_per_call, retry_for_s, client_options)
    contract = contract_of(options)
    inputs, outputs = input_fields(contract), output_fields(contract)
    names = [column.model_name for column in inputs]
    known = {*names, *(column.name for column in inputs)}
    column_type = _column_type(outputs, result_type)
    batch_type = pd.DataFrame if isinstance(column_type, types.StructType) else pd.Series

    @pandas_udf(column_type)  # type: ignore[call-overload,untyped-decorator,unused-ignore]
    def predictions(
        batches: Iterator[tuple[Union[pd.Series, pd.DataFrame], ...]],  # noqa: UP007 - Spark reads no other form.
    ) -> Iterator[batch_type]:  # type: ignore[valid-type]
        with _lock_file() as file, BulkModel(options, _Turn(file, calls_per_executor)) as served:
            for batch in batches:
                yield _column(served.predict(_rows(batch, names, known)), column_type)

    def predict(*columns: Any) -> Column:
        """The column of predictions for a struct, for columns in the order of the inputs, or for no argument."""
        if not columns and not all(names):
            raise TypeError("the inputs of the model have no names: give a column for each")
        if len(columns) > max(len(names), 1):
            labels = ", ".join(column.label for column in inputs)
            raise TypeError(f"{len(columns)} columns for the {len(names)} inputs of the model: {labels}")
        column: Column = predictions(*(columns or names))
        return column

    return predict


def _column_type(outputs: Sequence[FieldShape], result_type: types.DataType | str | None) -> types.DataType:
    """The type of the column of predictions.

    Raises:
        TypeError: The outputs have no Spark type, or do not fit the one that the caller gives.

    """
    if result_type is None:
        if len(outputs) == 1:
            return _spark_type(outputs[0])
        return types.StructType([types.StructField(output.label, _spark_type(output)) for output in outputs])
    column_type: types.DataType = (
        udf(lambda value: value, result_type).returnType  # type: ignore[attr-defined,unused-ignore]
        if isinstance(result_type, str)
        else result_type
    )
    labels = [output.label for output in outputs]
    if len(labels) > 1 and not isinstance(column_type, types.StructType):
        raise TypeError(
            f"the model has the outputs {', '.join(labels)}: leave result_type out, or give a struct of some of them, "
            f"such as '{labels[0]} {_example_type(outputs[0])}'"
        )
    if len(labels) > 1 and (unknown := set(column_type.fieldNames()) - set(labels)):
        raise TypeError(f"the model has no output {', '.join(sorted(unknown))}; there are: {', '.join(labels)}")
    return column_type


def _example_type(output: FieldShape) -> str:
    try:
        return str(_spark_type(output).simpleString())
    except TypeError:
        return "string"


def _spark_type(field: FieldShape, *, is_item: bool = False) -> types.DataType:
    """The Spark type of an output, whose values for all rows are a repeated field.

    Args:
        field: The output, or a field within it.
        is_item: True for a field within an output, where repetition means a list.

    Raises:
        TypeError: There is no such type.

    """
    shape: Any = field.shape
    match shape:
        case WrapperShape():
            item = _spark_type(shape.content, is_item=True)
        case ScalarShape() if shape.type in _SCALARS:
            item = _SCALARS[shape.type]
        case EnumShape():
            item = types.StringType()
        case TimestampShape():
            item = types.TimestampType()
        case MessageShape() if not shape.extra and (is_item or not field.is_singular):
            members = [(member.label, _spark_type(member, is_item=True)) for member in shape.fields]
            item = types.StructType([types.StructField(name, member) for name, member in members])
        case _:
            raise TypeError(
                f"the model's output {field.label} has no type of its own in Spark, like a tensor or any JSON: give "
                "result_type, such as 'array<double>'"
            )
    if is_item and field.is_repeated:
        return types.ArrayType(item)
    if is_item and field.is_map:
        return types.MapType(types.StringType(), item)
    return item


def _rows(batch: Any, names: Sequence[str], known: set[str]) -> Any:
    """The rows of a batch: a DataFrame with the names of the inputs, or values for a sole input without a name.

    Args:
        batch: The column of Spark as a Series, a struct as a DataFrame, several of these in a tuple.
        names: The names of the inputs, empty for inputs without a name.
        known: All names that inputs have.

    """
    if isinstance(batch, tuple):
        columns = [
            pd.Series(column.to_dict("records")) if isinstance(column, pd.DataFrame) else column for column in batch
        ]
        labels = [name or index for index, name in enumerate(names)]
        return pd.DataFrame(dict(zip(labels, columns, strict=False)))
    if isinstance(batch, pd.Series):
        return batch.to_frame(names[0]) if names[0] else batch.tolist()
    if all(names):
        return batch[[name for name in batch.columns if name in known]]
    return batch.to_numpy() if len(names) == 1 else batch.set_axis(range(batch.shape[1]), axis=1)


def _column(answers: Mapping[str, Any], column_type: types.DataType) -> Any:
    """The answers to a batch as pandas sends them to Spark: a Series, or a DataFrame for a struct of outputs."""
    if len(answers) > 1:
        return pd.DataFrame({field.name: _series(answers[field.name], field.dataType) for field in column_type})
    (column,) = answers.values()
    return _series(column, column_type)


def _series(column: Any, column_type: types.DataType) -> Any:
    """The answers of an output in a Series, or in a DataFrame if they are structs."""
    if isinstance(column_type, types.StructType):
        records = values_of(column)
        return pd.DataFrame(
            {field.name: _series([record[field.name] for record in records], field.dataType) for field in column_type}
        )
    if isinstance(column_type, types.StringType):
        values = [None if value is None else str(value) for value in values_of(column)]
        return pd.Series(values, dtype=object)
    if isinstance(column_type, types.TimestampType):
        # Spark reads times without a zone in the zone of its session, as it does those of spark_udf.
        return pd.Series(pd.to_datetime(values_of(column), utc=True).tz_localize(None))
    if is_plain(column):
        return pd.Series(column)
    values = values_of(column)
    # With None, pandas would make floats of integers.
    return pd.Series(values, dtype=object if None in values else None)


def _lock_file() -> IO[bytes]:
    """The file by which the Python processes of an executor count their calls, in a folder that ends with it."""
    folder = os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).partition(",")[0]
    return (Path(folder) / _LOCK_FILE).open("ab")


class _Turn:
    """One of the calls that an executor may have in flight. Its Python processes wait for each other.

    The first bytes of a file are the calls. A process locks one of them. If it is killed, the kernel unlocks the byte.
    """

    def __init__(self, file: IO[bytes], count: int) -> None:
        self._file = file
        self._count = count
        self._locked = 0

    def __enter__(self) -> None:
        first = os.getpid() % self._count
        for index in (*range(first, self._count), *range(first)):
            with contextlib.suppress(BlockingIOError, PermissionError):  # Either one, by POSIX.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
                self._locked = index
                return
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, first)
        self._locked = first

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._locked)
