"""The models of a server that change while it runs: those that follow their registry, and those that are reloaded.

Rule of this module: it puts the parts of the package together. Nothing runs in a server without tracked models until a
caller asks for a reload.
"""

import asyncio
from functools import partial

from mlflow_grpc.choices import EnvManager
from mlflow_grpc.daemon_threads import LoadThread
from mlflow_grpc.engine.catalog import STILL_LOADING, Catalog, Entry
from mlflow_grpc.errors import NotReady
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.rollout.candidates import CandidateLoader
from mlflow_grpc.rollout.handover import of_worker
from mlflow_grpc.rollout.poller import Poller
from mlflow_grpc.rollout.publisher import Publisher
from mlflow_grpc.rollout.reloads import Reloads
from mlflow_grpc.rollout.retirement import Retirement
from mlflow_grpc.rollout.supervisor_link import SupervisorLink
from mlflow_grpc.rollout.tracked_model import TrackedModel
from mlflow_grpc.settings import Settings, spelling


class Rollout:
    """Tracks and reloads models from the end of the start until the server ends."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        publisher: Publisher,
        versions: RegistryVersions,
        link: SupervisorLink | None = None,
        *,
        only_server: bool = True,
    ) -> None:
        """Tracks nothing yet.

        Args:
            settings: Settings of the server.
            catalog: The models.
            publisher: Publishes versions.
            versions: Versions that aliases mean to all processes of the server.
            link: Connection to the supervisor of this process; None if there is none.
            only_server: False if other processes, besides the workers of the settings, serve the same models.

        """
        self._link = link
        if link is not None:
            link.served = partial(of_worker, catalog, publisher)
        self._settings, self._catalog = settings, catalog
        self._publisher, self._versions = publisher, versions
        self._hindrance = _hindrance(settings, only_server=only_server and settings.workers == 1)
        self._models: list[TrackedModel] = []
        self._reloads: Reloads | None = None
        self._retirement = Retirement(catalog)
        self._started = asyncio.Event()

    def start(self, thread: LoadThread) -> None:
        """Starts to track, once the models of the start are loaded.

        Args:
            thread: Where the models are loaded.

        """
        candidates = CandidateLoader(self._settings, self._catalog, thread, self._retirement)
        poller, keep_s = Poller(), self._settings.keep_previous_s
        self._models = [
            TrackedModel(
                *(entry, keep_s, poller, candidates, self._publisher, self._retirement, self._versions), link=self._link
            )
            for entry in self._catalog.entries
            if entry.config.track
        ]
        self._reloads = Reloads(
            self._catalog,
            candidates,
            poller,
            self._publisher,
            self._retirement,
            self._versions,
            self._models,
            self._hindrance,
        )
        self._started.set()

    async def reload(self, entry: Entry) -> None:
        """Reloads a model; raises the errors of `Reloads.reload`."""
        if self._reloads is None:
            raise NotReady(STILL_LOADING)
        await self._reloads.reload(entry)

    async def watch(self) -> None:
        """Tracks the models; runs until cancelled."""
        await self._started.wait()
        await asyncio.gather(*(model.run() for model in self._models))

    def hint(self, name: str, alias: str | None) -> int:
        """Makes the models that follow a registered model query the registry now, and returns their number.

        Args:
            name: Name of the registered model.
            alias: The alias that has changed; None for any.

        """
        return sum(model.hint(name, alias) for model in self._models)

    async def close(self) -> None:
        """Ends all reloads, and deletes the files of all versions."""
        if self._reloads is not None:
            self._reloads.close()
        await self._retirement.close()


def _hindrance(settings: Settings, *, only_server: bool) -> str:
    """Returns why this process cannot serve other files than those from the start; empty if it can."""
    if settings.env_manager is not EnvManager.LOCAL:
        return "The server runs in the environment that was built for the version from the start. Restart the server."
    if not only_server:
        return (
            "Several processes serve the model, and the call reached only one of them. Restart them, or follow an "
            f"alias with {spelling('track_s')}, as each of them then does."
        )
    return ""
