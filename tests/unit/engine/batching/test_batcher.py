"""engine/batching/batcher.py: batching never shows, whatever fails and when. The tests use gates instead of timing."""

import asyncio
import gc
import random
import time
import weakref

import pytest

from mlflow_grpc.engine.batching.batcher import MAX_DEPARTED
from mlflow_grpc.errors import NotReady
from tests.support.batches import Bench, Load, run, soon, turn, until


def test_a_lone_call_starts_at_once():
    """A call that is alone starts without waiting."""

    async def check():
        bench = Bench()
        assert await bench.call("a") == "<a>"
        assert bench.work.batches == [["a"]]

    run(check)


def test_calls_that_wait_form_the_next_batch():
    """All calls that wait while a batch runs form the next batch, and each gets its own answer."""

    async def check():
        bench = Bench()
        first = await bench.hold()
        later = [bench.call(f"r{number}") for number in range(10)]
        await turn()
        assert len(bench.work.batches) == 1
        bench.work.gate.set()
        assert await first == "<first>"
        assert await asyncio.gather(*later) == [f"<r{number}>" for number in range(10)]
        assert len(bench.work.batches) == 2

    run(check)


def test_answered_requests_are_freed_without_garbage_collection():
    """Requests of a batch are freed when their callers have their answers: no reference cycle keeps their payloads."""

    async def check():
        bench = Bench()
        first = await bench.hold()
        later = [bench.call(word) for word in ("a", "b", "poison")]
        await turn()
        requests = [weakref.ref(pending.request) for pending in bench.batcher._pending]
        assert len(requests) == 4
        gc.disable()
        try:
            bench.work.gate.set()
            await asyncio.gather(first, *later, return_exceptions=True)
            del first, later
            await until(lambda: not any(request() for request in requests))
        finally:
            gc.enable()

    run(check)


def test_a_batch_waits_for_arriving_calls():
    """A batch starts when the calls that are on their way have arrived."""

    async def check():
        load = Load(open_calls=3, admitted_requests=0)
        bench = Bench(load=load)
        assert await bench.call("seen lately") == "<seen lately>"
        calls = []
        for name in "abc":
            calls.append(bench.call(name))
            load.admitted_requests += 1
            await turn()
        assert await asyncio.gather(*calls) == ["<a>", "<b>", "<c>"]
        assert bench.work.batches[1:] == [["a", "b", "c"]]

    run(check)


def test_stalled_calls_delay_only_one_batch():
    """A peer that opens calls and sends nothing slows down other callers only once."""

    async def check():
        bench = Bench(load=Load(open_calls=7, admitted_requests=0))
        for name in "abc":
            assert await bench.call(name) == f"<{name}>"
        assert bench.batcher._forecast.arriving == 0

    run(check)


def test_full_batch_drops_calls_that_would_miss_their_deadline():
    """Calls whose deadline would pass before their answer get an error at once, and the model serves the other calls."""

    async def check():
        bench = Bench(max_rows=2)
        first = await bench.hold()
        bench.batcher._threads._mean_duration_s = 5.0
        late = [bench.call(f"late {number}", deadline=soon(3)) for number in range(2)]
        fine = [bench.call(f"r{number}") for number in range(2)]
        await turn()
        bench.work.gate.set()
        assert await asyncio.gather(first, *fine) == ["<first>", "<r0>", "<r1>"]
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(outcome, TimeoutError) for outcome in outcomes)
        assert not any("late" in str(batch) for batch in bench.work.batches)

    run(check)


def test_a_batch_has_at_most_max_rows():
    """A batch is limited by rows, not by calls. A single call with more rows still runs."""

    async def check():
        bench = Bench(max_rows=4)
        first = await bench.hold()
        sizes = [3, 1, 1, 9, 2, 2]
        later = [bench.call(f"r{index}", count=size) for index, size in enumerate(sizes)]
        await turn()
        bench.work.gate.set()
        await asyncio.gather(first, *later)
        assert bench.work.batches[1:] == [["r0", "r1"], ["r2"], ["r3"], ["r4", "r5"]]

    run(check)


def test_a_slow_batch_delays_the_next_for_a_limited_time():
    """After the maximum wait, the waiting calls start beside the running batch."""

    async def check():
        bench = Bench(max_wait_s=0.05)
        slow = await bench.hold()
        waiting = bench.call("b")
        assert await asyncio.to_thread(bench.work.entered.acquire, timeout=30)
        bench.work.gate.set()
        assert await waiting == "<b>"
        assert await slow == "<first>"

    run(check)


def test_requests_without_rows_are_answered_by_themselves():
    """A request that cannot be decoded as rows is answered by itself, even if decoding raises; the others run together."""

    async def check():
        bench = Bench()
        first = await bench.hold()
        later = [bench.call(row) for row in ("a", "odd", "b", "broken", "unwritable")]
        await turn()
        bench.work.gate.set()
        assert await asyncio.gather(first, *later) == ["<first>", "<a>", "<odd>", "<b>", "<broken>", "<unwritable>"]
        assert bench.work.batches[1] == ["a", "b", "unwritable"]
        assert sorted(bench.work.by_themselves) == ["broken", "odd", "unwritable"]

    run(check)


@pytest.mark.parametrize("fault", ["poison", "count"])
def test_a_failing_batch_affects_only_the_request_at_fault(fault):
    """A bad row, or a wrong number of predictions, affects only its sender."""

    async def check():
        bench = Bench()
        first = await bench.hold()
        bench.work.wrong_count = fault == "count"
        rows = [f"r{number}" for number in range(8)] + (["poison"] if fault == "poison" else [])
        later = [bench.call(row) for row in rows]
        await turn()
        bench.work.gate.set()
        assert await first == "<first>"
        outcomes = await asyncio.gather(*later, return_exceptions=True)
        assert outcomes[:8] == [f"<{row}>" for row in rows[:8]]
        if fault == "poison":
            assert isinstance(outcomes[8], KeyError)
        assert await bench.call("after") == "<after>"

    run(check)


def test_a_cancelled_waiting_call_is_not_in_the_batch():
    """A call that is cancelled while it waits is removed; its row never runs, and the others are answered."""

    async def check():
        bench = Bench()
        first = await bench.hold()
        later = [bench.call(f"r{number}") for number in range(5)]
        await turn()
        later[2].cancel()
        await turn()
        bench.work.gate.set()
        outcomes = await asyncio.gather(first, *later, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes if isinstance(outcome, str)] == [
            "<first>", "<r0>", "<r1>", "<r3>", "<r4>",
        ]  # fmt: skip
        assert bench.work.batches[1] == ["r0", "r1", "r3", "r4"]

    run(check)


@pytest.mark.parametrize("leaver", [0, 2, 4])
def test_a_call_cancelled_in_a_batch_does_not_affect_others(leaver):
    """The other calls of a batch are answered if one is cancelled. MLServer's batcher leaves the later ones hanging."""

    async def check():
        bench = Bench()
        first = await bench.hold()
        later = [bench.call(f"r{number}") for number in range(5)]
        await turn()
        opened = bench.work.gate
        second = bench.work.hold_next()
        opened.set()
        assert await first == "<first>"
        assert await asyncio.to_thread(bench.work.entered.acquire, timeout=30)
        later[leaver].cancel()
        await turn()
        second.set()
        outcomes: list[object] = list(await asyncio.gather(*later, return_exceptions=True))
        assert isinstance(outcomes[leaver], asyncio.CancelledError)
        del outcomes[leaver]
        assert outcomes == [f"<r{number}>" for number in range(5) if number != leaver]
        assert await bench.call("after") == "<after>"

    run(check)


def test_an_abandoned_hung_batch_delays_no_other_batch():
    """A hung batch whose callers have all left delays no other call."""

    async def check():
        bench = Bench()
        hung = await bench.hold()
        hung.cancel()
        await asyncio.gather(hung, return_exceptions=True)
        bench.work.gate.set()
        assert await bench.call("after") == "<after>"

    run(check)


def test_an_expired_call_is_not_run():
    """A deadline counts while a call waits. The expired call gets an error, and the others are answered."""

    async def check():
        bench = Bench()
        first = await bench.hold()
        late = bench.call("late", deadline=time.monotonic() + 0.02)
        fine = bench.call("fine")
        with pytest.raises(TimeoutError):
            await late
        bench.work.gate.set()
        assert list(await asyncio.gather(first, fine)) == ["<first>", "<fine>"]
        assert ["fine"] in bench.work.batches
        assert not any("late" in batch for batch in bench.work.batches)

    run(check)


def test_calls_of_a_skipped_batch_fail_at_once():
    """The pool may refuse a batch before its deadline. Then no call waits in vain."""

    async def check():
        bench = Bench(threads=1)

        async def no_time(function, *, deadline, requests=1):
            raise TimeoutError

        bench.batcher._forecast._expected = 2.0
        bench.batcher._threads.run = no_time  # type: ignore[method-assign]
        outcomes = await asyncio.gather(bench.call("a"), bench.call("b"), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [TimeoutError, TimeoutError]

    run(check)


def test_abandoned_calls_are_removed_from_the_queue():
    """Calls whose callers have left do not accumulate behind a hung batch."""

    async def check():
        bench = Bench()
        hung = await bench.hold()
        for _ in range(3):
            gone = [bench.call(f"r{number}") for number in range(MAX_DEPARTED)]
            await turn()
            for task in gone:
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
        stays = bench.call("stays")
        await turn()
        assert len(bench.batcher._queue) <= MAX_DEPARTED + 2
        bench.work.gate.set()
        assert list(await asyncio.gather(hung, stays)) == ["<first>", "<stays>"]

    run(check)


def test_a_closed_pool_fails_all_waiting_calls():
    """No call is left waiting when the server stops."""

    async def check():
        bench = Bench()
        bench.batcher._threads.close()
        outcomes = await asyncio.gather(*(bench.call(f"r{n}") for n in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotReady] * 3

    run(check)


def test_ten_thousand_calls_get_their_own_answers():
    """With random sizes, some calls cancelled and some poisoned, none is lost, swapped or answered twice."""

    async def check():
        dice = random.Random(1)
        bench = Bench(threads=4, max_rows=16)
        outcomes = {}

        async def one_call(number):
            row = f"poison {number}" if number % 501 == 0 else f"row {number}"
            task = bench.call(row, count=dice.randrange(1, 6))
            if number % 13 == 0:
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
            outcomes[number] = (await asyncio.gather(task, return_exceptions=True))[0]

        await asyncio.gather(*(one_call(number) for number in range(10_000)))
        for number, outcome in outcomes.items():
            if isinstance(outcome, asyncio.CancelledError):
                assert number % 13 == 0
            elif number % 501 == 0:
                assert isinstance(outcome, KeyError)
            else:
                assert outcome == f"<row {number}>"
        assert len(outcomes) == 10_000
        assert len(bench.work.batches) < 10_000

    run(check)
