"""The layers that the configuration of a model puts around its engine: a cache, and a challenger behind the calls.

Rule of this module: a model that asks for neither keeps its engine as it is.
"""

from mlflow_grpc.engine.answer_cache import AnswerCache
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.engine.shadow import ShadowCalls
from mlflow_grpc.errors import StartError


def add_layers(entry: Entry, timeout_s: float) -> None:
    """Adds the layers of a model that has just been loaded.

    Args:
        entry: The model.
        timeout_s: Time limit of a call, in seconds.

    Raises:
        StartError: The model is to have a cache, and says that it is not deterministic.

    """
    config, metrics = entry.config, entry.engine.metrics
    if config.challenger is not None and config.challenger.shadow:
        entry.engine.add_layer(ShadowCalls(entry, config.challenger, timeout_s).around)
    if config.cache is None:
        return
    if entry.loaded is not None and entry.loaded.model.info.deterministic is False:
        raise StartError("it says that it is not deterministic, so its answers cannot be cached: remove cache")
    # Outside of the challenger: an answer from the cache was compared when it was made.
    entry.engine.add_layer(AnswerCache(config.cache, None if metrics is None else metrics.cache).around)
