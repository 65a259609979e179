"""The gate of the gRPC port: what methods belong to, and the check of a call before it is admitted.

Rule of this module: it passes metadata and certificates to `mlflow_grpc.access`, which decides.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from mlflow_grpc.access.gate import Gate
from mlflow_grpc.access.permits import Permit
from mlflow_grpc.choices import Service
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.services.grpc_call import GrpcCall


class Admission(Protocol):
    """What admitted a call, such as an engine."""

    def reserve_response(self, size: int, task: "asyncio.Task[object]") -> None:
        """Reserves room for a large response, as `Engine.reserve_response` does."""


Admit = Callable[[GrpcCall], AbstractContextManager[Admission | None]]
"""Admits a call before anything of its request is read; raises a ServingError to refuse it."""

_OPEN_INFERENCE, _FLIGHT = "/inference.GRPCInferenceService/", "/arrow.flight.protocol.FlightService/"

MODEL_READY = f"{_OPEN_INFERENCE}ModelReady"

_SERVICES = {
    "/grpc.health.": Service.HEALTH,
    f"{_OPEN_INFERENCE}ServerLive": Service.HEALTH,
    f"{_OPEN_INFERENCE}ServerReady": Service.HEALTH,
    MODEL_READY: Service.HEALTH,
    f"{_OPEN_INFERENCE}ModelInfer": Service.PREDICT,
    f"{_OPEN_INFERENCE}ModelStreamInfer": Service.PREDICT,
    f"{_OPEN_INFERENCE}RepositoryModelLoad": Service.RELOAD,
    _OPEN_INFERENCE: Service.MODELS,
    f"{_FLIGHT}DoExchange": Service.PREDICT,
    _FLIGHT: Service.MODELS,
    "/grpc.reflection.": Service.REFLECTION,
    "/mlflow_grpc.v1.Models/": Service.MODELS,
    "/model_grpc_service.ModelgRPCService/get_models": Service.MODELS,
}
"""What methods belong to, by the beginning of their paths; the first one counts. All others call a model."""


def service_of(path: str) -> Service:
    """Returns what a method belongs to, by its path."""
    return next((service for prefix, service in _SERVICES.items() if path.startswith(prefix)), Service.PREDICT)


def guarded(gate: Gate | None, path: str, admit: Admit) -> Admit:
    """Returns what recognizes the caller of a call before it admits the call.

    Args:
        gate: Recognizes callers; None if every caller may call.
        path: Path of the method.
        admit: Admits a call.

    """
    service = service_of(path)
    # What grpc.health.v1 answers depends on the request (`ModelHealth`).
    is_open = service is Service.HEALTH and not (path == MODEL_READY and gate is not None and gate.has_rules)
    if gate is None or is_open:
        return admit

    def recognize_and_admit(call: GrpcCall) -> AbstractContextManager[Admission | None]:
        call.permit = enter(gate, service, call)
        return admit(call)

    return recognize_and_admit


def enter(gate: Gate, service: Service, call: GrpcCall) -> Permit:
    """Returns the permit of the caller of a call; raises the errors of `Gate.enter`."""
    return gate.enter(service, call.authorizations(), call.certificate_names)


def check_model(call: GrpcCall, entry: Entry) -> None:
    """Raises PermissionDenied if the caller may not use the method of a call for a model."""
    if call.permit is not None:
        call.permit.check_model(service_of(call.method), entry.name, entry.version)


def call_model(call: GrpcCall, entry: Entry) -> None:
    """Notes the model that a call is for, and the version that answers; raises PermissionDenied as `check_model`."""
    call.model, call.version_trailers = entry.name, entry.version_trailers
    check_model(call, entry)


def visible(call: GrpcCall, entries: list[Entry]) -> list[Entry]:
    """Returns the models that the method of a call may show to its caller."""
    return entries if call.permit is None else call.permit.visible(service_of(call.method), entries)
