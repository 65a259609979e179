"""A configuration file that is watched: its content is read again and again.

Kubernetes replaces a ConfigMap by moving a symbolic link, and editors write files in several steps. So the content is
compared instead of times, and it counts once two readings agree.

Rule of this module: it reads and checks. What to do with a new configuration is for the supervisor to decide.
"""

import hashlib
from pathlib import Path

from mlflow_grpc import config
from mlflow_grpc.config import Configuration
from mlflow_grpc.rollout.configuration import tracked
from mlflow_grpc.settings import Settings

SETTLE_S = 0.5
"""Time after which a changed file is read again, in seconds; it counts if it is still the same."""


class ConfigurationFile:
    """The configuration file of a server. A change is reported once."""

    def __init__(self, path: Path, settings: Settings, interval_s: float) -> None:
        """Reads nothing yet.

        Args:
            path: The file, or a symbolic link to it.
            settings: Settings of the server.
            interval_s: Time between two readings, in seconds.

        """
        self.path = path
        self.interval_s = interval_s
        self.digest = ""
        """Hash of the content that was reported last."""
        self.next_at = 0.0
        """Time of the next reading, in seconds."""
        self._settings = settings
        self._seen = ""

    def look(self, now: float) -> Configuration | None:
        """Reads the file if it is time, and returns its models if its content has changed.

        Args:
            now: The time, in seconds.

        Raises:
            StartError: The content has changed, and cannot be served.

        """
        if now < self.next_at:
            return None
        self.next_at = now + self.interval_s
        digest = self._read()
        if digest == self.digest:
            return None
        if digest != self._seen:
            self._seen, self.next_at = digest, now + min(SETTLE_S, self.interval_s)
            return None
        self.digest = digest
        return tracked(config.read(self.path), self._settings)

    def _read(self) -> str:
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:  # Reading it again reports the error.
            return f"error {error.errno}"
