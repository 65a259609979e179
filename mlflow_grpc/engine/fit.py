"""The comparison of a challenger with its champion: it has to take the same calls and give answers of the same types.

Rule of this module: it compares what models declare, and runs neither. Typed messages and tensors are read and written
by the champion's types, whichever of the two answers, so all differences count.
"""

from mlflow_grpc.contract import messages
from mlflow_grpc.contract.lockfile.compatibility import Change, changes
from mlflow_grpc.contract.lockfile.format import LockedModel
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.contract.plan import TypedModel, make_file
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import StartError

_KEY = "model"


def misfit(champion: ServableModel, challenger: ServableModel) -> str:
    """Returns why a challenger cannot answer calls of its champion, as the end of a sentence; empty if it can.

    Raises:
        StartError: The messages of a model cannot be made.

    """
    theirs, ours = champion.model.info, challenger.model.info
    if champion.model.streams and not challenger.model.streams:
        return "it has no predict_stream, which the champion has"
    if refused := challenger.refused_rpcs - champion.refused_rpcs:
        return f"on its input example, its typed RPCs fail: {', '.join(sorted(refused))}"
    if (theirs.input, theirs.output, theirs.params) == (ours.input, ours.output, ours.params):
        return ""
    if not _is_typed(champion) or not _is_typed(challenger):
        return "its signature differs from the champion's"
    return "; ".join(map(str, _changes(champion, challenger)))


def check(champion: ServableModel, challenger: ServableModel) -> None:
    """Raises StartError if a challenger cannot answer calls of its champion."""
    if reason := misfit(champion, challenger):
        raise StartError(
            f"it cannot answer calls of its champion, version {champion.model.version or 'unknown'}: {reason}. Name a "
            "challenger with the same signature"
        )


def _is_typed(servable: ServableModel) -> bool:
    return servable.record_codec is not None and not messages.obstacle(servable.model.info.contract)


def _changes(champion: ServableModel, challenger: ServableModel) -> list[Change]:
    """Returns the differences between the typed messages of two models, without RPCs that only the second one has."""
    locked = make_file([_typed(champion)], LockSet())[0].locks[_KEY]
    numbered = make_file([_typed(challenger, locked)], LockSet())[0].locks[_KEY]
    return [change for change in changes(locked, numbered) if change.breaks or change.path not in numbered.rpcs]


def _typed(servable: ServableModel, locked: LockedModel | None = None) -> TypedModel:
    model = servable.model
    return TypedModel(_KEY, model.info.contract, locked, model.streams, servable.refused_rpcs)
