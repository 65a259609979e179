"""Plain values in place of those of pyarrow's dictionaries.

Rule of this module: only callers that have pyarrow's columns import it.
"""

from typing import Any

import pyarrow as pa


def decoded(array: Any) -> Any:
    """The array of plain values for an array with a dictionary; other arrays as they are."""
    if not pa.types.is_dictionary(array.type):
        return array
    values = array.dictionary
    if pa.types.is_string_view(values.type):  # pyarrow decodes no dictionary of views, such as those of polars.
        array = pa.DictionaryArray.from_arrays(array.indices, values.cast(pa.large_string()))
    return array.dictionary_decode()
