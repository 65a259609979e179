"""What a worker process leaves to the one that replaces it, and the checks of that one before it listens.

Callers go on with the messages of typed calls that they have, so the new worker numbers its fields as the old one did,
and refuses to start if one of its models breaks them. It has no other memory of what was served before.

Rule of this module: it compares, and changes only the models of the new worker.
"""

from dataclasses import dataclass, field
from functools import partial

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.contract.lockfile.format import LockedModel, LockFile
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine import self_test
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.errors import StartError
from mlflow_grpc.rollout.publisher import SERVED, Publisher
from mlflow_grpc.settings import Settings


@dataclass(frozen=True)
class ServedModel:
    """A model that the old worker served."""

    config: ModelConfig
    version: str
    """Its version in the registry; empty if it has none."""
    accepted: frozenset[str] = frozenset()
    """Fingerprints of the contracts whose calls it took."""


@dataclass(frozen=True)
class Handover:
    """What a worker served."""

    models: dict[str, ServedModel] = field(default_factory=dict)
    """The models, by their names and versions for callers; a model that is the default of its name has its name."""
    locked: dict[str, LockedModel] = field(default_factory=dict)
    """Names and numbers of their typed messages, by the keys of lock files."""
    accepted: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    """Fingerprints of the contracts that published versions took, by name and version; see `Publisher`."""

    def numbered(self, locks: LockSet) -> LockSet:
        """Returns the locks of a server, with the names and numbers that callers use now."""
        return LockSet(LockFile(models={**locks.models, **self.locked}), SERVED)


def of_worker(catalog: Catalog, publisher: Publisher) -> Handover:
    """Returns what a worker serves now."""
    served = {
        _key(entry, catalog): ServedModel(entry.config, entry.loaded.model.version, publisher.accepted_by(entry))
        for entry in catalog.entries
        if entry.loaded is not None
    }
    return Handover(served, publisher.locked, publisher.accepted)


async def take_over(
    handover: Handover, catalog: Catalog, publisher: Publisher, locks: LockSet, limits: Settings
) -> None:
    """Checks the models of a new worker, before it listens.

    Args:
        handover: What the old worker served.
        catalog: The models of the new worker, which are loaded.
        publisher: Publisher of the new worker; it gets the contracts that callers use.
        locks: The locks of the server.
        limits: Settings for models that have none of their own.

    Raises:
        StartError: A model that was served cannot be loaded, breaks its callers, or fails on its own input example.

    """
    sources = {model.config.source for model in handover.models.values()}
    for entry in catalog.entries:
        if entry.state is State.FAILED and entry.config.source in sources:
            raise StartError(f"{entry.config.source}: {entry.error}")
    publisher.remember_all(handover.accepted)
    numbered = handover.numbered(locks)
    for entry in catalog.entries:
        before = handover.models.get(_key(entry, catalog)) if entry.loaded is not None else None
        prefix = f"{entry.config.source}: " if len(catalog.entries) > 1 else ""
        try:
            if before is not None and entry.loaded is not None:
                is_same = before.config == entry.config and before.version == entry.loaded.model.version
                inherit = partial(publisher.inherit, entry, before.accepted, numbered, may_break=is_same)
                if before.config.uri != entry.config.uri:
                    publisher.forget(entry)  # It is another model with the version of an earlier one.
                await in_daemon_thread(inherit, "check-contract")
            await _test(entry, before, limits)
        except StartError as error:
            raise StartError(f"{prefix}{error}") from error
    for entry in catalog.entries:
        before = handover.models.get(_key(entry, catalog))
        has_swapped = before is not None and entry.loaded is not None and before.version != entry.loaded.model.version
        if has_swapped and entry.config.track and entry.engine.metrics is not None:
            entry.engine.metrics.swap_ended("ok")


async def _test(entry: Entry, before: ServedModel | None, limits: Settings) -> None:
    """Calls a model that was not served before with its own input example."""
    if entry.loaded is None:
        return
    if before is not None and (before.config, before.version) == (entry.config, entry.loaded.model.version):
        return
    tries_example = limits.try_example if entry.config.try_example is None else entry.config.try_example
    if tries_example:
        await in_daemon_thread(partial(self_test.run, entry.loaded), "self-test")


def _key(entry: Entry, catalog: Catalog) -> str:
    return entry.name if catalog.get(entry.name, "") is entry else entry.label
