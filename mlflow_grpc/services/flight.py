"""Service arrow.flight.protocol.FlightService: models for Arrow Flight clients.

Rule of this module: it translates between Flight's messages and the engine. pyarrow is imported at the first call that
needs it, in a thread, so that a server without such callers does not pay for it.
"""

import json
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NoReturn

import grpc
from _mlflow_grpc_protocol.metadata import MODEL_KEY
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from mlflow_grpc import protos
from mlflow_grpc.calls.challengers import answering
from mlflow_grpc.engine import tables
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.errors import InvalidMessage, InvalidPayload, Unsupported
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.flight_data import FlightData
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.guard import call_model, check_model, visible
from mlflow_grpc.services.health import HealthServicer

if TYPE_CHECKING:
    from mlflow_grpc.payload.arrow.model import TableModel
    from mlflow_grpc.protos.arrow.flight import flight_pb2 as pb
    from mlflow_grpc.services.dispatch import Handlers

NAME = "arrow.flight.protocol.FlightService"

_ACTIONS = {
    "health": 'Health of a model by its name, or of the server for an empty body: {"status": "SERVING"}.',
    "params": "The params of a model by its name, as MLflow's JSON: a list with name, type, default and shape.",
}

_PACKAGE = "arrow.flight.protocol"

_FlightInfo: "type[pb.FlightInfo]" = protos.message_named(f"{_PACKAGE}.FlightInfo")
_SchemaResult: "type[pb.SchemaResult]" = protos.message_named(f"{_PACKAGE}.SchemaResult")
_Descriptor: "type[pb.FlightDescriptor]" = protos.message_named(f"{_PACKAGE}.FlightDescriptor")
_HandshakeResponse: "type[pb.HandshakeResponse]" = protos.message_named(f"{_PACKAGE}.HandshakeResponse")
_ActionType: "type[pb.ActionType]" = protos.message_named(f"{_PACKAGE}.ActionType")
_Result: "type[pb.Result]" = protos.message_named(f"{_PACKAGE}.Result")


class FlightServicer:
    """Answers Flight clients for the models of a catalog."""

    def __init__(self, catalog: Catalog, health: HealthServicer, max_message_bytes: int) -> None:
        """Starts without models.

        Args:
            catalog: The models.
            health: The health of server and models.
            max_message_bytes: Maximum size of a message, in bytes.

        """
        self._catalog = catalog
        self._health = health
        self._max_bytes = max_message_bytes

    async def DoExchange(self, messages: AsyncIterator[FlightData], call: GrpcCall) -> None:
        """Answers each record batch of a stream, in order; raises the errors of `Engine.submit`."""
        try:
            first = await anext(messages)
        except StopAsyncIteration:
            raise InvalidMessage("The exchange has no message. Begin it with a descriptor and a schema.") from None
        entry, params = self._target(first.flight_descriptor, call)
        entry = answering(call, entry)
        with entry.engine.open_stream() as engine:
            model = await self._model(entry)
            from mlflow_grpc.services.flight_exchange import Exchange

            await Exchange(model, params, self._max_bytes, engine, call).answer(_Resumed(first, messages))

    async def GetFlightInfo(self, descriptor: "pb.FlightDescriptor", call: GrpcCall) -> Message:
        """Describes a model."""
        return await self._info(self._target(descriptor, call)[0], descriptor)

    async def GetSchema(self, descriptor: "pb.FlightDescriptor", call: GrpcCall) -> Message:
        """Returns the input schema of a model; raises Unsupported if its signature has none."""
        entry, _ = self._target(descriptor, call)
        schema = (await self._model(entry)).input_schema
        if schema is None:
            raise Unsupported(f"The model {entry.name} has no signature, so the columns that it takes are unknown.")
        return _SchemaResult(schema=schema.serialize().to_pybytes())

    async def ListFlights(self, criteria: "pb.Criteria", call: GrpcCall) -> None:
        """Writes a description of each model that can be called."""
        name = _text(criteria.expression, "The expression of ListFlights")
        for entry in visible(call, self._catalog.entries):
            if entry.state is State.READY and entry.config.endpoint and name in ("", entry.name, entry.label):
                await call.write(
                    await self._info(entry, _Descriptor(type=_Descriptor.PATH, path=entry.label.split("/")))
                )

    async def DoAction(self, action: "pb.Action", call: GrpcCall) -> None:
        """Writes the result of an action."""
        name = _text(action.body, "The body of an action")
        if action.type == "health":
            response = await self._health.Check(health_pb2.HealthCheckRequest(service=name), call)
            result = {"status": health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)}
        elif action.type == "params":
            entry = self._catalog.resolve(name)
            check_model(call, entry)
            result = json.loads(entry.engine.model.model.info.params.mlflow_json or "[]")
        else:
            raise Unsupported(f"There is no such action. There are: {', '.join(_ACTIONS)}.")
        await call.write(_Result(body=json.dumps(result).encode()))

    async def ListActions(self, request: "pb.Empty", call: GrpcCall) -> None:
        """Writes the actions."""
        for name, description in _ACTIONS.items():
            await call.write(_ActionType(type=name, description=description))

    async def Handshake(self, requests: "AsyncIterator[pb.HandshakeRequest]", call: GrpcCall) -> None:
        """Lets everybody in."""
        async for _ in requests:
            await call.write(_HandshakeResponse())

    async def DoGet(self, request: "pb.Ticket", call: GrpcCall) -> NoReturn:
        """Refuses the call."""
        raise Unsupported(
            "This server keeps no tables to get. Send the input to DoExchange, which returns predictions."
        )

    async def DoPut(self, requests: "AsyncIterator[pb.FlightData]", call: GrpcCall) -> NoReturn:
        """Refuses the call."""
        raise Unsupported("This server keeps no tables. Send the input to DoExchange, which returns predictions.")

    async def PollFlightInfo(self, request: "pb.FlightDescriptor", call: GrpcCall) -> NoReturn:
        """Refuses the call."""
        raise Unsupported("Nothing runs in the background here. Call GetFlightInfo.")

    def _target(self, descriptor: "pb.FlightDescriptor", call: GrpcCall) -> tuple[Entry, dict[str, object] | None]:
        """Returns the model of a descriptor, and the params in it.

        Raises:
            PermissionDenied: The caller may not use the model.
            InvalidPayload: The descriptor's command is not valid.

        """
        if descriptor.type != _Descriptor.CMD:
            return self._called("/".join(descriptor.path), call), None
        try:
            command = json.loads(descriptor.cmd)
        except (ValueError, RecursionError):
            command = None
        model = command.get("model", "") if isinstance(command, dict) else None
        params = command.get("params") if isinstance(command, dict) else None
        is_known = isinstance(command, dict) and command.keys() <= {"model", "params"}
        if not is_known or not isinstance(model, str) or not isinstance(params, dict | None):
            raise InvalidPayload(
                'The command of a descriptor must be a JSON object like {"model": "name", "params": {"top_k": 3}}.'
            )
        return self._called(model, call), params

    def _called(self, label: str, call: GrpcCall) -> Entry:
        """Returns the model of a label; without one, the metadata may name the model."""
        call.names_version = "/" in label
        entry = self._catalog.resolve(label or call.metadata(MODEL_KEY))
        call_model(call, entry)
        return entry

    async def _model(self, entry: Entry) -> "TableModel":
        return await tables.table_model(entry.engine.model, self._max_bytes)

    async def _info(self, entry: Entry, descriptor: "pb.FlightDescriptor") -> "pb.FlightInfo":
        model = await self._model(entry)
        schemas = [
            b"" if schema is None else schema.serialize().to_pybytes()
            for schema in (model.writer.schema, model.input_schema)
        ]
        return _FlightInfo(
            schema=schemas[0],
            flight_descriptor=descriptor,
            total_records=-1,
            total_bytes=-1,
            ordered=True,
            app_metadata=schemas[1],
        )


class _Resumed(AsyncIterator[FlightData]):
    """A stream of which the first message has been read, from its beginning."""

    def __init__(self, first: FlightData, messages: AsyncIterator[FlightData]) -> None:
        self._first: FlightData | None = first
        self._messages = messages

    async def __anext__(self) -> FlightData:
        if (first := self._first) is not None:
            self._first = None
            return first
        return await anext(self._messages)


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidPayload(f"{where} must be a model's name, in UTF-8.") from None


def handlers(dispatcher: RpcDispatcher, servicer: FlightServicer) -> "Handlers":
    """Makes the handlers of service FlightService."""
    rpcs = {}
    for method in protos.service(NAME).methods:
        path, answer = f"/{NAME}/{method.name}", getattr(servicer, method.name)
        if method.name == "DoExchange":  # The only one that calls a model.
            rpcs[method.name] = dispatcher.handler(path, method, answer, logging.INFO, FlightData)
        else:
            rpcs[method.name] = dispatcher.handler(path, method, answer)
    return grpc.method_handlers_generic_handler(NAME, rpcs)
