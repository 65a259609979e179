"""CSV as MLflow reads it, and with its dates parsed where the owner wants that.

Rule of this module: MLflow reads and MLflow casts. pandas refuses the type datetime for a column of CSV, and MLflow
with it; a date comes to the same here as in `dataframe_split`.
"""

from io import StringIO
from typing import Any

from mlflow.types import ColSpec, DataType, Schema

from mlflow_grpc.hosting.pyfunc import internals


def read(text: str, schema: Schema | None, *, dates: bool) -> Any:
    """The table in a text; raises what MLflow raises.

    Args:
        text: The CSV, with a line of names.
        schema: What the model takes; None if it says nothing.
        dates: Whether columns of points in time are parsed.

    """
    if not dates or schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return internals.parse_csv_input(StringIO(text), schema=schema)
    moments = [spec for spec in schema if spec.type == DataType.datetime]
    texts = [ColSpec(DataType.string, spec.name, spec.required) if spec in moments else spec for spec in schema]
    frame = internals.parse_csv_input(StringIO(text), schema=Schema(texts))
    return internals.cast_columns(frame, Schema(moments)) if moments else frame
