"""Where calls to models come in and go out, before anything of them is read.

Rule of this module: a call is counted by the model that it is for from the moment that it is there; what comes in a
stream is counted one by one, when it comes (`Engine.begin`).
"""

from collections.abc import Callable

from mlflow_grpc.engine.catalog import MODEL_KEY, Catalog, Entry
from mlflow_grpc.engine.execution import Engine
from mlflow_grpc.errors import ContractChanged
from mlflow_grpc.services.calls import Call

CONTRACT_KEY = "mlflow-contract"

Find = Callable[[Call], Engine]
"""Finds the engine for a call and tells it to the call; raises a ServingError if there is none."""


def named(catalog: Catalog) -> Find:
    """Finds the model that the metadata of a call name.

    What it gives raises what `Catalog.find` raises.
    """
    return lambda call: _found(call, catalog.find(call.metadata(MODEL_KEY)))


def only(entry: Entry, fingerprint: str) -> Find:
    """Finds one model, for calls in its own messages.

    What it gives raises ContractChanged for a call that was written for others than those of the fingerprint.
    """

    def find(call: Call) -> Engine:
        if call.metadata(CONTRACT_KEY) not in (None, fingerprint):
            raise ContractChanged(
                f"The typed messages of the model {entry.name} are not those that this call was written for. Ask the "
                "server's reflection for them again."
            )
        return _found(call, entry)

    return find


def _found(call: Call, entry: Entry) -> Engine:
    call.model, call.engine = entry.name, entry.engine
    return entry.engine


class CallDoor:
    """For calls."""

    def __init__(self, find: Find) -> None:
        self._find = find

    def arrive(self, call: Call) -> None:
        """Finds the model that a call is for and takes note of it, or refuses it."""
        self._find(call).admission.arrive(call.context.time_remaining)

    def depart(self, call: Call) -> None:
        """A call that arrived has ended."""
        call.engine.admission.depart()

    def hold(self, call: Call, size: int) -> None:
        """Takes note of a large answer, or refuses it."""
        call.engine.admission.hold(size)

    def release(self, call: Call, size: int) -> None:
        """A large answer is not kept any more."""
        call.engine.admission.release(size)


class StreamDoor(CallDoor):
    """For streams of requests."""

    def arrive(self, call: Call) -> None:
        """Finds the model that a stream is for, or refuses it."""
        self._find(call).admission.check()

    def depart(self, call: Call) -> None:
        """A stream has ended; there is nothing that it held."""
