"""Memory that the values of an Arrow batch take once nothing is shared between them.

Rule of this module: it expands nothing. A dictionary with one long text, or a column of nulls, is small in a message
and large in a table.
"""

import pyarrow as pa
import pyarrow.compute as pc


def expanded_bytes(batch: pa.RecordBatch) -> int:
    """Returns the size of all values of a valid batch, in bytes, at least one byte for each."""
    return sum(map(_bytes_of, batch.columns))


def _bytes_of(array: pa.Array) -> int:
    array_type = array.type
    if pa.types.is_primitive(array_type):
        return len(array) * _width(array_type)
    if pa.types.is_dictionary(array_type):
        return len(array) + _dictionary_bytes(array)
    if pa.types.is_struct(array_type):
        return len(array) + sum(_bytes_of(array.field(index)) for index in range(array_type.num_fields))
    if pa.types.is_map(array_type):
        return len(array) + _bytes_of(array.keys) + _bytes_of(array.items)
    if pa.types.is_list(array_type) or pa.types.is_large_list(array_type) or pa.types.is_fixed_size_list(array_type):
        return len(array) + _bytes_of(array.flatten())
    return len(array) + int(array.nbytes)


def _dictionary_bytes(array: pa.DictionaryArray) -> int:
    values = array.dictionary
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return len(array) * _width(values.type)
    lengths = pc.take(pc.binary_length(values), array.indices)
    return pc.sum(lengths).as_py() or 0


def _width(array_type: pa.DataType) -> int:
    try:
        return max(int(array_type.bit_width) // 8, 1)
    except ValueError:  # Of no fixed width; `types` refuses such dictionaries.
        return 1
