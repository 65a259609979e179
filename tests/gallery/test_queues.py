"""The consumer of a Redis stream and the Celery task queue, with a real Redis."""

import contextlib
import shlex
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.gallery.conftest import lines
from tests.support.servers import free_port, serving

pytestmark = [pytest.mark.gallery, pytest.mark.timeout(600)]

FLOWER = {"sepal_length_cm": "5.1", "sepal_width_cm": "3.5", "petal_length_cm": "1.4", "petal_width_cm": "0.2"}


@pytest.fixture
def redis(redis_url):
    from redis import Redis  # Late, because `make test` collects this file without it.

    with Redis.from_url(redis_url, decode_responses=True, socket_timeout=90) as client:
        yield client


def wait_for(redis, stream, count):
    """Returns the entries of a stream when there are this many."""
    entries: list[dict[str, str]] = []
    last = "0"
    while len(entries) < count:
        answer = redis.xread({stream: last}, block=60_000)
        assert answer, f"{stream} has only {entries}"
        last = answer[0][1][-1][0]
        entries += [fields for _, fields in answer[0][1]]
    return entries


@pytest.fixture
def stream(example, redis_url):
    return example("stream", REDIS_URL=redis_url)


def test_the_stream_of_the_page(stream, redis_url, labels):
    """A flower gets its prediction, and an event that is not one is rejected with the column at fault."""
    port = redis_url.rpartition(":")[2].partition("/")[0]
    with stream.start(stream.command("python consumer.py")) as consumer:
        consumer.wait_for("worker-1 reads flowers")
        added, read = (
            block.replace("redis-cli", f"redis-cli -p {port}")
            for block in stream.commands
            if block.startswith("redis-cli")
        )
        flower, event = stream.run(added).split()
        printed = stream.run(read).split("\n")
    assert printed[printed.index(flower) + 1 :][:2] == ["species", labels["1"]]
    assert "sepal_length_cm" in printed[printed.index(event) + 2]


def test_a_consumer_goes_on_where_another_was_killed(stream, redis, labels):
    """Events that were read and not acknowledged are scored by the next run of the consumer, before new events."""
    redis.xgroup_create("flowers", "scoring", id="0", mkstream=True)
    first = redis.xadd("flowers", FLOWER)
    assert redis.xreadgroup("scoring", "worker-1", {"flowers": ">"})
    second = redis.xadd("flowers", FLOWER)
    with stream.start(stream.command("python consumer.py")):
        answers = wait_for(redis, "predictions", 2)
    assert answers == [{"event": event, "species": labels["1"]} for event in (first, second)]
    assert redis.xpending("flowers", "scoring")["pending"] == 0


def test_without_a_server_no_event_is_lost(stream, redis, labels):
    """A consumer that finds no server ends with an error, and its events wait for its next run."""
    event = redis.xadd("flowers", FLOWER)
    address = stream.variables["MODEL_ADDRESS"]
    stream.variables["MODEL_ADDRESS"] = f"127.0.0.1:{free_port()}"
    with stream.start(stream.command("python consumer.py")) as consumer:
        assert consumer.wait(120) == 1
        assert "Unavailable" in consumer.output
    assert redis.xlen("predictions") == redis.xlen("rejected") == 0
    stream.variables["MODEL_ADDRESS"] = address
    with stream.start(stream.command("python consumer.py")):
        assert wait_for(redis, "predictions", 1) == [{"event": event, "species": labels["1"]}]


@contextlib.contextmanager
def working(example):
    """Runs a worker, which drains at the end."""
    with example.start(example.command("celery")) as worker:
        worker.wait_for(r"celery@\S+ ready")
        yield worker
        worker.signal(signal.SIGTERM)
        assert worker.wait(60) == 0, worker.output


def submitted(rows):
    """Returns a command that submits rows and prints the answer or the error."""
    code = f"""
import tasks
try:
    print(tasks.predict.delay({rows!r}).get(timeout=120))
except RuntimeError as error:
    print(error)
"""
    return f"python -c {shlex.quote(code)}"


def test_tasks(example, redis_url, labels):
    """A task returns the model's predictions; one whose rows do not fit fails with the columns at fault, not retried."""
    tasks = example("tasks", REDIS_URL=redis_url)
    with working(tasks) as worker:
        assert tasks.run(tasks.command("python submit.py")) == tasks.outputs[0] == lines(labels)
        assert "petal_width_cm" in tasks.run(submitted([{"sepal_length_cm": 5.1}]))
        assert "Retry in" not in worker.output


def test_a_task_waits_for_its_server(example, redis_url, labels, iris):
    """A task whose server is away is tried again, and returns its answer when the server is back."""
    port = free_port()
    tasks = example("tasks", REDIS_URL=redis_url)
    tasks.variables["MODEL_ADDRESS"] = f"127.0.0.1:{port}"
    row = {name: float(value) for name, value in FLOWER.items()}
    with working(tasks) as worker, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tasks.run, submitted([row]))
        worker.wait_for("Retry in")
        with serving(iris.model, ScoringCodec(iris.model.metadata, iris.model.loader_module), port=port):
            assert answer.result(150) == f"{[labels['1']]}\n"
