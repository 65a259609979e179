"""The chat APIs of MLflow, and what the signature of a model of one of them does not say.

Rule of this module: MLflow's own classes say what an answer and a part of it hold.

MLflow gives all models of an API one signature. It has no word for the parts of an answer, which are of a class of
their own, and none for what answers may have beside its fields: models may give dicts, which MLflow checks and hands on
with all that they have, and the classes take further keys (`ChatUsage`, the items of a `ResponsesAgentResponse`).
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
"""What a part of an answer is, by the class that a model derives from."""


def chunk_class(model: PyFuncModel) -> Any:
    """The class of the parts of a model's answers; None if it is of no chat API."""
    try:
        raw = model.get_raw_model()
    except Exception:  # noqa: BLE001 - most models have none, and say so in different ways
        return None
    return next((chunk for api, chunk in _CHUNKS.items() if isinstance(raw, api)), None)


def completed(contract: Contract, model: PyFuncModel) -> Contract:
    """The contract of a model's signature with what is known of the parts of its answers."""
    chunk = chunk_class(model)
    if chunk is None:
        return replace(contract, chunks=None if _gives_one_value(contract) else ANY_CHUNK)
    for record in (contract.inputs, contract.outputs):
        _without_nulls_beside(record, set())
    chunks = json_schema.record_of(TypeAdapter(chunk).json_schema(), "chunk")
    for record in (contract.outputs, chunks):
        _open(record, set())
    return replace(contract, chunks=chunks, takes_rows=False)


def _gives_one_value(contract: Contract) -> bool:
    """Whether the answer is one column without a name: its parts are taken for such values too, texts for one.

    MLflow says of the parts of other models only that they are texts or dicts.
    """
    outputs = contract.outputs
    return isinstance(outputs, Record) and [(each.name, type(each.type)) for each in outputs.fields] == [("", Scalar)]


def _without_nulls_beside(kind: Any, seen: set[int]) -> Any:
    """A type whose lists and maps have no nulls but those that it tells.

    MLflow's classes for chats take no others, and what an answer has beside its fields stands in `extra`.
    """
    match kind:
        case ListOf():
            return replace(kind, items=_without_nulls_beside(kind.items, seen), undeclared_nulls=False)
        case MapOf():
            return replace(kind, values=_without_nulls_beside(kind.values, seen), undeclared_nulls=False)
        case Record() if id(kind) not in seen:
            seen.add(id(kind))
            kind.fields = [replace(each, type=_without_nulls_beside(each.type, seen)) for each in kind.fields]
    return kind


def _open(kind: Type | None, seen: set[int]) -> None:
    """Lets a record, and those in it, have other fields too; of a description it keeps what is said in one line."""
    match kind:
        case ListOf():
            _open(kind.items, seen)
        case MapOf():
            _open(kind.values, seen)
        case Record() if id(kind) not in seen:
            seen.add(id(kind))
            kind.open, kind.description = True, kind.description.partition("\n")[0]
            for each in kind.fields:
                _open(each.type, seen)
