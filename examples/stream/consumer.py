"""Scores the events of a Redis stream by a served model, and writes the predictions to another stream.

    python consumer.py worker-1

Each consumer of the group has a name of its own, and keeps it when it is restarted. REDIS_URL is the address of Redis,
redis://localhost:6379/0 by default. MODEL_ADDRESS is that of the model's server, localhost:50051 by default.
"""

import os
import sys
from collections.abc import Iterator

from mlflow_grpc_client import Client, PredictError, TypedModel
from redis import Redis, ResponseError

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
ADDRESS = os.environ.get("MODEL_ADDRESS", "localhost:50051")
GROUP = "scoring"
EVENTS, PREDICTIONS, REJECTED = "flowers", "predictions", "rejected"
MAX_EVENTS = 500
"""Events that are read at a time."""

Event = tuple[str, dict[str, str]]
"""Id of an event, and its fields."""


def events(redis: Redis, consumer: str) -> Iterator[list[Event]]:
    """Yields events in batches: those that an earlier run of this consumer did not finish, and then new ones."""
    try:
        redis.xgroup_create(EVENTS, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):  # The group exists already.
            raise
    start = "0"
    while True:
        answer = redis.xreadgroup(GROUP, consumer, {EVENTS: start}, count=MAX_EVENTS, block=5000)
        batch = answer[0][1] if answer else []
        if batch:
            yield batch
        elif start == "0":
            start = ">"


def score(redis: Redis, model: TypedModel, batch: list[Event]) -> None:
    """Scores a batch. Redis takes its answers and its acknowledgement together or not at all.

    Raises:
        PredictError: No server answers, even after the client's retries. The batch then stays unacknowledged.

    """
    rows = [{name: as_number(value) for name, value in fields.items()} for _, fields in batch]
    answers = list(model.predict_many(rows, on_error="return"))
    with redis.pipeline(transaction=True) as pipeline:
        for (event, fields), answer in zip(batch, answers, strict=True):
            if isinstance(answer, (PredictError, TypeError, ValueError)):
                pipeline.xadd(REJECTED, {**fields, "event": event, "error": str(answer)})
            else:
                pipeline.xadd(PREDICTIONS, {"event": event, "species": answer})
        pipeline.xack(EVENTS, GROUP, *(event for event, _ in batch))
        pipeline.execute()


def as_number(text: str) -> float | str:
    """Returns a field of an event as a number, or unchanged if it is not one; the client then refuses the event."""
    try:
        return float(text)
    except ValueError:
        return text


def main(consumer: str) -> None:
    """Consumes until the process is stopped."""
    with Redis.from_url(REDIS_URL, decode_responses=True) as redis, Client(ADDRESS) as client:
        model = client.model("iris")
        print(f"{consumer} reads {EVENTS}", flush=True)
        for batch in events(redis, consumer):
            score(redis, model, batch)


if __name__ == "__main__":
    main(sys.argv[1])
