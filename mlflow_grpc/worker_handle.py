"""A worker process, as its supervisor sees it.

Rule of this module: it imports no grpc and no MLflow, like the supervisor.
"""

import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from mlflow_grpc.config import Configuration
from mlflow_grpc.forks import Fork
from mlflow_grpc.registry_versions import Version

KILLED = "killed by SIGKILL, as the system does when memory runs out"


@dataclass(frozen=True)
class WorkerStart:
    """What a worker is started with."""

    number: int
    """Its number, which is that of its slot in the metrics."""
    configuration: Configuration
    """Models that it serves."""
    versions: dict[str, Version] = field(default_factory=dict)
    """Versions that it serves, by URI, where they differ from those of the other workers."""
    replaces: int | None = None
    """Number of the worker that serves until this one does; None if there is no such worker."""
    predecessor: bytes = b""
    """What that worker serves, for `mlflow_grpc.rollout.supervisor_link.SupervisorLink`."""


@dataclass
class WorkerHandle:
    """A worker and its state."""

    start: WorkerStart
    process: Fork
    pipe: Connection
    versions: Connection  # For the versions that aliases mean.
    started_at: float = field(default_factory=time.monotonic)
    loaded: bool = False
    serving_since: float | None = None  # When it began to serve calls.
    has_closed_pipe: bool = False
    has_closed_versions: bool = False
    loading: str = ""  # Description of the model that it loads now.
    reason: str = ""
    exit_code: int = 0
    served: bytes = b""  # What it serves, for the worker that replaces it.
    leaves_until: float | None = None  # When it is killed, if another worker has replaced it.
    is_dropped: bool = False  # True if it was ended because it is not needed any more.

    @property
    def number(self) -> int:
        """Its number, which is that of its slot in the metrics."""
        return self.start.number

    def close(self) -> None:
        """Closes the connections to it."""
        self.pipe.close()
        self.versions.close()

    def end(self, code: int | None) -> str:
        """Describes how it ended."""
        during = f" while it loaded {self.loading}" if self.loading else ""
        reason = self.reason or (KILLED if code == -signal.SIGKILL else "")
        return f"ended with code {code}{during}{f' ({reason})' if reason else ''}"
