"""The tracking of all models of a server that follow their registry.

Rule of this module: it puts the parts of the package together. A server without tracked models starts none of them.
"""

import asyncio
from functools import partial

from mlflow_grpc.daemon_threads import LoadThread
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.rollout.candidates import CandidateLoader
from mlflow_grpc.rollout.handover import of_worker
from mlflow_grpc.rollout.poller import Poller
from mlflow_grpc.rollout.publisher import Publisher
from mlflow_grpc.rollout.retirement import Retirement
from mlflow_grpc.rollout.supervisor_link import SupervisorLink
from mlflow_grpc.rollout.tracked_model import TrackedModel
from mlflow_grpc.settings import Settings


class Rollout:
    """Tracks models from the end of the start until the server ends."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        publisher: Publisher,
        versions: RegistryVersions,
        link: SupervisorLink | None = None,
    ) -> None:
        """Tracks nothing yet.

        Args:
            settings: Settings of the server.
            catalog: The models.
            publisher: Publishes versions.
            versions: Versions that aliases mean to all processes of the server.
            link: Connection to the supervisor of this process; None if there is none.

        """
        self._link = link
        if link is not None:
            link.served = partial(of_worker, catalog, publisher)
        self._settings, self._catalog = settings, catalog
        self._publisher, self._versions = publisher, versions
        self._models: list[TrackedModel] = []
        self._retirement = Retirement(catalog)
        self._started = asyncio.Event()

    def start(self, thread: LoadThread) -> None:
        """Starts to track, once the models of the start are loaded.

        Args:
            thread: Where the models are loaded.

        """
        entries = [entry for entry in self._catalog.entries if entry.config.track]
        if entries:
            candidates = CandidateLoader(self._settings, self._catalog, thread, self._retirement)
            poller, keep_s = Poller(), self._settings.keep_previous_s
            self._models = [
                TrackedModel(
                    *(entry, keep_s, poller, candidates, self._publisher, self._retirement, self._versions),
                    link=self._link,
                )
                for entry in entries
            ]
        self._started.set()

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
        """Deletes the files of all versions."""
        await self._retirement.close()
