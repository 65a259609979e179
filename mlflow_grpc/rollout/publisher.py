"""Publication of another version: the check of its typed contract, then one turn of the event loop that changes all.

Rule of this module: the turn has no `await` in it, so that no call sees a part of the change. All that takes long is
prepared before, in a thread.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mlflow_grpc.contract.lockfile.format import LockFile
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine import typed_plan
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.services.health import HealthServicer, health_names
from mlflow_grpc.services.typed import TypedOffer, TypedService
from mlflow_grpc.settings import spelling

logger = get_logger(__name__)

MAX_REMEMBERED = 64
"""Number of published versions whose contracts are remembered, over all models."""

SERVED = "the served version"
"""Source of a contract that clients have from the served version, in place of a lock file."""


@dataclass(frozen=True)
class _Prepared:
    """All that a publication needs."""

    offer: TypedOffer
    accepted: frozenset[str]
    """Fingerprints of the contracts whose calls the version takes, with its own."""


class Publisher:
    """Publishes versions, one at a time."""

    def __init__(
        self,
        catalog: Catalog,
        typed: TypedService,
        locks: LockSet,
        health: HealthServicer,
        show_typed: Callable[[], None],
        *,
        allow_incompatible: bool = False,
    ) -> None:
        """Publishes nothing yet.

        Args:
            catalog: The models.
            typed: The typed service.
            locks: Locks that models are compared with.
            health: Gets the health of each model.
            show_typed: Shows the typed RPCs by reflection.
            allow_incompatible: True to publish versions that break callers.

        """
        self._catalog = catalog
        self._typed = typed
        self._locks = locks
        self._health = health
        self._show_typed = show_typed
        self._allow_incompatible = allow_incompatible
        self._turn = asyncio.Lock()
        self._accepted: dict[tuple[str, str], frozenset[str]] = {}  # By name and version of published versions.

    async def publish(self, entry: Entry, successor: Entry) -> None:
        """Serves another version in place of an entry.

        A version that has been served before is a way back, so it may lack what the version after it added.

        Args:
            entry: The version that is served.
            successor: The version to serve.

        Raises:
            StartError: The version breaks callers, or its messages cannot be made; nothing has changed.

        """
        async with self._turn:
            prepared = await in_daemon_thread(partial(self._prepare, entry, successor), "prepare-version")
            if self._catalog.stage is Stage.DRAINING:
                raise StartError("the server is shutting down")
            self._catalog.replace(entry, successor)
            successor.accepted_contracts = prepared.accepted
            self._typed.offer(prepared.offer)
            self._show_typed()
            names = health_names(successor)
            self._health.remove(*(name for name in health_names(entry) if name not in names))
            self._health.set_serving(self._catalog.stage is Stage.OPEN, *names)
            self._remember(successor, prepared.accepted)

    def _prepare(self, entry: Entry, successor: Entry) -> _Prepared:
        """Checks a version and makes its messages, in a thread; the catalog stays as it is meanwhile."""
        catalog = self._catalog.with_successor(entry, successor)
        served = LockSet(LockFile(models={**self._locks.models, **self._typed.locked}), SERVED)
        before = self._typed.messages_of(entry)
        accepted = entry.accepted_contracts | ({before.fingerprint} if before is not None else set())
        if entry.loaded is not None:
            self._remember(entry, accepted)
        # Without a version, the files may have changed since.
        was_served = _key(successor)[1] != "" and _key(successor) in self._accepted
        breaking = [] if was_served else self._breaking(successor, catalog, served)
        offer = self._typed.prepare(catalog, served)
        if was_served:
            accepted = self._accepted[_key(successor)]
        elif breaking:
            accepted = frozenset()
        fingerprint = offer.fingerprint_of(successor)
        return _Prepared(offer, accepted | {fingerprint} if fingerprint else accepted)

    def _breaking(self, successor: Entry, catalog: Catalog, served: LockSet) -> list[str]:
        """Returns the changes that break callers; raises StartError if that is not allowed."""
        in_lock = typed_plan.verdict(successor, catalog, self._locks)
        if in_lock is not None and in_lock.breaking and not self._allow_incompatible:
            raise StartError(in_lock.refusal)
        now = typed_plan.verdict(successor, catalog, served)
        breaking = list(map(str, now.breaking)) if now is not None else []
        if breaking and not self._allow_incompatible:
            raise StartError(
                f"it breaks callers of {SERVED}: {'; '.join(breaking)}. Register a version that takes their calls, or "
                f"start the server with {spelling('allow_incompatible')}"
            )
        if breaking:
            logger.warning("%s breaks callers of %s: %s", successor.label, SERVED, "; ".join(breaking))
        return breaking

    def _remember(self, entry: Entry, accepted: frozenset[str]) -> None:
        self._accepted[_key(entry)] = accepted
        while len(self._accepted) > MAX_REMEMBERED:
            del self._accepted[next(iter(self._accepted))]


def _key(entry: Entry) -> tuple[str, str]:
    """Returns the name of a model, and the version in the registry, which the configuration may show differently."""
    return entry.name, entry.loaded.model.version if entry.loaded is not None else ""
