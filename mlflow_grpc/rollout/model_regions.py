"""The regions of models in the memory of the metrics, while the configuration changes.

Rule of this module: a model keeps its region as long as the server runs, so that its counters never fall.
"""

from collections import Counter
from collections.abc import Sequence

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.errors import StartError

SPARE_MODELS = 256
"""Number of models that a configuration file may add while the server runs."""


class ModelRegions:
    """The region of each model that the server has had, by its name and version in the configuration."""

    def __init__(self, count: int) -> None:
        """Takes the number of regions."""
        self.count = count
        self._regions: dict[tuple[str, str, int], int] = {}

    def of(self, models: Sequence[ModelConfig]) -> tuple[int, ...]:
        """Returns the regions of models, in their order.

        Raises:
            StartError: There is no room for all of them.

        """
        regions, occurrences = dict(self._regions), Counter[tuple[str, str]]()
        positions = []
        for model in models:
            key = (model.name or model.source, model.version or "")
            occurrences[key] += 1
            positions.append(regions.setdefault((*key, occurrences[key]), len(regions)))
        if len(regions) > self.count:
            raise StartError(
                f"it adds more than {SPARE_MODELS} models to those that the server has had since its start, for which "
                "its metrics have no room: restart the server"
            )
        self._regions = regions
        return tuple(positions)
