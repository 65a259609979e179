"""CSV as MLflow reads it, optionally with its dates parsed.

Rule of this module: MLflow reads and casts. Dates need a step of their own because pandas, and therefore MLflow,
refuses the type datetime for a column of CSV. A date in CSV gets the same value as in `dataframe_split`.
"""

from io import StringIO
from typing import Any

from mlflow.types import ColSpec, DataType, Schema

from mlflow_grpc.hosting.pyfunc import internals


def read(text: str, schema: Schema | None, *, dates: bool) -> Any:
    """Returns the table in a text.

    Args:
        text: The CSV, with a line of names.
        schema: The model's input schema; None if it has none.
        dates: True if columns of points in time are parsed.

    Raises:
        Exception: Any exception of MLflow's parser, which is a refusal.

    """
    if not dates or schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return internals.parse_csv_input(StringIO(text), schema=schema)
    moments = [spec for spec in schema if spec.type == DataType.datetime]
    texts = [ColSpec(DataType.string, spec.name, spec.required) if spec in moments else spec for spec in schema]
    frame = internals.parse_csv_input(StringIO(text), schema=Schema(texts))
    return internals.cast_columns(frame, Schema(moments)) if moments else frame
