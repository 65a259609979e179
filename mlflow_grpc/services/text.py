"""Service MLflow: a string in, a string out."""

import logging
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.engine.catalog import MODEL_KEY, Catalog
from mlflow_grpc.services.calls import Call, Calls

if TYPE_CHECKING:
    from mlflow_grpc.services.calls import Handlers

CONTENT_TYPE_KEY = "mlflow-content-type"
NAME = "MLflow"


class TextServicer:
    """`rpc predict(Input) returns (Output)` of mlflow.proto."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def arrive(self, call: Call) -> None:
        """Finds the model that a call is for, of which nothing has been read, and takes note of it or refuses it."""
        entry = self._catalog.find(call.metadata(MODEL_KEY))
        call.model, call.engine = entry.name, entry.engine
        entry.engine.admission.arrive()

    def depart(self, call: Call) -> None:
        """A call that arrived has ended."""
        call.engine.admission.depart()

    async def predict(self, request: Any, call: Call) -> Message:
        """Answers one payload; see `Engine.predict` for the errors."""
        answer = await call.engine.predict(
            request.value,
            content_type=call.metadata(CONTENT_TYPE_KEY),
            time_remaining_s=call.context.time_remaining(),
        )
        output: Message = protos.Output(value=answer)
        return output


def handlers(calls: Calls, catalog: Catalog) -> "Handlers":
    """The handlers of service MLflow."""
    servicer = TextServicer(catalog)
    return calls.handlers(protos.service(NAME), servicer, door=servicer, level=logging.INFO)
