"""The versions behind aliases and `latest`: each URI means one version until a worker that tracks it serves another.

Each worker process asks the registry in the thread that fetches the model, and the supervisor keeps the first answer
for all workers and their replacements. The supervisor itself asks nothing, because connections and threads would not
survive its forks, and because a registry that does not answer would delay the models of the others.

Rule of this module: it imports no MLflow and no grpc, because the supervisor imports it.
"""

import contextlib
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

Version = tuple[str, str]
"""Name and version of a registered model."""


def exact_uri(version: Version) -> str:
    """Returns the URI that always means this version."""
    return "models:/{}/{}".format(*version)


class RegistryVersions:
    """The versions that URIs mean in this process; its threads may call it at the same time."""

    def __init__(self, first: dict[str, Version] | None = None, supervisor: Connection | None = None) -> None:
        """Asks nothing yet.

        Args:
            first: Versions that are agreed on already, by URI.
            supervisor: Connection to the supervisor, for a worker process.

        """
        self._first = first if first is not None else {}
        self._supervisor = supervisor
        self._lock = threading.Lock()

    def resolve(self, uri: str, ask_registry: Callable[[str], Version | None]) -> Version | None:
        """Returns the version that a URI means; the registry is queried only before the first agreement.

        Args:
            uri: URI of a model.
            ask_registry: Returns the version that the URI means now, or None if it names no registered model. Its
                exceptions are raised here, and the next call queries again.

        """
        if (first := self._first.get(uri)) is not None:
            return first
        version = ask_registry(uri)
        if version is None or exact_uri(version) == uri:
            return version
        with self._lock:
            if self._supervisor is not None:
                self._supervisor.send((uri, version, False))
                version = self._supervisor.recv()
            return self._first.setdefault(uri, version)

    def replace(self, uri: str, version: Version) -> None:
        """Sets the version that a URI means from now on, for this process and for the workers that replace others.

        Args:
            uri: URI of a tracked model.
            version: The version that this process serves now.

        """
        with self._lock:
            self._first[uri] = version
            if self._supervisor is not None:
                with contextlib.suppress(OSError):  # The supervisor has ended, and so will this process.
                    self._supervisor.send((uri, version, True))


def answer_worker(worker: Connection, first: dict[str, Version]) -> None:
    """Answers the questions of a worker's `RegistryVersions`, in the supervisor.

    Args:
        worker: Connection to the worker.
        first: The version of each URI: the first one, or the one that replaced it. Versions of other URIs are added.

    Raises:
        EOFError: The worker has closed its connection.
        OSError: The worker has ended.

    """
    while worker.poll():
        uri, version, replaces = worker.recv()
        if replaces:
            first[uri] = version
        else:
            worker.send(first.setdefault(uri, version))
