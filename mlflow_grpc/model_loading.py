"""Loading the models of a server: fetch several at a time, load one by one, compare with locks, open.

Rule of this module: it decides the order, and which model is left out or stops the start. How a model is loaded is in
`engine/loading.py`.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable
from functools import partial

from mlflow_grpc.choices import OnError
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.daemon_threads import LoadThread, in_daemon_thread
from mlflow_grpc.engine import fit, loading, typed_plan
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.turns import Turns
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.services.health import HealthServicer, health_names
from mlflow_grpc.settings import Settings, spelling

logger = get_logger(__name__)

MAX_FETCHES = 64
"""Number of models that are fetched at a time; high enough that a dead registry does not delay the others."""


class ModelLoader:
    """Loads the models of a catalog, once. Each model takes calls as soon as it is ready."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        health: HealthServicer,
        locks: LockSet,
        make_typed: Callable[[], bool],
        versions: RegistryVersions,
    ) -> None:
        """Loads nothing yet.

        Args:
            settings: Settings for models that have none of their own.
            catalog: The models.
            health: Gets the health of each model.
            locks: Locks that models are compared with.
            make_typed: Makes the typed RPCs of the models that are ready; returns False if there are none.
            versions: Versions that aliases mean to the server.

        """
        self._settings = settings
        self._catalog = catalog
        self._health = health
        self._locks = locks
        self._make_typed = make_typed
        self._versions = versions
        self._load_s: dict[int, float] = {}  # Durations of loads, by the index of the model.
        # By index, so that they keep no version that another one replaces later.
        self._compared: set[int] = set()  # Models that have been compared with their locks.
        self._offered: list[int] = []  # Models that the typed RPCs were made for.

    async def load(self, thread: LoadThread, when_loading: Callable[[str], object]) -> None:
        """Fetches several models at a time, and loads them one by one in a thread, in the configuration's order.

        Args:
            thread: Where the models are loaded.
            when_loading: Called with a description of each model when its load begins, and with an empty text when it
                has ended.

        Raises:
            StartError: A model without `on_error: skip` cannot be served, or no model can.

        """
        entries = self._catalog.entries
        await thread.call(lambda: loading.import_libraries(entry.config for entry in entries))
        is_tracked = any(entry.config.track for entry in entries)
        if is_tracked:
            # Before the load: cycles in a model that is exempt would never be freed once another version replaces it.
            _exempt_from_collection()
        fetches = asyncio.Semaphore(MAX_FETCHES)
        turns = Turns(index for index, entry in enumerate(entries) if loading.is_local(entry.config))
        await asyncio.gather(
            *(self._load(index, thread, fetches, turns, when_loading) for index in range(len(entries)))
        )
        self.offer_typed()
        if all(entry.state is State.FAILED for entry in entries):
            raise StartError("none of the models could be loaded")
        if not is_tracked:
            _exempt_from_collection()

    async def _load(
        self,
        index: int,
        thread: LoadThread,
        fetches: asyncio.Semaphore,
        turns: Turns,
        when_loading: Callable[[str], object],
    ) -> None:
        entry, limit_s = self._catalog.entries[index], self._settings.load_timeout_s or None
        config, has_fetched = entry.config, False
        description = _described(entry)
        try:
            async with contextlib.nullcontext() if loading.is_local(config) else fetches:
                logger.info("loading %s", description)
                started_at = time.monotonic()
                if config.track:
                    entry.directory = loading.own_directory(config)
                async with asyncio.timeout(limit_s):
                    fetched = await in_daemon_thread(
                        partial(loading.fetch, config, self._versions, entry.directory), "fetch-model"
                    )
                fetch_s = time.monotonic() - started_at
            has_fetched = True
            if fetched is not None and fetched.version:
                logger.info("%s is version %s", config.source, fetched.version)
            async with turns.turn(index):
                load = partial(loading.load, config, self._settings, fetched, is_alone=len(self._catalog.entries) == 1)
                started_at = time.monotonic()
                when_loading(description)
                loaded = await thread.call(load, limit_s=limit_s)
                when_loading("")
                self._load_s[index] = fetch_s + time.monotonic() - started_at
            self.add(entry, loaded)
        except TimeoutError:
            limit = f"within {limit_s:g} s ({spelling('load_timeout_s')})"
            message = f"it was not loaded {limit}" if has_fetched else loading.late_message(config, limit)
            self._skip_or_raise(entry, StartError(message))
        except StartError as error:
            self._skip_or_raise(entry, error)
        turns.give_up(index)
        self._compare_with_champions(entry)
        self._open_settled()
        if not turns.waiting:
            # The missing models are still being fetched, which may take long.
            self.offer_typed()

    def add(self, entry: Entry, loaded: ServableModel) -> None:
        """Adds a loaded model to the catalog.

        Raises:
            StartError: Another model has the same name and version.

        """
        self._catalog.register(entry, loaded)
        self._health.set_serving(False, *health_names(entry))

    def _open_settled(self) -> None:
        """Opens the models that are ready, before all are loaded."""
        for entry in self._catalog.entries:
            if entry.engine.admission.stage is not Stage.LOADING or not self._catalog.is_settled(entry):
                continue
            self._compare_with_lock(entry)
            if entry.loaded is not None and self._catalog.stage is Stage.LOADING:
                entry.engine.admission.stage = Stage.OPEN
                self._health.set_serving(True, *health_names(entry))

    def _skip_or_raise(self, entry: Entry, error: StartError) -> None:
        """Skips a model that cannot be served, if its configuration says so; otherwise raises the error."""
        if (entry.config.on_error or OnError.STOP) is OnError.STOP:
            if len(self._catalog.entries) > 1:
                raise StartError(f"{entry.config.source}: {error}") from error
            raise error
        logger.error("%s is left out: %s", _described(entry), error)
        self._catalog.mark_failed(entry, str(error))
        if entry.engine.metrics is not None:
            entry.engine.metrics.load_failed()

    def _compare_with_lock(self, entry: Entry) -> None:
        """Compares a model with its lock, once, and counts its load, which has ended now.

        Raises:
            StartError: The model breaks old clients, and its configuration does not say `on_error: skip`.

        """
        index = next(index for index, other in enumerate(self._catalog.entries) if other is entry)
        if index in self._compared:
            return
        self._compared.add(index)
        try:
            verdict = typed_plan.verdict(entry, self._catalog, self._locks)
            if verdict is not None and verdict.breaking:
                if not self._settings.allow_incompatible:
                    raise StartError(verdict.refusal)  # noqa: TRY301
                logger.warning("%s breaks old clients: %s", verdict.lock_key, "; ".join(map(str, verdict.breaking)))
        except StartError as error:
            self._skip_or_raise(entry, error)
            return
        load_s = self._load_s.get(index)
        if entry.engine.metrics is not None and load_s is not None:
            entry.engine.metrics.loaded(load_s)

    def _compare_with_champions(self, entry: Entry) -> None:
        """Compares a challenger with its champion once both are loaded; `entry` has just been loaded.

        Raises:
            StartError: They do not fit, and the challenger's configuration does not say `on_error: skip`.

        """
        for champion, challenger in self._catalog.pairs:
            is_concerned = entry is champion or entry is challenger
            if not is_concerned or champion.loaded is None or challenger.loaded is None:
                continue
            try:
                fit.check(champion.loaded, challenger.loaded)
            except StartError as error:
                self._skip_or_raise(challenger, error)

    def offer_typed(self) -> None:
        """Makes the typed RPCs of the models that are ready, unless they have been made.

        Raises:
            StartError: A model breaks old clients, and its configuration does not say `on_error: skip`.

        """
        for entry in self._catalog.entries:
            if self._catalog.is_settled(entry):
                self._compare_with_lock(entry)
        ready = [index for index, entry in enumerate(self._catalog.entries) if self._catalog.is_settled(entry)]
        if ready != self._offered:
            self._offered = ready
            self._make_typed()


def _exempt_from_collection() -> None:
    """Exempts what exists now: a full collection over all of MLflow's modules takes 0.1 s, and no call is answered."""
    gc.collect()
    gc.freeze()


def _described(entry: Entry) -> str:
    """Returns the name of a model, once it is known, and where the model comes from."""
    source = entry.config.source
    return f"{'a model' if entry.label in ('', source) else entry.label} from {source}"
