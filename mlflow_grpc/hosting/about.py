"""What an MLflow model says of itself, out of its MLmodel file.

Rule of this module: whatever stands in the file, MLflow decides whether it is served. What cannot be understood is left
out, with a line that says so.
"""

import json
from typing import Any

from mlflow.models import ModelSignature
from mlflow.pyfunc import PyFuncModel

from mlflow_grpc.contract import json_schema, mlflow_schema
from mlflow_grpc.contract.examples import example_of
from mlflow_grpc.contract.types import Contract, Record, Tensor, has_tensors
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting import chat, type_hints
from mlflow_grpc.hosting.classes import one_line
from mlflow_grpc.hosting.model import About, SchemaTexts


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
    return About(
        flavors=flavors,
        run_id=_text(metadata.run_id),
        model_id=_text(getattr(metadata, "model_id", None)),  # Since MLflow 3.0.
        contract=contract,
        input=_texts(signature.get("inputs"), contract.inputs),
        output=_texts(signature.get("outputs"), contract.outputs),
        params=_texts(signature.get("params"), contract.params),
        deterministic=_is_deterministic(metadata.metadata),
        example=payload or _made_up(contract.inputs, is_hinted=item_hint is not None),
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


def _made_up(inputs: Record | Tensor | None, *, is_hinted: bool) -> str:
    if inputs is None:
        return ""
    example = example_of(json_schema.schema_of(inputs))
    if isinstance(inputs, Tensor) or has_tensors(inputs):
        return json.dumps({"inputs": example})
    if all(each.name for each in inputs.fields):
        return json.dumps({"dataframe_records": [example]})
    values = list(example.values())
    return json.dumps({"inputs": values} if is_hinted else {"dataframe_split": {"data": [values]}})
