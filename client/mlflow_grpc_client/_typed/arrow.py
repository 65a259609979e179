"""Columns of pyarrow for the columns of a batch.

Rule of this module: only callers that have pyarrow's columns import it. Values follow the rules of `columns`; a null is
a missing value.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from _mlflow_grpc_protocol.shapes import FieldShape, ScalarShape
from google.protobuf.descriptor import FieldDescriptor

from mlflow_grpc_client._dictionaries import decoded
from mlflow_grpc_client._typed import varints
from mlflow_grpc_client._typed.batch_request import BatchRequest, tag

_TEXTS = {FieldDescriptor.TYPE_STRING: pa.large_string(), FieldDescriptor.TYPE_BYTES: pa.large_binary()}


def array_of(column: Any) -> Any:
    """The array of a column in any number of chunks, with plain values instead of those of a dictionary."""
    if isinstance(column, pa.ChunkedArray):
        column = (
            column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([pa.array([], column.type), *column.chunks])
        )
    return decoded(column)


def values_of(array: Any, *, may_be_null: bool) -> tuple[Any, Any]:
    """The values of an array, and the indexes of nulls that these do not show.

    Numbers and times are a numpy array, where NaN and NaT are nulls; other values are a list, with None for null. If
    `may_be_null`, indexes tell the nulls among whole numbers and booleans, which have no such value.
    """
    data_type = array.type
    is_number = pa.types.is_floating(data_type) or pa.types.is_integer(data_type)
    if is_number and not array.null_count:
        # to_numpy is five times slower, and imports pandas.
        values = np.frombuffer(array.buffers()[1] or b"", data_type.to_pandas_dtype())
        return values[array.offset : array.offset + len(array)], ()
    if pa.types.is_floating(data_type) or pa.types.is_timestamp(data_type):
        return array.to_numpy(zero_copy_only=False), ()
    if is_number or pa.types.is_boolean(data_type):
        if not array.null_count:
            return array.to_numpy(zero_copy_only=False), ()
        if may_be_null:
            filler = pa.scalar(0, pa.int8()).cast(data_type)
            nulls = pc.indices_nonzero(array.is_null()).to_numpy()
            return array.fill_null(filler).to_numpy(zero_copy_only=False), nulls
    return array.to_pylist(), ()


def put_texts(request: BatchRequest, column: FieldShape, array: Any) -> bool:
    """Writes texts or bytes; returns False, with nothing written, for other columns and for those with an error."""
    if not isinstance(column.shape, ScalarShape) or column.shape.type not in _TEXTS:
        return False
    if not _is_text(array.type, is_binary=column.shape.type == FieldDescriptor.TYPE_BYTES):
        return False
    if array.null_count and (column.has_default or not column.null_rows):
        return False
    try:
        array.validate(full=True)  # Files may have texts that are not UTF-8.
    except pa.ArrowInvalid:
        return False
    if array.null_count:
        nulls = pc.indices_nonzero(array.is_null()).to_numpy()
        request.add_field(column.null_rows, varints.packed(nulls))
        array = array.fill_null(b"" if column.shape.type == FieldDescriptor.TYPE_BYTES else "")
    array = array.cast(_TEXTS[column.shape.type])
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)
    request.add_encoded(varints.texts(tag(request.number_of(column.name)), offsets, data))
    return True


def _is_text(data_type: Any, *, is_binary: bool) -> bool:
    if is_binary:
        return bool(pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type))
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))
