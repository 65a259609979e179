"""A Celery task that a worker runs: it scores rows by a served model.

    celery -A tasks worker --concurrency 2 --loglevel INFO

REDIS_URL is the broker and keeps the results, redis://localhost:6379/0 by default. MODEL_ADDRESS is the address of the
model's server, localhost:50051 by default.
"""

import os
from functools import cache
from typing import Any

from celery import Celery
from mlflow_grpc_client import Client, DeadlineExceeded, PredictError, ResourceExhausted, Unavailable

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
ADDRESS = os.environ.get("MODEL_ADDRESS", "localhost:50051")

app = Celery("tasks", broker=REDIS_URL, backend=REDIS_URL)


@cache
def client() -> Client:
    """The client of this worker process. gRPC's connections do not survive a fork, so it is made at the first task."""
    return Client(ADDRESS)


@app.task(bind=True, max_retries=5)
def predict(self: Any, rows: list[dict[str, Any]]) -> list[str]:
    """Returns the species of flowers.

    Raises:
        RuntimeError: The rows do not fit the model, or no server answered. Celery sends errors as JSON, which keeps
            only the text of a PredictError.

    """
    try:
        species: list[str] = client().model("iris").predict(rows)
    except (Unavailable, ResourceExhausted, DeadlineExceeded) as error:
        # A server that restarts or is full answers later.
        raise self.retry(exc=RuntimeError(str(error)), countdown=2**self.request.retries) from error
    except (PredictError, TypeError, ValueError) as error:
        raise RuntimeError(str(error)) from error
    return species
