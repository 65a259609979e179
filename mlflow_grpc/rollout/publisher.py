"""Publication of another version: the check of its typed contract, then one turn of the event loop that changes all.

Rule of this module: the turn has no `await` in it, so that no call sees a part of the change. All that takes long is
prepared before, in a thread.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mlflow_grpc.contract.lockfile.format import LockedModel, LockFile
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine import fit, typed_plan
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
    unfit_challenger: tuple[Entry, str] | None
    """The challenger of the version, and why it gets no calls of it, if that is so; None if there is no challenger."""


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
            if prepared.unfit_challenger is not None:
                self._catalog.set_unfit(*prepared.unfit_challenger)
            successor.accepted_contracts = prepared.accepted
            self._typed.offer(prepared.offer)
            self._show_typed()
            self._health.set_serving(self._catalog.stage is Stage.OPEN, *health_names(successor))
            self._remember(successor, prepared.accepted)

    def release(self, entry: Entry) -> None:
        """Ends calls to a replaced version, which may be called by its name and version until then."""
        self._catalog.release(entry)
        names = {name for served in self._catalog.entries for name in health_names(served)}
        self._health.remove(*(name for name in health_names(entry) if name not in names))

    @property
    def locked(self) -> dict[str, LockedModel]:
        """Names and numbers of the typed messages that callers use now, by the keys of lock files."""
        return self._typed.locked

    @property
    def accepted(self) -> dict[tuple[str, str], frozenset[str]]:
        """Fingerprints of the contracts whose calls the published versions took, by name and version."""
        served = {_key(entry): self.accepted_by(entry) for entry in self._catalog.entries if entry.loaded is not None}
        return {**self._accepted, **served}

    def accepted_by(self, entry: Entry) -> frozenset[str]:
        """Returns the fingerprints of the contracts whose calls a served version takes."""
        offered = self._typed.messages_of(entry)
        return entry.accepted_contracts | ({offered.fingerprint} if offered is not None else set())

    def remember_all(self, accepted: dict[tuple[str, str], frozenset[str]]) -> None:
        """Adds versions that another process has published; see `accepted`."""
        self._accepted |= accepted

    def forget(self, entry: Entry) -> None:
        """Forgets that a version was published."""
        self._accepted.pop(_key(entry), None)

    def inherit(self, entry: Entry, accepted: frozenset[str], numbered: LockSet, *, may_break: bool) -> None:
        """Makes a loaded model take the calls that the process before this one took.

        Args:
            entry: The model.
            accepted: Fingerprints of the contracts whose calls it has to take.
            numbered: Names and numbers of the messages in these calls.
            may_break: True if the same version was served.

        Raises:
            StartError: The model breaks callers.

        """
        if (was_served := self._accepted.get(_key(entry))) is not None:
            accepted = was_served
        elif not may_break and self._breaking(entry, self._catalog, numbered):
            accepted = frozenset()
        entry.accepted_contracts = accepted | self.accepted_by(entry)

    def _prepare(self, entry: Entry, successor: Entry) -> _Prepared:
        """Checks a version and makes its messages, in a thread; the catalog stays as it is meanwhile."""
        catalog = self._catalog.with_successor(entry, successor)
        unfit_challenger = self._compare_challengers(catalog, successor)
        served = LockSet(LockFile(models={**self._locks.models, **self._typed.locked}), SERVED)
        accepted = self.accepted_by(entry)
        if entry.loaded is not None:
            self._remember(entry, accepted)
        was_served = _key(successor) in self._accepted
        breaking = [] if was_served else self._breaking(successor, catalog, served)
        offer = self._typed.prepare(catalog, served)
        if was_served:
            accepted = self._accepted[_key(successor)]
        elif breaking:
            accepted = frozenset()
        fingerprint = offer.fingerprint_of(successor)
        return _Prepared(offer, accepted | {fingerprint} if fingerprint else accepted, unfit_challenger)

    def _compare_challengers(self, catalog: Catalog, successor: Entry) -> tuple[Entry, str] | None:
        """Compares the version with its champion, or with its challenger.

        A challenger that does not fit its champion's new version does not hold up the champion, and gets no more calls.

        Raises:
            StartError: The version is a challenger that does not fit its champion.

        """
        for champion, challenger in catalog.pairs:
            if champion.loaded is None or challenger.loaded is None:
                continue
            if challenger is successor:
                fit.check(champion.loaded, challenger.loaded)
                return challenger, ""
            if champion is successor:
                reason = fit.misfit(champion.loaded, challenger.loaded)
                if reason:
                    logger.warning("%s gets no more calls of %s: %s", challenger.label, champion.label, reason)
                return challenger, reason
        return None

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
