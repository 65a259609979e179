"""The end of a version: its last calls, its threads, its memory and its files.

Rule of this module: a version that may still get calls is not touched. Each version of a tracked model has files of its
own, which are deleted with it.
"""

import asyncio
import gc
import shutil
from functools import partial
from pathlib import Path

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine import loading
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

GRACE_S = 1.0
"""Time for calls that were looked up just before another version was published, in seconds."""

CHECK_S = 0.1
"""Interval between two checks whether the last call has ended, in seconds."""

LONG_S = 60.0
"""Time after which a log line reports that calls keep a replaced version in memory, in seconds."""


class Retirement:
    """Ends versions, and knows the directories of all that have not ended."""

    def __init__(self, catalog: Catalog) -> None:
        """Takes the catalog that holds replaced versions until their end."""
        self._catalog = catalog
        self._directories: set[Path] = set()

    def new_directory(self, config: ModelConfig) -> Path:
        """Returns a new directory for the files of a version."""
        directory = loading.own_directory(config)
        self._directories.add(directory)
        return directory

    async def retire(self, entry: Entry) -> None:
        """Ends a replaced version once its last call or stream has ended."""
        await asyncio.sleep(GRACE_S)
        checks = 0
        while not entry.engine.admission.is_idle:
            checks += 1
            if checks == round(LONG_S / CHECK_S):
                logger.warning("%s stays in memory: calls or streams that began with it are open", entry.label)
            await asyncio.sleep(CHECK_S)
        self._catalog.forget(entry)
        label = entry.label
        await self.discard(entry.directory, entry)
        logger.info("%s is unloaded", label)

    async def discard(self, directory: Path | None, entry: Entry | None = None) -> None:
        """Deletes what a version has left that gets no calls.

        Args:
            directory: Its files.
            entry: The version, if it was loaded.

        """
        if entry is not None:
            entry.engine.close()
            entry.loaded = None
        if directory is not None:
            self._directories.add(directory)
        if await in_daemon_thread(partial(_give_back, directory), "unload-model") and directory is not None:
            self._directories.discard(directory)

    async def close(self) -> None:
        """Deletes the files of all versions, when the server ends."""
        entries = (*self._catalog.entries, *self._catalog.replaced)
        directories = self._directories | {entry.directory for entry in entries if entry.directory is not None}

        def delete() -> None:
            for directory in directories:
                _delete(directory)

        if directories:
            await in_daemon_thread(delete, "delete-models")


def _give_back(directory: Path | None) -> bool:
    """Deletes the files, the code and the objects of a version; returns False if other versions use its files."""
    from mlflow_grpc.hosting.pyfunc import model_code

    is_unused = directory is not None and model_code.forget_code(directory)
    if directory is not None and is_unused:
        _delete(directory)
    gc.collect()  # Models often have cycles. It passes over what was exempt before the first model was loaded.
    return is_unused


def _delete(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
