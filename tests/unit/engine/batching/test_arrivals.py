"""engine/batching/arrivals.py: how long a batch waits for calls, with a load and times set by the test."""

import pytest

from mlflow_grpc.engine.batching.arrivals import BATCH_IDLE_S, BATCH_MAX_HOLD_S, ArrivalForecast
from tests.support.batches import Load


def forecast(open_calls=1, admitted_requests=1, *, max_wait_s=1.0):
    """Makes a forecast that has learned from one batch under a load."""
    load = Load(open_calls, admitted_requests)
    arrivals = ArrivalForecast(load, max_wait_s=max_wait_s)
    arrivals.note_arrival(0.0)
    arrivals.note_batch()
    return arrivals, load


def test_a_lone_call_does_not_wait():
    """The first batch expects one call, so a lone call does not wait."""
    arrivals, _ = forecast()
    assert arrivals.is_complete(queued=1, max_rows=64)


@pytest.mark.parametrize(("queued", "max_rows", "complete"), [(3, 64, False), (4, 64, True), (2, 2, True)])
def test_a_batch_is_complete_at_the_expected_size(queued, max_rows, complete):
    """A batch is complete with the number of open calls, or with the maximum number of rows if that is lower."""
    arrivals, _ = forecast(open_calls=4, admitted_requests=4)
    assert arrivals.is_complete(queued, max_rows) is complete


def test_the_expectation_falls_slowly():
    """One quiet moment does not reduce the batches of a busy server."""
    arrivals, load = forecast(open_calls=10, admitted_requests=10)
    load.open_calls = load.admitted_requests = 1
    arrivals.note_batch()
    arrivals.note_batch()
    assert not arrivals.is_complete(queued=5, max_rows=64)
    for _ in range(20):
        arrivals.note_batch()
    assert arrivals.is_complete(queued=1, max_rows=64)


def test_an_incomplete_batch_waits_for_a_pause_in_arrivals():
    """An incomplete batch starts after a pause that counts from the latest arrival."""
    arrivals, _ = forecast(open_calls=4, admitted_requests=4)
    arrivals.note_arrival(10.0)
    assert arrivals.wait_s(10.0, queued_at=10.0, predict_s=0.0) == pytest.approx(BATCH_IDLE_S)
    assert arrivals.wait_s(10.0 + 2 * BATCH_IDLE_S, queued_at=10.0, predict_s=0.0) < 0


def test_a_slow_model_waits_longer():
    """Both limits grow with the duration of the model's batches, up to the maximum wait."""
    arrivals, _ = forecast(open_calls=4, admitted_requests=4)
    arrivals.note_arrival(10.0)
    assert arrivals.wait_s(10.0, queued_at=10.0, predict_s=0.1) == pytest.approx(0.025)
    assert arrivals.wait_s(10.19, queued_at=10.0, predict_s=10.0) == pytest.approx(1.0 - 0.19)


def test_stalled_calls_are_waited_for_once():
    """Calls that do not arrive within the maximum hold count as stalled until they leave."""
    arrivals, load = forecast(open_calls=7, admitted_requests=1)
    assert arrivals.arriving == 6
    assert arrivals.wait_s(BATCH_MAX_HOLD_S, queued_at=0.0, predict_s=0.0) == 0.0
    assert arrivals.arriving == 0
    load.open_calls = 9
    assert arrivals.arriving == 2
    load.open_calls = 1
    assert arrivals.arriving == 0
    load.open_calls = 4
    assert arrivals.arriving == 3
