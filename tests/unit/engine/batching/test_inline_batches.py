"""engine/batching/batcher.py: batches that the event loop runs itself, and batches that it leaves to threads."""

import asyncio
import threading

import pytest

from mlflow_grpc.engine.batching import batcher
from tests.support.batches import Bench, HangingRequest, run, soon, turn


def test_quick_batches_run_in_the_event_loop():
    """Quick batches run one after the other with other work in between, and no thread is started."""

    async def check():
        bench, turns = Bench(inline=True, max_rows=8), []

        async def count():
            while len(bench.work.batches) < 5:
                turns.append(len(bench.work.batches))
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        answers = await asyncio.gather(*(bench.call(f"r{number}") for number in range(40)))
        await counting
        assert answers == [f"<r{number}>" for number in range(40)]
        assert [len(batch) for batch in bench.work.batches] == [8] * 5
        assert {1, 2, 3, 4} <= set(turns)
        assert bench.threads._threads == 0

    run(check)


def test_unanswered_requests_of_a_quick_batch_run_in_a_thread():
    """Requests that fail, have no rows, or cannot be decoded or written run alone in a thread, without effect on
    others."""

    async def check():
        bench = Bench(inline=True)
        rows = ["a", "poison", "b", "odd", "broken", "c", "unwritable"]
        outcomes = await asyncio.gather(*(bench.call(row) for row in rows), return_exceptions=True)
        assert [outcomes[index] for index in (0, 2, 3, 4, 5, 6)] == [
            "<a>", "<b>", "<odd>", "<broken>", "<c>", "<unwritable>",
        ]  # fmt: skip
        assert isinstance(outcomes[1], KeyError)
        assert sorted(bench.work.by_themselves) == ["broken", "odd", "poison", "unwritable"]
        assert await bench.call("d") == "<d>"

    run(check)


def test_quick_batches_do_not_wait_for_threads():
    """A call that hangs in a thread delays no quick batch."""

    async def check():
        bench = Bench(inline=True)
        gate = threading.Event()
        hanging = asyncio.create_task(bench.batcher.predict(HangingRequest("odd", gate=gate), deadline=soon()))
        await turn(10)
        assert await bench.call("a") == "<a>"
        gate.set()
        assert await hanging == "<odd>"

    run(check)


@pytest.mark.parametrize(
    "much", [{"count": 11}, {"count": 6}, {"size": batcher.INLINE_MAX_SIZE // 2 + 1}], ids=["one", "rows", "size"]
)
def test_batches_larger_than_the_trial_run_in_a_thread(much):
    """Batches with more rows or larger payloads than the trial at load run in a thread."""

    async def check():
        bench = Bench(inline=True, max_rows=10)
        assert list(await asyncio.gather(bench.call("a", **much), bench.call("b", **much))) == ["<a>", "<b>"]
        assert threading.get_ident() not in bench.work.threads
        assert await bench.call("small") == "<small>"
        assert bench.work.threads[-1] == threading.get_ident()

    run(check)


def test_a_failing_quick_batch_is_bisected_in_a_thread():
    """The event loop runs a failing batch once, and a thread bisects it."""

    async def check():
        bench = Bench(inline=True)
        outcomes = await asyncio.gather(*(bench.call("poison") for _ in range(8)), return_exceptions=True)
        assert all(isinstance(outcome, KeyError) for outcome in outcomes)
        assert bench.work.threads.count(threading.get_ident()) == 1
        assert len(bench.work.threads) > 8

    run(check)


@pytest.mark.parametrize("pause_s", [batcher.INLINE_PAUSE_S, 0.0])
def test_batches_that_became_slow_run_in_threads(pause_s, monkeypatch):
    """Batches run in threads for a while, because the inputs may take longer than those of the trial at load."""
    monkeypatch.setattr(batcher, "INLINE_PAUSE_S", pause_s)

    async def check():
        bench = Bench(inline=True)
        bench.work.takes_s = 2 * batcher.INLINE_LIMIT_S
        assert await bench.call("a") == "<a>"
        bench.work.takes_s = 0.0
        assert await bench.call("b") == "<b>"
        here = threading.get_ident()
        assert [thread == here for thread in bench.work.threads] == [True, not pause_s]

    run(check)
