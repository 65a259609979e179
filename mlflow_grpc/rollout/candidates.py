"""The steps by which another version of a model gets ready beside the served one: fetch, load, self-test.

Rule of this module: it publishes nothing. Whatever fails is one StartError, and leaves no files.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.daemon_threads import LoadThread, in_daemon_thread
from mlflow_grpc.engine import loading, self_test
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import OwnCodeDiffers, StartError
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.rollout.retirement import Retirement
from mlflow_grpc.settings import Settings, spelling

if TYPE_CHECKING:  # They import MLflow.
    from mlflow_grpc.hosting.pyfunc.fetching import FetchedModel
    from mlflow_grpc.hosting.pyfunc.polling import RegisteredVersion


class NeedsProcess(StartError):
    """A version brings Python code along of which this process has another version."""


class CandidateLoader:
    """Loads versions, one at a time."""

    def __init__(self, settings: Settings, catalog: Catalog, thread: LoadThread, retirement: Retirement) -> None:
        """Loads nothing yet.

        Args:
            settings: Settings for models that have none of their own.
            catalog: The models.
            thread: Where the models are loaded, as at the start.
            retirement: Ends versions that are not published.

        """
        self._settings = settings
        self._catalog = catalog
        self._thread = thread
        self._retirement = retirement
        self._limit_s = settings.load_timeout_s or None
        self._turn = asyncio.Lock()

    async def load(self, entry: Entry, registered: "RegisteredVersion | None") -> Entry:
        """Returns a version that is ready to be published.

        Args:
            entry: The version that is served.
            registered: The version to load; None if the model does not come from a registry.

        Raises:
            NeedsProcess: Only another process can load it.
            StartError: It cannot be fetched or loaded, or fails on its input example.

        """
        directory = self._retirement.new_directory(entry.config)
        try:
            async with self._turn:
                fetched = await self._fetch(entry.config, registered, directory)
                loaded = await self._load(entry.config, fetched)
            engine = type(entry.engine).from_settings(self._settings, entry.engine.metrics)
            return self._catalog.successor(entry, loaded, engine, directory)
        except BaseException:
            fetched = loaded = None
            await self._retirement.discard(directory)
            raise

    async def _fetch(
        self, config: ModelConfig, registered: "RegisteredVersion | None", directory: Path
    ) -> "FetchedModel | None":
        first = {} if registered is None else {config.uri or "": (registered.name, registered.version)}
        versions = RegistryVersions(first)
        try:
            async with asyncio.timeout(self._limit_s):
                return await in_daemon_thread(partial(loading.fetch, config, versions, directory), "fetch-model")
        except TimeoutError:
            limit = f"within {self._limit_s:g} s ({spelling('load_timeout_s')})"
            raise StartError(loading.late_message(config, limit)) from None

    async def _load(self, config: ModelConfig, fetched: "FetchedModel | None") -> ServableModel:
        load = partial(loading.load, config, self._settings, fetched, is_alone=False)
        try:
            loaded = await self._thread.call(load, limit_s=self._limit_s)
        except TimeoutError:
            raise StartError(f"it was not loaded within {self._limit_s:g} s ({spelling('load_timeout_s')})") from None
        except StartError as error:
            if isinstance(error.__cause__, OwnCodeDiffers):
                raise NeedsProcess(
                    f"its own Python code ({error.__cause__.module}) differs from that of a version that this process "
                    "has loaded, and a process can hold only one of them: restart the server to serve it"
                ) from error
            raise
        tries_example = self._settings.try_example if config.try_example is None else config.try_example
        if tries_example:
            await in_daemon_thread(partial(self_test.run, loaded), "self-test")
        return loaded
