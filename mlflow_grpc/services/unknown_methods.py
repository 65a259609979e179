"""Calls of methods that the server does not have.

Rule of this module: such calls are counted together, because callers choose their names.
"""

import grpc

from mlflow_grpc.errors import Status
from mlflow_grpc.telemetry.calls import GrpcMethod


class UnknownMethods(grpc.GenericRpcHandler):
    """Handler of no method; gRPC asks it last, and answers UNIMPLEMENTED."""

    def __init__(self, method_metrics: GrpcMethod | None) -> None:
        self._method_metrics = method_metrics

    def service(self, handler_call_details: "grpc.HandlerCallDetails") -> None:
        """Counts the call."""
        if self._method_metrics is not None:
            self._method_metrics.started += 1
            self._method_metrics.ended(Status.UNIMPLEMENTED, 0.0)
