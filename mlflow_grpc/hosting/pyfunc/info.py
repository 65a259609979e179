"""What an MLflow model says of itself, out of its MLmodel file.

Rule of this module: whatever stands in the file, MLflow decides whether it is served. What cannot be understood is left
out, with a line that says so.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pydantic
from mlflow.models import ModelSignature
from mlflow.pyfunc import PyFuncModel

from mlflow_grpc.contract import json_schema, mlflow_schema
from mlflow_grpc.contract.examples import example_of
from mlflow_grpc.contract.types import Contract, Record, Tensor, has_tensors
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.hosting.model import About, SchemaTexts
from mlflow_grpc.hosting.pyfunc import chat, internals, type_hints

_MOST_CHECKED = 100_000
"""The characters of an example that MLflow is asked about: `--describe` shows no longer ones."""


def about_of(model: PyFuncModel, flavors: tuple[str, ...], payload: str, item_hint: Any) -> About:
    """What a loaded model says of itself.

    Args:
        model: The model.
        flavors: Those that it was logged with.
        payload: The example that was logged with it, as a payload; empty if there is none.
        item_hint: The type of one item of the input, if MLflow validates by a type hint.

    Raises:
        StartError: Its signature is not one that any call to it could be checked against.

    """
    metadata = model.metadata
    if metadata.signature is not None and not isinstance(metadata.signature, ModelSignature):
        raise StartError("the signature in its MLmodel file is no mapping")
    signature = metadata.signature.to_dict() if metadata.signature is not None else {}
    contract = _contract_of(signature, model, item_hint)
    example, is_typed = _example(model, payload, contract.inputs, item_hint)
    return About(
        flavors=flavors,
        run_id=_text(metadata.run_id),
        model_id=_text(getattr(metadata, "model_id", None)),  # Since MLflow 3.0.
        contract=contract,
        input=_texts(signature.get("inputs"), contract.inputs),
        output=_texts(signature.get("outputs"), contract.outputs),
        params=_texts(signature.get("params"), contract.params),
        deterministic=_is_deterministic(metadata.metadata),
        example=example,
        is_example_typed=is_typed,
        logged_example=payload,
    )


def _contract_of(signature: dict[str, Any], model: PyFuncModel, item_hint: Any) -> Contract:
    """The contract of a signature; one of nothing but an obstacle, if the signature has what no message can hold."""
    try:
        return type_hints.refined(chat.completed(mlflow_schema.contract_of(signature), model), item_hint)
    except mlflow_schema.UnknownTypeError as error:
        return Contract(obstacle=str(error))
    except Exception as error:  # noqa: BLE001 - MLflow takes the signature, and so is the model served
        return Contract(obstacle=f"its signature is not understood: {one_line(error)}")


def _text(value: Any) -> str:
    """A value as text: YAML makes numbers of ids that look like one."""
    return "" if value is None else str(value)


def _is_deterministic(metadata: Any) -> bool | None:
    deterministic = metadata.get("deterministic") if isinstance(metadata, dict) else None
    return deterministic if isinstance(deterministic, bool) else None


def _texts(mlflow_json: str | None, part: Record | Tensor | None) -> SchemaTexts:
    return SchemaTexts(mlflow_json or "", json_schema.text_of(json_schema.schema_of(part)) if part is not None else "")


def _example(model: PyFuncModel, payload: str, inputs: Record | Tensor | None, item_hint: Any) -> tuple[str, bool]:
    """A payload to start from, and whether MLflow refuses it and all others that could be made up.

    The one that was logged comes first, then its first row alone: MLflow refuses points in time that are written in
    different ways in one column.
    """
    if len(payload) > _MOST_CHECKED:
        return payload, False
    known = [payload, _first_row(payload)] if payload else []
    for text in known:
        if _is_taken(model, text, item_hint):
            return text, False
    for text in _made_up(inputs, item_hint):
        if _is_taken(model, text, item_hint):
            return text, False
        known.append(text)
    return (known[0], True) if known else ("", False)


def _first_row(payload: str) -> str:
    """A table with the first of its rows; another payload as it is."""
    with contextlib.suppress(ValueError, RecursionError):  # The file may hold anything.
        match json.loads(payload):
            case {"dataframe_split": {"columns": columns, "data": [first, *_]}}:
                return json.dumps({"dataframe_split": {"columns": columns, "data": [first]}})
    return payload


def _made_up(inputs: Record | Tensor | None, item_hint: Any) -> Iterator[str]:
    """Payloads that may fit, the best one first."""
    if inputs is None:
        return
    example = example_of(json_schema.schema_of(inputs))
    fields = example if isinstance(example, dict) else {}
    if isinstance(inputs, Tensor) or has_tensors(inputs):
        yield json.dumps({"inputs": example})
    elif item_hint is not None:
        yield json.dumps({"inputs": list(fields.values())})
        with contextlib.suppress(pydantic.errors.PydanticUserError):  # A class that has no JSON Schema.
            # The contract has the types of fields. What else they have to fulfil stands in the schema of the hint.
            yield json.dumps({"inputs": [example_of(pydantic.TypeAdapter(item_hint).json_schema())]})
    elif all(each.name for each in inputs.fields):
        yield json.dumps({"dataframe_records": [example]})
        if not any(each.required for each in inputs.fields):
            # One of them may be what MLflow takes no JSON for.
            yield from (json.dumps({"dataframe_records": [{name: value}]}) for name, value in fields.items())
            yield json.dumps({"dataframe_records": [{}]})
    else:
        yield json.dumps({"dataframe_split": {"data": [list(fields.values())]}})


def _is_taken(model: PyFuncModel, payload: str, item_hint: Any) -> bool:
    """Whether a payload passes MLflow's checks, as far as they come before the model."""
    schema = model.metadata.get_input_schema()
    try:
        parsed = internals.parse_json(payload.encode(), model.metadata, schema)
        if parsed.is_unified_llm_input:
            return True
        if item_hint is not None:
            return not any(problem for item in parsed.data for problem in type_hints.problems(item_hint, item))
        if schema is not None:
            internals.enforce_schema(parsed.data, schema, model.loader_module)
    except Exception:  # noqa: BLE001 - a refusal, whatever is raised
        return False
    return True
