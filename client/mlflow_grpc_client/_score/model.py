"""The model of a run: how it is called, and what identifies it.

Rule of this module: it calls the server before the first row is read.
"""

from typing import Any

import grpc
from _mlflow_grpc_protocol.typed_terms import RpcKind

from mlflow_grpc_client import Client, PredictError
from mlflow_grpc_client._models import Model
from mlflow_grpc_client._score.calls import CallOptions, Calls, JsonCalls, TypedCalls
from mlflow_grpc_client._score.errors import InvalidUsage
from mlflow_grpc_client._typed.contract import Contract

_UNTYPED_CODES = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


def calls_of(
    client: Client,
    name: str,
    *,
    params: dict[str, Any] | None,
    columns: tuple[str, ...] | None,
    prefix: str,
    timeout_s: float,
) -> tuple[Calls, dict[str, str]]:
    """The calls of a model, and what identifies it.

    A model with a version is called by it, so that a new version during the run is not mixed in.

    Raises:
        InvalidUsage: The model has to be named, or there is no such model.
        PredictError: No server answers.

    """
    contract = _contract(client, name, timeout_s)
    model = _model(client, name, contract, timeout_s)
    label = model.label if model is not None else name
    options = CallOptions(label, params, columns, prefix, timeout_s)
    identity = {"name": label}
    if model is not None:
        identity |= {"version": model.version, "uri": model.uri, "run_id": model.run_id, "model_id": model.model_id}
    if contract is None or RpcKind.BATCH not in contract.rpcs:
        return JsonCalls(client, options), identity
    return TypedCalls(client, contract, options), {**identity, "types": contract.fingerprint}


def _contract(client: Client, name: str, timeout_s: float) -> Contract | None:
    """The types of a model; None if it has none."""
    try:
        return client.model(name, timeout_s=timeout_s).contract()
    except PredictError as error:
        if error.code not in _UNTYPED_CODES:
            raise
        return None


def _model(client: Client, name: str, contract: Contract | None, timeout_s: float) -> Model | None:
    """The description of a model; None if the server has no descriptions."""
    try:
        models = client.models(timeout_s=timeout_s)
    except PredictError as error:
        if error.code is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        return None
    labels = ", ".join(model.label for model in models)
    if contract is not None:
        name = contract.label
    elif not name:
        if len(models) > 1:
            raise InvalidUsage(f"the server has several models, choose one with --model: {labels}")
        return models[0] if models else None
    for model in models:
        if name in (model.name, model.label):
            return model
    raise InvalidUsage(f"the server has no model {name}; it has {labels}")
