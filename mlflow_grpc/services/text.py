"""Service MLflow: a string in, a string out."""

import logging
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.engine.execution import Engine
from mlflow_grpc.services.calls import Call, Calls

if TYPE_CHECKING:
    from mlflow_grpc.services.calls import Handlers

CONTENT_TYPE_KEY = "mlflow-content-type"
NAME = "MLflow"


class TextServicer:
    """`rpc predict(Input) returns (Output)` of mlflow.proto."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def arrive(self, call: Call) -> None:
        """Takes note of a call of which nothing has been read, or refuses it."""
        call.model = self._engine.model_name
        self._engine.admission.arrive()

    def depart(self, call: Call) -> None:
        """A call that arrived has ended."""
        self._engine.admission.depart()

    async def predict(self, request: Any, call: Call) -> Message:
        """Answers one payload; see `Engine.predict` for the errors."""
        answer = await self._engine.predict(
            request.value,
            content_type=call.metadata(CONTENT_TYPE_KEY),
            time_remaining_s=call.context.time_remaining(),
        )
        output: Message = protos.Output(value=answer)
        return output


def handlers(calls: Calls, engine: Engine) -> "Handlers":
    """The handlers of service MLflow."""
    servicer = TextServicer(engine)
    return calls.handlers(protos.service(NAME), servicer, door=servicer, level=logging.INFO)
