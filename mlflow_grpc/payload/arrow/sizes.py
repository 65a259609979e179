"""Memory that the values of an Arrow batch take once nothing is shared between them.

Rule of this module: it expands nothing. A dictionary with one long text, or a column of nulls, is small in a message
and large in a table.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlflow_grpc.payload.arrow import predicates

_VALUE_BYTES, _OBJECT_BYTES = 8, 64
"""Sizes that a value counts at least: that of a double or of a reference, and that of an empty list."""


def expanded_bytes(batch: pa.RecordBatch) -> int:
    """Returns the size of all values of a valid batch, in bytes.

    A message may have millions of values in a few bytes: booleans, compressed zeros, nulls, empty lists. So each value
    counts at least as a double, and as an empty list if it becomes an object or has no bytes at all.
    """
    return sum(map(_bytes_of, batch.columns)) if batch.num_columns else batch.num_rows * _OBJECT_BYTES


def _bytes_of(array: pa.Array) -> int:
    array_type = array.type
    if pa.types.is_primitive(array_type):
        return len(array) * _width(array_type)
    if _has_no_bytes(array_type):
        return len(array) * _OBJECT_BYTES
    if pa.types.is_dictionary(array_type):
        return len(array) * _VALUE_BYTES + _dictionary_bytes(array)
    if pa.types.is_struct(array_type):
        fields = sum(_bytes_of(array.field(index)) for index in range(array_type.num_fields))
        return len(array) * _OBJECT_BYTES + fields
    if pa.types.is_map(array_type):
        return len(array) * _OBJECT_BYTES + _bytes_of(array.keys) + _bytes_of(array.items)
    if pa.types.is_fixed_size_list(array_type):  # The rows of a tensor, which no list is made for.
        return len(array) * _VALUE_BYTES + _bytes_of(array.flatten())
    if predicates.is_list(array_type):
        return len(array) * _OBJECT_BYTES + _bytes_of(array.flatten())
    if predicates.is_view(array_type):  # Any number of views may be of the same bytes.
        return len(array) * _VALUE_BYTES + int(_lengths_of_views(array).sum())
    return len(array) * _VALUE_BYTES + int(array.nbytes)


def _has_no_bytes(array_type: pa.DataType) -> bool:
    """Returns True if a message may have any number of values of a type in a few bytes."""
    if pa.types.is_struct(array_type):
        return not array_type.num_fields
    return pa.types.is_null(array_type) or (pa.types.is_fixed_size_list(array_type) and not array_type.list_size)


def _dictionary_bytes(array: pa.DictionaryArray) -> int:
    values = array.dictionary
    if predicates.is_view(values.type):
        lengths = pc.take(pa.array(_lengths_of_views(values)), array.indices)
        return pc.sum(lengths).as_py() or 0
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return len(array) * _width(values.type)
    lengths = pc.take(pc.binary_length(values), array.indices)
    return pc.sum(lengths).as_py() or 0


def _lengths_of_views(array: pa.Array) -> npt.NDArray[np.int64]:
    """Returns the number of bytes of each value; 0 for null.

    A view is a structure of 16 bytes, and its length is the first 32-bit integer of it.
    """
    views = np.frombuffer(array.buffers()[1] or b"", np.int32).reshape(-1, 4)[array.offset : array.offset + len(array)]
    return np.where(array.is_valid().to_numpy(zero_copy_only=False), views[:, 0], 0).astype(np.int64)


def _width(array_type: pa.DataType) -> int:
    try:
        return max(int(array_type.bit_width) // 8, _VALUE_BYTES)
    except ValueError:  # Of no fixed width; `types` refuses such dictionaries.
        return _VALUE_BYTES
