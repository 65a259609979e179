"""The columns for which MLflow refuses a row that fits the schema of its model.

Rule of this module: MLflow judges each column by itself. The texts contain no values.
"""

import json
from typing import Any

from mlflow.models import Model
from mlflow.types import Schema

from mlflow_grpc.errors import FieldViolation
from mlflow_grpc.hosting.mlmodel.schemas import RecordRefused
from mlflow_grpc.hosting.pyfunc import internals

MISFIT = "The row does not fit the model's signature."


def refusal_of(row: dict[str, Any], path: str, metadata: Model, flavor: str | None) -> RecordRefused:
    """Returns the error for a row that MLflow refuses; it names the columns that are refused by themselves.

    Args:
        row: The row as JSON has it.
        path: Path of the row, such as `[2]`; empty if there is only one.
        metadata: The metadata of the model.
        flavor: The module that loads the model.

    """
    violations = tuple(
        FieldViolation(f"{path}.{spec.name}".strip("."), _problem(row[spec.name], spec))
        for spec in metadata.get_input_schema() or ()
        if spec.name in row and _is_refused(row[spec.name], spec, metadata, flavor)
    )
    listed = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return RecordRefused(listed or f"{path}: {MISFIT}".removeprefix(": "), violations)


def _is_refused(value: Any, spec: Any, metadata: Model, flavor: str | None) -> bool:
    schema, text = Schema([spec]), json.dumps({"dataframe_records": [{spec.name: value}]})
    try:
        internals.enforce_schema(internals.parse_json(text.encode(), metadata, schema).data, schema, flavor)
    except Exception:  # noqa: BLE001 - MLflow's server refuses a payload for every exception
        return True
    return False


def _problem(value: Any, spec: Any) -> str:
    if value is not None:
        return f"does not fit the column; must be {spec.type!r}"
    return f"is null; must be {spec.type!r}{'' if spec.required else '; or leave it out'}"
