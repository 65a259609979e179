"""Contracts of models with a chat API of MLflow, with the details that their signature does not have.

Rule of this module: MLflow's own classes define the fields of an answer and of its chunks.

All models of an API have the same signature from MLflow. It describes neither the chunks of an answer, which have a
class of their own, nor additional fields. An answer may have these, because a model may return a dict, which MLflow
checks and passes on with all of its keys. Some classes take additional keys too (`ChatUsage`, the items of a
`ResponsesAgentResponse`).
"""

from dataclasses import replace
from typing import Any

import mlflow.pyfunc
from mlflow.pyfunc import PyFuncModel
from mlflow.types.agent import ChatAgentChunk
from mlflow.types.llm import ChatCompletionChunk
from pydantic import TypeAdapter

from mlflow_grpc.contract import json_schema
from mlflow_grpc.contract.types import ANY_CHUNK, Contract, ListOf, MapOf, Record, Scalar, Type
from mlflow_grpc.hosting.pyfunc import internals

_CHUNKS: dict[type, Any] = {
    mlflow.pyfunc.ChatModel: ChatCompletionChunk,
    mlflow.pyfunc.ChatAgent: ChatAgentChunk,
    mlflow.pyfunc.ResponsesAgent: internals.ResponsesAgentStreamEvent,
}
"""Class of the chunks of an answer, by the base class of the model."""


def chunk_class(model: PyFuncModel) -> Any:
    """Returns the class of the chunks of a model's answers; None if the model has no chat API."""
    try:
        raw = model.get_raw_model()
    except Exception:  # noqa: BLE001 - most models have no raw model, and raise various errors
        return None
    return next((chunk for api, chunk in _CHUNKS.items() if isinstance(raw, api)), None)


def with_chunks(contract: Contract, model: PyFuncModel) -> Contract:
    """Returns the contract of a model's signature with the chunks of its answers added."""
    chunk = chunk_class(model)
    if chunk is None:
        return replace(contract, chunks=None if _returns_one_value(contract) else ANY_CHUNK)
    for record in (contract.inputs, contract.outputs):
        _without_undeclared_nulls(record, set())
    chunks = json_schema.record_of(TypeAdapter(chunk).json_schema(), "chunk")
    for record in (contract.outputs, chunks):
        _open(record, set())
    return replace(contract, chunks=chunks, takes_rows=False)


def _returns_one_value(contract: Contract) -> bool:
    """Returns True if the answer is one unnamed column, so that chunks are such values too, for example strings.

    The chunks of other models are strings or dicts, which is all that MLflow documents.
    """
    outputs = contract.outputs
    return isinstance(outputs, Record) and [(field.name, type(field.type)) for field in outputs.fields] == [
        ("", Scalar)
    ]


def _without_undeclared_nulls(field_type: Any, seen: set[int]) -> Any:
    """Returns a type whose lists and maps contain only declared nulls.

    MLflow's classes for chats take no others. Additional fields of an answer are in `extra`.
    """
    match field_type:
        case ListOf():
            items = _without_undeclared_nulls(field_type.items, seen)
            return replace(field_type, items=items, undeclared_nulls=False)
        case MapOf():
            return replace(
                field_type, values=_without_undeclared_nulls(field_type.values, seen), undeclared_nulls=False
            )
        case Record() if id(field_type) not in seen:
            seen.add(id(field_type))
            field_type.fields = [
                replace(field, type=_without_undeclared_nulls(field.type, seen)) for field in field_type.fields
            ]
    return field_type


def _open(field_type: Type | None, seen: set[int]) -> None:
    """Allows additional fields in a record and in its inner records; keeps only the first line of descriptions."""
    match field_type:
        case ListOf():
            _open(field_type.items, seen)
        case MapOf():
            _open(field_type.values, seen)
        case Record() if id(field_type) not in seen:
            seen.add(id(field_type))
            field_type.open, field_type.description = True, field_type.description.partition("\n")[0]
            for field in field_type.fields:
                _open(field.type, seen)
