"""The gate of the gRPC port: what methods belong to, and the check of a call before it is admitted.

Rule of this module: it passes metadata and certificates to `mlflow_grpc.access`, which decides.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from _mlflow_grpc_protocol.metadata import AUTHORIZATION_KEY

from mlflow_grpc.access.gate import Gate
from mlflow_grpc.choices import Service
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.services.grpc_call import GrpcCall

Admit = Callable[[GrpcCall], AbstractContextManager[Engine]]
"""Admits a call before anything of its request is read; raises a ServingError to refuse it."""

_SERVICES = {"/grpc.health.": Service.HEALTH, "/grpc.reflection.": Service.REFLECTION}


def service_of(path: str) -> Service:
    """Returns what a method that calls no model belongs to; the description of models, if nothing else."""
    return next((service for prefix, service in _SERVICES.items() if path.startswith(prefix)), Service.MODELS)


def guarded(gate: Gate | None, service: Service, admit: Admit) -> Admit:
    """Returns what recognizes the caller of a call before it admits the call.

    Args:
        gate: Recognizes callers; None if every caller may call.
        service: What the calls use.
        admit: Admits a call.

    """
    if gate is None or service is Service.HEALTH:
        return admit

    def recognize_and_admit(call: GrpcCall) -> AbstractContextManager[Engine]:
        call.permit = gate.enter(service, call.metadata(AUTHORIZATION_KEY), call.certificate_names)
        return admit(call)

    return recognize_and_admit


def check_model(gate: Gate | None, call: GrpcCall, entry: Entry) -> None:
    """Raises PermissionDenied if the caller of a call may not call a model."""
    if gate is not None and call.permit is not None:
        gate.check_model(call.permit, entry.name, entry.version)
