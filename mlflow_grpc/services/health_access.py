"""Who may see the health of which models, over gRPC.

Rule of this module: the health of the server and of its services is open to everyone, because probes and load balancers
have no token. Names of models are listed only to callers that may see these models. With rules, so is their health.
"""

from mlflow_grpc.access.gate import Gate
from mlflow_grpc.choices import Service
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.guard import enter
from mlflow_grpc.services.health import health_names


class HealthAccess:
    """Decides what health checks show of the models of a catalog."""

    def __init__(self, gate: Gate, catalog: Catalog) -> None:
        self._gate = gate
        self._catalog = catalog

    def check(self, name: str, call: GrpcCall) -> None:
        """Checks whether a caller may see the health of the models of a name, or of a name that no model has.

        Raises:
            Unauthenticated: There are rules, and the caller is not recognized.
            PermissionDenied: There are such models, and the caller may see none of them.

        """
        if not self._gate.has_rules:
            return
        permit = call.permit
        if permit is None:
            permit = call.permit = enter(self._gate, Service.HEALTH, call)
        entries = [entry for entry in self._catalog.entries if name in health_names(entry)]
        if entries and not permit.visible(Service.HEALTH, entries):
            permit.check_model(Service.HEALTH, entries[0].name, entries[0].version)

    def visible(self, call: GrpcCall) -> set[str]:
        """Returns the names of the models that a caller may see; none if the caller is not recognized."""
        permit = call.permit or self._gate.recognized(call.authorizations(), call.certificate_names)
        if permit is None:
            return set()
        entries = permit.visible(Service.HEALTH, self._catalog.entries)
        return {name for entry in entries for name in health_names(entry)}
