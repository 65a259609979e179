"""Getting the contract of a model from its server.

Rule of this module: it makes no call; what is to be asked is yielded, and the answers are sent to it.
"""

from collections.abc import Generator
from typing import Any

import grpc

from mlflow_grpc_client import _reflection, _wire
from mlflow_grpc_client._calls import Call, Learn
from mlflow_grpc_client._typed import contract, schemas
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client.errors import PredictError, failure


def learn(wanted: Learn) -> Generator[Call, Any, Contract]:
    """Asks what a model's messages are.

    Yields:
        Each call; send it what came, or throw the PredictError that came instead.

    Returns:
        The contract; the stale one, if it is true still.

    Raises:
        PredictError: There is no such model, it has no types, or the server does not tell them.

    """
    try:
        model = yield wanted.call(_wire.GET_MODEL, _wire.get_model_bytes(wanted.label), _wire.model_message)
    except PredictError as error:
        if error.code is not grpc.StatusCode.NOT_FOUND:
            raise
        models = yield wanted.call(_wire.LIST_MODELS, _wire.list_models_bytes(), _wire.models)
        there = ", ".join(each.label for each in models) or "none"
        said = f"There is no model {wanted.label}. There are: {there}."
        raise failure(error.code, said, reason=error.reason, request_id=error.request_id) from None
    contract.check_typed(model)
    if wanted.stale is not None and wanted.stale.about == contract.about(model):
        return wanted.stale
    pool = yield from _reflection.descriptors(contract.SERVICE, wanted.call)
    try:
        found = contract.contract_of(model, pool)
    except KeyError as error:
        said = f"The server's reflection lacks a message of the model {contract.label_of(model)}: {error.args[0]}"
        raise failure(grpc.StatusCode.INTERNAL, said) from None
    schemas.mark_contract(found, model)
    return found
