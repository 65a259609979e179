"""Metrics of a configuration file that is watched.

Rule of this module: the supervisor sets them, in a slot of its own, and the workers show them. Both make these
instruments before all others, so that the positions are the same.
"""

from mlflow_grpc.telemetry.exposition import Family, Kind, labels
from mlflow_grpc.telemetry.instruments import Instruments

RESULTS = ("ok", "failed")


class ConfigurationMetrics:
    """Attempts to serve the models of a changed file, and whether the file is served now."""

    def __init__(self, instruments: Instruments) -> None:
        """Reserves positions in memory.

        Args:
            instruments: Makes the instruments; it has made no others yet.

        """
        self._attempts = {result: instruments.counter() for result in RESULTS}
        self._behind = instruments.gauge()
        attempts = Family(
            "mlflow_grpc_config_reloads",
            Kind.COUNTER,
            "Attempts to serve the models of a configuration file that has changed, by result.",
        )
        for result, counter in self._attempts.items():
            attempts.add(labels(result=result), counter.total)
        behind = Family(
            "mlflow_grpc_config_behind",
            Kind.GAUGE,
            "1 if the configuration file differs from what is served, because it is invalid, or its models cannot be "
            "loaded or are being loaded.",
        )
        behind.add_gauge("", self._behind)
        self.families = (attempts, behind)

    def ended(self, result: str) -> None:
        """Counts an attempt; the result is one of RESULTS."""
        self._attempts[result].add()

    def set_behind(self, *, behind: bool) -> None:
        """Sets whether the file differs from what is served."""
        self._behind.set(behind)
