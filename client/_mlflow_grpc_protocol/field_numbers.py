"""Numbers of fields in typed messages that are not fields of the model."""

PARAMS_NUMBER = 1000
"""Number of the params in an input message."""

ERROR_NUMBER = PARAMS_NUMBER + 1
"""Number of a record's error in the output message of a stream."""

EXTRA_NUMBER = PARAMS_NUMBER + 2
"""Number of the map, in the message of an open record, with the values that have no field."""

NULLS_NUMBER = 100_000
"""Offset from a column's number to that of the field with the indexes of its null rows."""

NULL_ITEMS_NUMBER = 2 * NULLS_NUMBER
"""Offset from the number of a list or map to that of the field with the indexes or keys of its null items."""
