"""telemetry/: numbers in the memory of workers, and the text of their series."""

import asyncio

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from mlflow_grpc.engine.batching.batcher import Batcher
from mlflow_grpc.telemetry.exposition import Family, Kind, labels
from mlflow_grpc.telemetry.instruments import Instruments
from mlflow_grpc.telemetry.memory import BASE_COUNTERS, COUNTERS_PER_MODEL, Memory
from mlflow_grpc.telemetry.metrics import Metrics
from tests.support.batches import Bench, QueueLoad, run, turn


def test_workers_count_in_their_own_slots_and_read_all():
    """The sum includes all workers. A worker's gauges end with it, and its counters stay."""
    memory = Memory(workers=3)
    workers = [Instruments(memory, number) for number in range(3)]
    counters = [instruments.counter() for instruments in workers]
    gauges = [instruments.gauge() for instruments in workers]
    histograms = [instruments.histogram((0.1, 0.2)) for instruments in workers]
    for number in range(3):
        counters[number].add(number + 1)
        gauges[number].set(10.0**number)
        histograms[number].observe(0.1 * (number + 1))
    assert [counter.total() for counter in counters] == [6, 6, 6]
    assert gauges[0].by_worker() == [1, 10, 100]
    assert gauges[1].maximum() == 100
    counts, total = histograms[2].totals()
    assert (counts, round(total, 9)) == ([1, 1, 1], 0.6)
    memory.reset_gauges(2)
    assert gauges[0].by_worker() == [1, 10, 0]
    assert counters[0].total() == 6
    replacement = Instruments(memory, 2).counter()
    replacement.add()
    assert counters[0].total() == 7


def test_a_value_on_a_bound_is_in_its_bucket():
    """A bucket `le` includes its bound: less than or equal."""
    histogram = Instruments(Memory(), 0).histogram((0.1, 0.2, 0.3))
    for value in (0.0, 0.1, 0.10001, 0.2, 0.3, 0.30001, 99.0):
        histogram.observe(value)
    assert histogram.totals()[0] == [2, 2, 1, 2]


def test_metrics_beyond_the_memory_are_an_error_at_start():
    """A family that is added later cannot write into the metrics of the next worker."""
    instruments = Instruments(Memory(workers=2), 0)
    for _ in range(BASE_COUNTERS):
        instruments.counter()
    with pytest.raises(RuntimeError, match="exceed the"):
        instruments.counter()
    with pytest.raises(RuntimeError, match="exceed the"):
        Instruments(Memory(models=2), 0, 2)


def test_a_model_keeps_its_positions_when_others_leave():
    """A worker with fewer models continues the counters of those that it has."""
    memory = Memory(models=3, spare_slots=1)
    before, after = Metrics(memory, 0), Metrics(memory, 1, (2,))
    *_, last_before = [before.add_model(rpcs=4) for _ in range(3)]
    for _ in range(2):
        last_before.swap_ended("ok")
    remaining = after.add_model(rpcs=4)
    remaining.swap_ended("ok")
    assert remaining._swaps["ok"].total() == 3


@pytest.mark.parametrize("models", [1, 64, pytest.param(1000, marks=pytest.mark.deep)])
def test_the_memory_is_large_enough(models):
    """The metrics of any number of models with all typed RPCs, and of fifty routes, fill at most half of the memory."""
    metrics = Metrics(Memory(models=models))
    for _ in range(models):
        metrics.add_model(rpcs=4)
    for number in range(40):
        metrics.grpc_method(f"/service/method{number}")
    for number in range(50):
        metrics.http_route(f"/route{number}", ("GET", "HEAD"))
    last = metrics.models[-1]
    assert last._batch_rows._sum - BASE_COUNTERS - COUNTERS_PER_MODEL * (models - 1) < COUNTERS_PER_MODEL / 2
    assert metrics._instruments._counter_count < BASE_COUNTERS / 2


@pytest.mark.parametrize("value", ['quote " here', "back\\slash", "new\nline", "\\n", "é😀", ""])
def test_labels_round_trip(value):
    """Both parsers read the labels that were written."""
    family = Family("some_seconds", Kind.COUNTER, "Text with a \\ and a\nline.")
    family.add(labels(text=value), lambda: 2.5)
    plain, open_metrics = ("".join(family.text(is_open_metrics=is_open)) for is_open in (False, True))
    (read,) = text_string_to_metric_families(plain)
    assert (read.samples[0].labels, read.samples[0].value) == ({"text": value}, 2.5)
    (read,) = openmetrics.text_string_to_metric_families(f"{open_metrics}# EOF\n")
    assert (read.samples[0].labels, read.samples[0].value) == ({"text": value}, 2.5)


def test_batches_are_counted_by_their_calls_and_rows():
    """A call alone is a batch of one; waiting calls are one batch of three calls and six rows."""
    metrics = Metrics(Memory())
    model = metrics.add_model(rpcs=0)
    model.rename("m", "1", state="ready")

    async def check() -> str:
        bench = Bench()
        fast_path = bench.batcher._model.fast_path
        assert fast_path is not None
        bench.batcher = Batcher(bench.threads, bench.batcher._model, fast_path, QueueLoad(bench), metrics=model)
        first = await bench.hold()
        later = [bench.call(f"r{number}", count=2) for number in range(3)]
        await turn()
        assert bench.batcher.queued_requests == 3
        bench.work.gate.set()
        await asyncio.gather(first, *later)
        assert bench.batcher.queued_requests == 0
        return await metrics.text()

    run(check_text := _Text(check))
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(check_text.text)
        for sample in family.samples
    }
    assert samples["mlflow_grpc_batch_calls_count", None] == 1  # A call alone is counted in the engine, where it ends.
    assert samples["mlflow_grpc_batch_calls_sum", None] == 3
    assert samples["mlflow_grpc_batch_rows_sum", None] == 6
    assert samples["mlflow_grpc_batch_calls_bucket", "2.0"] == 0
    assert samples["mlflow_grpc_batch_calls_bucket", "4.0"] == 1


class _Text:
    """Keeps the result of a check."""

    def __init__(self, check):
        self._check = check
        self.text = ""

    async def __call__(self):
        self.text = await self._check()
