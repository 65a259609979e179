"""engine/thread_pool.py, tested with gates instead of timing."""

import asyncio
import gc
import threading
import time
import weakref

import pytest

from mlflow_grpc.engine.concurrency import LoopSample
from mlflow_grpc.engine.thread_pool import LEARNING_RATE, MAX_ABANDONED, REPLACEMENTS_PER_THREAD, ModelThreadPool
from mlflow_grpc.errors import NotReady
from tests.support.batches import soon, until


class Gate:
    """A function that reports its start and waits until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        self.left = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.go.wait(30)
        self.left.set()
        return "done"

    async def until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 30)


def test_results_and_exceptions_reach_the_caller():
    """The caller gets the function's result or exception."""

    async def check():
        threads = ModelThreadPool(2)
        assert await threads.run(lambda: 3, deadline=soon()) == 3
        with pytest.raises(KeyError, match="x"):
            await threads.run(lambda: {"y": 1}["x"], deadline=soon())

    asyncio.run(check())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, asyncio.CancelledError])
def test_exceptions_special_to_asyncio_are_wrapped(error):
    """An exception with a meaning for the event loop does not act on it."""

    def raises():
        raise error

    async def check():
        threads = ModelThreadPool(1)
        with pytest.raises(RuntimeError) as caught:
            await threads.run(raises, deadline=soon())
        assert isinstance(caught.value.__cause__, error)
        assert await threads.run(lambda: 1, deadline=soon()) == 1

    asyncio.run(check())


def test_functions_beyond_the_size_wait():
    """Two threads run two functions, and a third function waits."""

    async def check():
        threads, gates = ModelThreadPool(2), [Gate(), Gate(), Gate()]
        tasks = [asyncio.create_task(threads.run(gate, deadline=soon())) for gate in gates]
        await gates[0].until_entered()
        await gates[1].until_entered()
        assert not gates[2].entered.is_set()
        gates[0].go.set()
        await gates[2].until_entered()
        for gate in gates:
            gate.go.set()
        assert await asyncio.gather(*tasks) == ["done"] * 3

    asyncio.run(check())


def test_a_burst_after_idleness_uses_every_thread():
    """Jobs that arrive together while one thread is idle do not queue behind that thread."""

    async def check():
        threads = ModelThreadPool(3)
        await threads.run(int, deadline=soon())
        gates = [Gate(), Gate(), Gate()]
        tasks = [asyncio.create_task(threads.run(gate, deadline=soon())) for gate in gates]
        for gate in gates:
            await gate.until_entered()
        for gate in gates:
            gate.go.set()
        await asyncio.gather(*tasks)

    asyncio.run(check())


def test_expired_functions_are_not_run():
    """A function whose turn comes after its deadline is dropped, and its caller gets an error."""

    async def check():
        threads, gate, ran = ModelThreadPool(1), Gate(), []
        first = asyncio.create_task(threads.run(gate, deadline=soon()))
        await gate.until_entered()
        with pytest.raises(TimeoutError):
            await threads.run(lambda: ran.append(1), deadline=time.monotonic())
        gate.go.set()
        assert await first == "done"
        assert await threads.run(lambda: 2, deadline=soon()) == 2
        assert ran == []

    asyncio.run(check())


def test_skipped_functions_do_not_count_as_queued():
    """A function that a thread skips, because it has too little time left, counts neither as waiting nor as abandoned."""

    async def check():
        threads, gate = ModelThreadPool(1), Gate()
        first = asyncio.create_task(threads.run(gate, deadline=soon()))
        await gate.until_entered()
        threads._mean_duration_s = 60.0
        waiting = [asyncio.create_task(threads.run(int, deadline=soon(50))) for _ in range(20)]
        await asyncio.sleep(0)
        gate.go.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[:-1]] == [TimeoutError] * 19
        await first
        assert (threads._pending, threads._abandoned_pending, threads.waiting_requests) == (0, 0, 0)

    asyncio.run(check())


def test_cancelled_waiting_functions_are_not_run():
    """A cancelled function leaves the queue without effect on others."""

    async def check():
        threads, gate, ran = ModelThreadPool(1), Gate(), []
        first = asyncio.create_task(threads.run(gate, deadline=soon()))
        await gate.until_entered()
        leaver = asyncio.create_task(threads.run(lambda: ran.append("leaver"), deadline=soon()))
        stayer = asyncio.create_task(threads.run(lambda: ran.append("stayer"), deadline=soon()))
        await asyncio.sleep(0)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        gate.go.set()
        await asyncio.gather(first, stayer)
        assert ran == ["stayer"]

    asyncio.run(check())


def test_hung_functions_are_replaced():
    """With more hung calls than threads the next call still runs, and the pool shrinks again when they end."""

    async def check():
        threads, gates = ModelThreadPool(2), [Gate() for _ in range(4)]
        for gate in gates:
            task = asyncio.create_task(threads.run(gate, deadline=soon()))
            await gate.until_entered()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await threads.run(lambda: "free", deadline=soon()) == "free"
        for gate in gates:
            gate.go.set()
        await until(lambda: threads._abandoned_running == 0)
        await asyncio.gather(*(threads.run(int, deadline=soon()) for _ in range(20)))
        await until(lambda: threads._threads <= threads.concurrency)

    asyncio.run(check())


def test_replacements_of_hung_functions_are_limited():
    """If all replacements hang, the pool reports that it is exhausted, and recovers when the first call ends."""

    async def check():
        threads = ModelThreadPool(1)
        gates = [Gate() for _ in range(1 + REPLACEMENTS_PER_THREAD)]
        for gate in gates:
            assert not threads.is_exhausted
            task = asyncio.create_task(threads.run(gate, deadline=soon()))
            await gate.until_entered()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert threads.is_exhausted
        waiting = asyncio.create_task(threads.run(lambda: "at last", deadline=soon()))
        await asyncio.sleep(0)
        gates[0].go.set()
        assert await waiting == "at last"
        assert not threads.is_exhausted
        for gate in gates:
            gate.go.set()

    asyncio.run(check())


def test_threads_that_cannot_be_started(monkeypatch, caplog):
    """Without a thread a call is refused. With one thread calls wait for it, and more threads start once that is
    possible."""
    start = threading.Thread.start

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    async def check():
        threads, gates = ModelThreadPool(2), [Gate(), Gate()]
        monkeypatch.setattr(threading.Thread, "start", refuse)
        for _ in range(5):
            with pytest.raises(NotReady):
                await threads.run(int, deadline=soon())
        assert "can't start new thread" in caplog.text
        monkeypatch.setattr(threading.Thread, "start", start)
        first = asyncio.create_task(threads.run(gates[0], deadline=soon()))
        await gates[0].until_entered()
        monkeypatch.setattr(threading.Thread, "start", refuse)
        waiting = asyncio.create_task(threads.run(int, deadline=soon()))
        await asyncio.sleep(0)
        monkeypatch.setattr(threading.Thread, "start", start)
        second = asyncio.create_task(threads.run(gates[1], deadline=soon()))
        await gates[1].until_entered()
        for gate in gates:
            gate.go.set()
        assert (await first, await waiting, await second) == ("done", 0, "done")

    asyncio.run(check())


def test_late_outcomes_are_dropped():
    """A function that ends after its caller has left has no effect, whether it returns or raises."""

    async def check():
        threads, gate = ModelThreadPool(1), Gate()
        task = asyncio.create_task(threads.run(gate, deadline=time.monotonic() + 0.5))
        await gate.until_entered()
        with pytest.raises(TimeoutError):
            await task
        gate.go.set()
        assert await asyncio.to_thread(gate.left.wait, 30)
        assert await threads.run(lambda: 1, deadline=soon()) == 1

    asyncio.run(check())


def test_close_ends_idle_threads_and_fails_waiting_callers():
    """After `close`, no function is accepted, waiting callers get an error, and idle threads end."""

    async def check():
        threads, gate = ModelThreadPool(1), Gate()
        running = asyncio.create_task(threads.run(gate, deadline=soon()))
        await gate.until_entered()
        waiting = asyncio.create_task(threads.run(int, deadline=soon()))
        await asyncio.sleep(0)
        threads.close()
        with pytest.raises(NotReady):
            await waiting
        with pytest.raises(NotReady):
            await threads.run(int, deadline=soon())
        gate.go.set()
        assert await running == "done"
        await until(lambda: threads._threads == 0)

    asyncio.run(check())


def test_results_are_not_kept_alive_by_idle_threads():
    """An idle thread keeps no data of the last call alive."""
    import weakref

    class Big:
        pass

    async def check():
        threads = ModelThreadPool(1)
        big = await threads.run(Big, deadline=soon())
        reference = weakref.ref(big)
        del big
        await until(lambda: threads._busy == 0)
        await until(lambda: reference() is None)

    asyncio.run(check())


def test_each_caller_gets_its_own_result_under_load():
    """Of 10,000 calls on 4 threads, some of which give up, none is lost or swapped."""

    async def check():
        threads = ModelThreadPool(4)

        async def one_call(number):
            if number % 7 == 0:
                task = asyncio.create_task(threads.run(lambda: number, deadline=soon()))
                await asyncio.sleep(0)
                task.cancel()
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                assert outcome == number or isinstance(outcome, asyncio.CancelledError)
            else:
                assert await threads.run(lambda: number, deadline=soon()) == number

        await asyncio.gather(*(one_call(number) for number in range(10_000)))

    asyncio.run(check())


def test_abandoned_calls_are_removed():
    """Abandoned calls behind a hung function keep neither their data nor their position in the queue."""

    async def check():
        pool = ModelThreadPool(1)
        gate = threading.Event()
        held = [asyncio.create_task(pool.run(gate.wait, deadline=soon())) for _ in range(1 + REPLACEMENTS_PER_THREAD)]
        for busy, task in enumerate(held, start=1):
            await until(lambda busy=busy: pool._busy == busy)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert pool.is_exhausted

        class Data:
            pass

        alive = []
        for _ in range(3 * MAX_ABANDONED):
            data = Data()
            alive.append(weakref.ref(data))
            task = asyncio.create_task(pool.run(lambda data=data: data, deadline=soon()))  # type: ignore[misc]
            del data
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            del task
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 1
        assert pool._jobs.qsize() <= MAX_ABANDONED + 1
        gate.set()
        assert await pool.run(lambda: "after", deadline=soon()) == "after"

    asyncio.run(check())


def test_errors_keep_no_data_alive():
    """A failed call's data is freed without a garbage collection."""

    async def check():
        pool = ModelThreadPool(1)

        class Data:
            pass

        data = Data()
        alive = weakref.ref(data)

        def fails(data=data):
            raise ValueError

        del data
        gc.disable()
        try:
            try:
                await pool.run(fails, deadline=soon())
            except ValueError:
                del fails
            await until(lambda: alive() is None)
        finally:
            gc.enable()

    asyncio.run(check())


def test_abandoned_calls_count_until_their_caller_left():
    """An abandoned call counts with the time until its caller left, not with its full duration."""

    async def check():
        pool = ModelThreadPool(1)
        gate = threading.Event()
        began = time.monotonic()
        task = asyncio.create_task(pool.run(gate.wait, deadline=soon()))
        await until(lambda: pool._busy)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        left = time.monotonic()
        await until(lambda: time.monotonic() > left + 0.2)
        gate.set()
        await until(lambda: not pool._busy)
        assert 0 < pool.mean_duration_s <= LEARNING_RATE * (left - began)

    asyncio.run(check())


def test_concurrency_follows_the_limit():
    """Running functions continue when the limit falls, and waiting ones start at once when it rises."""

    async def check():
        threads, gates = ModelThreadPool(2), [Gate() for _ in range(4)]
        tasks = [asyncio.create_task(threads.run(gate, deadline=soon())) for gate in gates]
        await asyncio.gather(gates[0].until_entered(), gates[1].until_entered())
        threads._mean_duration_s = threads._mean_cpu_s = 0.1
        threads.adapt(LoopSample(at=100.0, wait_s=1.0), requests=4)
        assert threads.concurrency == 1
        gates[0].go.set()
        await tasks[0]
        await until(lambda: threads._threads == 1)
        assert not gates[2].entered.is_set()
        gates[1].go.set()
        await gates[2].until_entered()
        assert not gates[3].entered.is_set()
        threads.adapt(LoopSample(at=200.0, wait_s=0.0), requests=4)
        assert threads.concurrency == 2
        await gates[3].until_entered()
        for gate in gates:
            gate.go.set()
        assert await asyncio.gather(*tasks) == ["done"] * 4

    asyncio.run(check())
