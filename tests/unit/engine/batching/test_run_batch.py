"""engine/batching/run_batch.py: the work of a batch, without threads and an event loop."""

from dataclasses import dataclass

import pytest

from mlflow_grpc.engine.batching.run_batch import decode_batch, run_batch
from tests.support.batches import WordRequest, Work, servable


@dataclass
class Item:
    """A request whose caller waits as long as the test says."""

    request: WordRequest
    waits: bool = True

    def is_waiting(self):
        return self.waits


def items(*texts, count=1):
    return [Item(WordRequest(word, count=count)) for word in texts]


def answers(result):
    return {item.request.row: answer for item, answer in result.answers}


def rows_of(unbatched):
    return [item.request.row for item in unbatched]


def test_rows_of_all_requests_are_predicted_at_once():
    """One call of the model; each request gets its own answer."""
    work = Work()
    result = run_batch(items("a", "b", "c"), servable(work), max_rows=64)
    assert answers(result) == {"a": "<a>", "b": "<b>", "c": "<c>"}
    assert not result.unbatched
    assert work.batches == [["a", "b", "c"]]


@pytest.mark.parametrize(("max_rows", "batches"), [(4, [["a", "b"], ["c", "d"]]), (1, [["a"], ["b"], ["c"], ["d"]])])
def test_a_group_has_at_most_max_rows(max_rows, batches):
    """A request with more rows than that forms its own group."""
    work = Work()
    result = run_batch(items("a", "b", "c", "d", count=2), servable(work), max_rows)
    assert work.batches == batches
    assert len(result.answers) == 4


@pytest.mark.parametrize("position", range(8))
def test_a_failing_group_is_bisected(position):
    """Only the request at fault is handed back, at any position in the batch."""
    work = Work()
    batch = [f"r{index}" for index in range(8)]
    batch[position] = "poison"
    result = run_batch(items(*batch), servable(work), max_rows=64)
    assert answers(result) == {word: f"<{word}>" for word in batch if word != "poison"}
    assert rows_of(result.unbatched) == ["poison"]
    # The complete group, and two halves of each failing group down to the request at fault.
    assert len(work.batches) == 7


def test_mismatched_predictions_are_not_assigned():
    """If a model drops rows in a batch, each request is predicted alone."""
    work = Work()
    work.wrong_count = True
    result = run_batch(items("a", "b", "c"), servable(work), max_rows=64)
    assert answers(result) == {"a": "<a>", "b": "<b>", "c": "<c>"}
    assert [batch for batch in work.batches if len(batch) == 1] == [["a"], ["b"], ["c"]]


def test_requests_that_cannot_be_decoded_as_rows_are_handed_back():
    """Requests that have no rows or fail to decode are handed back; the others are predicted together."""
    work = Work()
    result = run_batch(items("a", "odd", "broken", "b"), servable(work), max_rows=64)
    assert answers(result) == {"a": "<a>", "b": "<b>"}
    assert rows_of(result.unbatched) == ["odd", "broken"]
    assert work.batches == [["a", "b"]]


def test_an_answer_that_cannot_be_encoded_is_handed_back_alone():
    """An answer that cannot be encoded is handed back, and the other requests of its group are answered."""
    work = Work()
    result = run_batch(items("a", "unwritable", "b"), servable(work), max_rows=64)
    assert answers(result) == {"a": "<a>", "b": "<b>"}
    assert rows_of(result.unbatched) == ["unwritable"]


def test_requests_without_a_caller_are_neither_decoded_nor_predicted():
    """Requests without a waiting caller are in no list of the result."""
    work = Work()
    batch = items("a", "broken", "b")
    for item in batch[:2]:
        item.waits = False
    assert not decode_batch(batch[:2], servable(work)).unbatched
    result = run_batch(batch, servable(work), max_rows=64)
    assert answers(result) == {"b": "<b>"}
    assert not result.unbatched
    assert work.batches == [["b"]]


def test_progress_has_rows_and_times():
    """Each request is charged the duration of its batch."""
    batch = items("a", "b", count=3)
    run_batch(batch, servable(Work()), max_rows=64)
    for item in batch:
        progress = item.request.progress
        assert progress.rows == 3
        assert progress.started_at is not None
        assert progress.model_s > 0
