"""The models of a catalog that get typed RPCs, and the file of messages for them.

Rule of this module: it picks the models and logs why a model has no typed RPCs. `mlflow_grpc.contract.plan`, which is
below the engine and knows no catalog, makes the file.
"""

from collections.abc import Iterator

from _mlflow_grpc_protocol.typed_terms import RpcKind

from mlflow_grpc import protos
from mlflow_grpc.contract import messages
from mlflow_grpc.contract import plan as contract_plan
from mlflow_grpc.contract.lockfile.compatibility import Verdict
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.contract.messages import FileMaker
from mlflow_grpc.contract.plan import TypedModel
from mlflow_grpc.contract.shapes import ModelMessages
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

Candidate = tuple[Entry, ServableModel, TypedModel]


def plan(
    catalog: Catalog, locks: LockSet, reported: set[str] | None = None
) -> tuple[FileMaker, list[tuple[Entry, ServableModel, ModelMessages]]]:
    """Makes the messages and RPCs of all loaded models that have a signature or schemas.

    A model gets no typed RPCs if protobuf refuses its messages. The others keep theirs.

    Args:
        catalog: The models.
        locks: The locks of the models.
        reported: Reasons that have been logged, which are not logged again; the new ones are added.

    Returns:
        The maker of the file, with its comments; each model with typed RPCs, and its messages.

    Raises:
        StartError: A lock is for other models or inconsistent, two models have the same key in lock files, or protobuf
            refuses the file of all models together.

    """
    reported = set() if reported is None else reported
    candidates = list(_candidates(catalog, locks, reported))
    try:
        maker, planned = _make_file(candidates, locks)
        if not protos.refusal_of(maker.file):
            return maker, planned
    except StartError:
        raise
    except Exception:
        logger.exception("cannot make the typed messages of all models together: making those of each model alone")
    accepted = []
    for candidate in candidates:
        if refusal := _refusal_of(candidate[2]):
            _report(candidate[0], refusal, reported)
        else:
            accepted.append(candidate)
    maker, planned = _make_file(accepted, locks)
    if refusal := protos.refusal_of(maker.file):
        raise StartError(f"protobuf refuses the messages of the models: {refusal}")
    return maker, planned


def verdict(entry: Entry, catalog: Catalog, locks: LockSet) -> Verdict | None:
    """Compares a model with its lock.

    Returns:
        The verdict, or None for a model that is not loaded or has no endpoint.

    Raises:
        StartError: The lock in the model's directory is for other models, or is inconsistent; or another model has the
            same key in lock files.

    """
    if entry.loaded is None or not entry.config.endpoint:
        return None
    info, streams = entry.loaded.model.info, entry.loaded.model.streams
    contract = info.contract if _is_typed(entry.loaded) else None
    lock_key = _lock_key(entry, catalog) if contract is not None else _key(entry, catalog)
    return contract_plan.verdict(
        locks, lock_key, info.lock, contract, streams=streams, refused=entry.loaded.refused_rpcs
    )


def _candidates(catalog: Catalog, locks: LockSet, reported: set[str]) -> Iterator[Candidate]:
    for entry in catalog.entries:
        if not entry.config.endpoint or entry.loaded is None or not catalog.is_settled(entry):
            continue
        model, info = entry.loaded.model, entry.loaded.model.info
        if obstacle := messages.obstacle(info.contract):
            _report(entry, obstacle, reported)
        if _is_typed(entry.loaded):
            lock_key = _lock_key(entry, catalog)
            summary = ": ".join(filter(None, [info.display_name or entry.label, info.description]))
            locked = locks.find(lock_key, info.lock)
            typed = TypedModel(lock_key, info.contract, locked, model.streams, entry.loaded.refused_rpcs, summary)
            yield entry, entry.loaded, typed


def _report(entry: Entry, reason: str, reported: set[str]) -> None:
    line = f"{entry.label}: no typed RPCs: {reason}"
    if line not in reported:
        reported.add(line)
        logger.warning("%s", line)


def _is_typed(loaded: ServableModel) -> bool:
    """Returns True if messages can be made for a model and at least one of its typed RPCs works on its example."""
    has_rpcs = not loaded.refused_rpcs >= {RpcKind.ONE, RpcKind.BATCH} or (
        loaded.model.streams and RpcKind.STREAM not in loaded.refused_rpcs
    )
    return loaded.record_codec is not None and has_rpcs and not messages.obstacle(loaded.model.info.contract)


def _make_file(
    candidates: list[Candidate], locks: LockSet
) -> tuple[FileMaker, list[tuple[Entry, ServableModel, ModelMessages]]]:
    maker, planned = contract_plan.make_file([typed for _, _, typed in candidates], locks)
    return maker, [
        (entry, loaded, its_messages) for (entry, loaded, _), its_messages in zip(candidates, planned, strict=True)
    ]


def _refusal_of(model: TypedModel) -> str:
    """Returns the reason why a model cannot have typed messages; empty if it can."""
    try:
        maker, _ = contract_plan.make_file([model], LockSet())
    except Exception as error:  # noqa: BLE001 - it costs this model its typed RPCs, and no other model anything
        return f"its messages cannot be made: {one_line(error)}"
    refusal = protos.refusal_of(maker.file)
    return f"protobuf refuses its messages: {refusal}" if refusal else ""


def _lock_key(entry: Entry, catalog: Catalog) -> str:
    """Returns a model's name, followed by its version unless that is the default version.

    Raises:
        StartError: Another model with typed RPCs has the same key. Which of them got it would depend on their order.

    """
    key = _key(entry, catalog)
    for other in catalog.entries:
        if other is not entry and _is_candidate(other, catalog) and _key(other, catalog) == key:
            raise StartError(
                f"the typed messages of the models {entry.label} and {other.label} would both be called {key}: give "
                "one of them another name or version in the configuration"
            )
    return key


def _key(entry: Entry, catalog: Catalog) -> str:
    return entry.name if catalog.get(entry.name, "") is entry else f"{entry.name}_{entry.version}"


def _is_candidate(entry: Entry, catalog: Catalog) -> bool:
    """Returns True if a model gets typed RPCs."""
    is_ready = entry.config.endpoint and entry.loaded is not None and catalog.is_settled(entry)
    return is_ready and entry.loaded is not None and _is_typed(entry.loaded)
