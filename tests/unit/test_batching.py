"""engine/batching/batcher.py: batching never shows, whatever fails when. Gates, not luck."""

import asyncio
import random
import time

import pytest

from mlflow_grpc.engine.batching.batcher import MAX_DEPARTED
from mlflow_grpc.errors import NotReady
from tests.support.batches import Bench, Load, run, soon, turn


def test_a_lone_call_starts_at_once():
    """Nothing is waited for when nothing else is there."""

    async def check():
        bench = Bench()
        assert await bench.call("a") == "<a>"
        assert bench.work.batches == [["a"]]

    run(check)


def test_what_comes_while_a_batch_runs_makes_up_the_next():
    """One batch for all that waited, each with its own answer."""

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


def test_a_batch_waits_for_calls_that_are_on_their_way():
    """It starts when they have come."""

    async def check():
        load = Load(open_calls=3, admitted_calls=0)
        bench = Bench(load=load)
        assert await bench.call("seen lately") == "<seen lately>"
        calls = []
        for name in "abc":
            calls.append(bench.call(name))
            load.admitted_calls += 1
            await turn()
        assert await asyncio.gather(*calls) == ["<a>", "<b>", "<c>"]
        assert bench.work.batches[1:] == [["a", "b", "c"]]

    run(check)


def test_calls_that_never_come_are_waited_for_once():
    """A peer that begins calls and sends nothing must not slow down the others for as long as it likes."""

    async def check():
        bench = Bench(load=Load(open_calls=7, admitted_calls=0))
        for name in "abc":
            assert await bench.call(name) == f"<{name}>"
        assert bench.batcher._forecast.arriving == 0

    run(check)


def test_full_batch_drops_calls_that_would_miss_their_deadline():
    """Those whose deadline comes before an answer could are told so, and the model is kept for the others."""

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


def test_a_batch_has_no_more_rows_than_allowed():
    """Rows are counted, not calls; a call that is larger by itself still runs."""

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


def test_a_slow_batch_does_not_hold_up_the_next_for_ever():
    """After the longest wait, what waits is started beside it."""

    async def check():
        bench = Bench(max_wait_s=0.05)
        slow = await bench.hold()
        waiting = bench.call("b")
        assert await asyncio.to_thread(bench.work.entered.acquire, timeout=30)
        bench.work.gate.set()
        assert await waiting == "<b>"
        assert await slow == "<first>"

    run(check)


def test_what_is_no_rows_is_answered_by_itself():
    """Also if to find out fails; the rest of the batch is run together."""

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
def test_a_failing_batch_is_run_again_one_by_one(fault):
    """A bad row, or a wrong number of predictions, hurts its sender only."""

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


def test_one_that_is_cancelled_before_the_batch_is_not_in_it():
    """It leaves, the others are answered, and its row is never run."""

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
def test_one_that_is_cancelled_during_the_batch_leaves_the_rest(leaver):
    """The others of its batch are answered; MLServer's batcher leaves the later ones hanging."""

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


def test_when_all_leave_the_next_batch_does_not_wait_for_the_hung_one():
    """A batch that hangs and that nobody waits for any more holds up nobody."""

    async def check():
        bench = Bench()
        hung = await bench.hold()
        hung.cancel()
        await asyncio.gather(hung, return_exceptions=True)
        bench.work.gate.set()
        assert await bench.call("after") == "<after>"

    run(check)


def test_an_expired_member_is_told_and_not_run():
    """Its deadline counts while it waits; the others are answered."""

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


def test_when_there_is_no_time_left_for_a_batch_its_members_are_told():
    """The pool may give up before the deadline; nobody then waits for it in vain."""

    async def check():
        bench = Bench(threads=1)

        async def no_time(function, *, deadline, calls=1):
            raise TimeoutError

        bench.batcher._forecast._expected = 2.0
        bench.batcher._threads.run = no_time  # type: ignore[method-assign]
        outcomes = await asyncio.gather(bench.call("a"), bench.call("b"), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [TimeoutError, TimeoutError]

    run(check)


def test_calls_that_have_gone_are_not_kept():
    """Behind a batch that hangs, those that have left do not pile up."""

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


def test_a_closed_pool_is_told_to_all():
    """Nobody is left waiting when the server stops."""

    async def check():
        bench = Bench()
        bench.batcher._threads.close()
        outcomes = await asyncio.gather(*(bench.call(f"r{n}") for n in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotReady] * 3

    run(check)


def test_ten_thousand_distinct_inputs():
    """Random sizes, some cancelled, some poisoned: none lost, none swapped, none twice."""

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
