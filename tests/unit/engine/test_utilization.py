"""Utilization of a server from what its models' threads and its event loop report."""

from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_grpc.engine.concurrency import LoopSample
from mlflow_grpc.engine.utilization import Utilization


class Pool:
    """The threads of a model, two of them."""

    concurrency = 2

    def __init__(self) -> None:
        self.busy_s = 0.0


def entry_of(pool: Pool) -> Any:
    return SimpleNamespace(engine=SimpleNamespace(threads=pool), is_shadow=False)


@pytest.mark.parametrize("swaps", [False, True])
def test_a_busy_model_that_replaces_another_counts_at_once(swaps):
    """A server whose two threads are always busy is at 1 again one second after a swap, and on the way there before."""
    pool = Pool()
    catalog: Any = SimpleNamespace(entries=[entry_of(pool)])
    utilization = Utilization(catalog)
    for tenth in range(40):
        utilization.note(LoopSample(at=tenth / 10, wait_s=0.0))
        if swaps and tenth == 20:
            pool = Pool()
            catalog.entries = [entry_of(pool)]
        pool.busy_s += 2 / 10
        if tenth == 25:
            # Since the first sample of the window, the new model has had half of the time.
            assert utilization.value == pytest.approx(0.5 if swaps else 1.0)
    assert utilization.value == pytest.approx(1.0)


def test_models_may_become_more():
    """A model that is added is counted, and one that is removed is not."""
    first, second = Pool(), Pool()
    catalog: Any = SimpleNamespace(entries=[entry_of(first)])
    utilization = Utilization(catalog)
    utilization.note(LoopSample(at=0.0, wait_s=0.0))
    catalog.entries = [entry_of(first), entry_of(second)]
    second.busy_s = 1.0
    utilization.note(LoopSample(at=1.0, wait_s=0.0))
    assert utilization.value == pytest.approx(0.5)
    catalog.entries = [entry_of(first)]
    utilization.note(LoopSample(at=1.1, wait_s=0.0))
    assert utilization.value == 0.0
