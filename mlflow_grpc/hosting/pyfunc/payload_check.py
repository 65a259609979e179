"""Checks that MLflow makes before it calls a model.

Rule of this module: it runs no model.
"""

from typing import Any

from mlflow.models import Model

from mlflow_grpc.hosting.pyfunc import internals, type_hints


def is_taken(metadata: Model, payload: str, *, item_hint: Any, loader_module: str | None) -> bool:
    """Returns True if JSON passes the checks.

    Args:
        metadata: The model's metadata.
        payload: JSON in one of MLflow's formats.
        item_hint: Type of one item of the input, if MLflow validates by a type hint.
        loader_module: The module that loads the model's flavor.

    """
    try:
        parsed = internals.parse_json(payload.encode(), metadata, metadata.get_input_schema())
    except Exception:  # noqa: BLE001 - any exception is a refusal
        return False
    if parsed.is_unified_llm_input:
        return True
    return fits(metadata, parsed.data, item_hint=item_hint, loader_module=loader_module)


def fits(metadata: Model, data: Any, *, item_hint: Any, loader_module: str | None) -> bool:
    """Returns True if parsed data passes the checks of the signature or the type hint; see `is_taken`."""
    schema = metadata.get_input_schema()
    try:
        if item_hint is not None:
            return not any(problem for item in data for problem in type_hints.problems(item_hint, item))
        if schema is not None:
            internals.enforce_schema(data, schema, loader_module)
    except Exception:  # noqa: BLE001 - any exception is a refusal
        return False
    return True
