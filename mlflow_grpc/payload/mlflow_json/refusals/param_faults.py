"""Faults of the params of a payload.

Rule of this module: MLflow judges each param by itself.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from mlflow.types import ParamSchema, ParamSpec

from mlflow_grpc.errors import FieldViolation
from mlflow_grpc.payload.mlflow_json.refusals import json_terms, value_faults


def violations(schema: ParamSchema | None, params: Any, *, is_bare: bool) -> Iterator[FieldViolation]:
    """Yields the params that MLflow refuses.

    Args:
        schema: The model's params schema; None if it has none.
        params: The value in the payload; None if it has no params.
        is_bare: True if the params are in the payload itself, without the key `params`.

    """
    if schema is None or params is None:
        return
    if not isinstance(params, dict):
        yield FieldViolation("params", f"must be an object, is {json_terms.article(params)}")
        return
    for spec in schema.params:
        if spec.name in params and not _is_accepted(spec, params[spec.name]):
            path = f"{'' if is_bare else 'params'}{json_terms.step(spec.name)}".lstrip(".")
            for fault in value_faults.within_param(params[spec.name], spec, path, partial(_is_accepted, spec)):
                yield FieldViolation(f"params.{spec.name}", str(fault))


def _is_accepted(spec: ParamSpec, value: Any) -> bool:
    try:
        ParamSpec.validate_param_spec(value, spec)
    except Exception:  # noqa: BLE001 - MLflow's server refuses params for every exception
        return False
    return True
