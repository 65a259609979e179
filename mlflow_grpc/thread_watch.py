"""The watch of the models' threads: a model whose threads are all held by calls that do not end is not serving.

Rule of this module: it changes health and nothing else. The same turn restores the root logger, which calls may change.
"""

import asyncio
from typing import NoReturn

from mlflow_grpc import root_logger
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.catalog import Catalog, State
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.services.health import HealthServicer, health_names

logger = get_logger(__name__)

INTERVAL_S = 1.0
"""Time between two checks, in seconds."""


async def watch_threads(catalog: Catalog, health: HealthServicer) -> NoReturn:
    """Sets health to NOT_SERVING for models whose threads are all held, and for the server if those of all models are.

    Runs until cancelled.

    Args:
        catalog: The models.
        health: The health of the server and the models.

    """
    exhausted: dict[int, bool] = {}
    while True:
        await asyncio.sleep(INTERVAL_S)
        root_logger.restore()
        for index, entry in enumerate(catalog.entries):
            was, now = exhausted.get(index, False), entry.engine.threads.is_exhausted
            if entry.state is not State.READY or now == was or catalog.stage is not Stage.OPEN:
                continue
            exhausted[index] = now
            health.set_serving(not now, *health_names(entry))
            health.set_serving(not catalog.is_exhausted, *health.services)
            if now:
                logger.error(
                    "%s: every thread is held by a call that does not end: not serving, restart the server",
                    entry.label,
                )
            else:
                logger.info("%s: threads are free again: serving", entry.label)
