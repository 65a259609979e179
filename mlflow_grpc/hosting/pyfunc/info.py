"""Information about an MLflow model, from its MLmodel file.

Rule of this module: MLflow decides whether the server can serve a model, even if its file has unknown content. This
module omits content that it does not understand, and the contract has an obstacle that reports it.
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
from mlflow_grpc.hosting.model import ModelInfo, SchemaTexts
from mlflow_grpc.hosting.pyfunc import chat, payload_check, type_hints

_MAX_CHECKED_CHARACTERS = 100_000
"""Maximum length of an example that MLflow checks, because `--describe` does not show longer ones."""


def info_of(model: PyFuncModel, flavors: tuple[str, ...], payload: str, item_hint: Any) -> ModelInfo:
    """Collects the information about a loaded model.

    Args:
        model: The model.
        flavors: The flavors that the model was logged with.
        payload: The example that was logged with the model, as a payload. Empty if there is none.
        item_hint: The type of one item of the input, if MLflow validates with a type hint.

    Raises:
        StartError: The signature has an invalid form, so that no call could be checked.

    """
    metadata = model.metadata
    if metadata.signature is not None and not isinstance(metadata.signature, ModelSignature):
        raise StartError("the signature in its MLmodel file is not a mapping")
    signature = metadata.signature.to_dict() if metadata.signature is not None else {}
    contract = _contract_of(signature, model, item_hint)
    example, is_typed = _example(model, payload, contract.inputs, item_hint)
    return ModelInfo(
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
    """Returns the contract of a signature; it has only an obstacle if no message can hold the signature's types."""
    try:
        return type_hints.refined(chat.with_chunks(mlflow_schema.contract_of(signature), model), item_hint)
    except mlflow_schema.UnknownTypeError as error:
        return Contract(obstacle=str(error))
    except Exception as error:  # noqa: BLE001 - MLflow takes the signature, so the model is served
        return Contract(obstacle=f"its signature is not understood: {one_line(error)}")


def _text(value: Any) -> str:
    """Returns a value as text, because YAML reads an id that looks like a number as a number."""
    return "" if value is None else str(value)


def _is_deterministic(metadata: Any) -> bool | None:
    deterministic = metadata.get("deterministic") if isinstance(metadata, dict) else None
    return deterministic if isinstance(deterministic, bool) else None


def _texts(mlflow_json: str | None, fields: Record | Tensor | None) -> SchemaTexts:
    schema = json_schema.text_of(json_schema.schema_of(fields)) if fields is not None else ""
    return SchemaTexts(mlflow_json or "", schema)


def _example(model: PyFuncModel, payload: str, inputs: Record | Tensor | None, item_hint: Any) -> tuple[str, bool]:
    """Returns an example payload, and True if MLflow refuses it and all other candidates.

    The candidates are the logged payload, then its first row, then generated payloads. The first row alone is tried
    because MLflow refuses a column of timestamps in different formats.
    """
    if len(payload) > _MAX_CHECKED_CHARACTERS:
        return payload, False
    candidates = [payload, _first_row(payload)] if payload else []
    for text in candidates:
        if payload_check.is_taken(model.metadata, text, item_hint=item_hint, loader_module=model.loader_module):
            return text, False
    for text in _generated_payloads(inputs, item_hint):
        if payload_check.is_taken(model.metadata, text, item_hint=item_hint, loader_module=model.loader_module):
            return text, False
        candidates.append(text)
    return (candidates[0], True) if candidates else ("", False)


def _first_row(payload: str) -> str:
    """Returns a table with only its first row; other payloads are returned unchanged."""
    with contextlib.suppress(ValueError, RecursionError):  # The file may hold anything.
        match json.loads(payload):
            case {"dataframe_split": {"columns": columns, "data": [first, *_]}}:
                return json.dumps({"dataframe_split": {"columns": columns, "data": [first]}})
    return payload


def _generated_payloads(inputs: Record | Tensor | None, item_hint: Any) -> Iterator[str]:
    """Yields payloads that may fit, the best one first."""
    if inputs is None:
        return
    example = example_of(json_schema.schema_of(inputs))
    fields = example if isinstance(example, dict) else {}
    if isinstance(inputs, Tensor) or has_tensors(inputs):
        yield json.dumps({"inputs": example})
    elif item_hint is not None:
        yield json.dumps({"inputs": list(fields.values())})
        with contextlib.suppress(pydantic.errors.PydanticUserError):  # A class that has no JSON Schema.
            # The contract has only the types of fields. Their other constraints are in the schema of the hint.
            yield json.dumps({"inputs": [example_of(pydantic.TypeAdapter(item_hint).json_schema())]})
    elif all(field.name for field in inputs.fields):
        yield json.dumps({"dataframe_records": [example]})
        if not any(field.required for field in inputs.fields):
            # MLflow may take no JSON for one of the fields.
            yield from (json.dumps({"dataframe_records": [{name: value}]}) for name, value in fields.items())
            yield json.dumps({"dataframe_records": [{}]})
    else:
        yield json.dumps({"dataframe_split": {"data": [list(fields.values())]}})
