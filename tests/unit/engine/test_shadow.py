"""engine/shadow.py: the bounds of the work of a challenger behind the calls."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mlflow_grpc.challenger_config import Challenger
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.admission import Admission, Stage
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.requests import NoObserver, TextRequest
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.shadow import MAX_WAITING, MAX_WAITING_BYTES, ShadowCalls
from mlflow_grpc.engine.thread_pool import ModelThreadPool
from mlflow_grpc.telemetry.metrics import ALONE
from tests.support.models import FunctionModel, GatedModel, PlainCodec


class Shadowed(NoObserver):
    """Observer of a request that a challenger runs behind."""

    is_shadowed = True


def entry(model: Any, **more: Any) -> Entry:
    admission = Admission(max_requests=1000, max_bytes=2**30, concurrency=1, timeout_s=60)
    admission.stage = Stage.OPEN
    engine = Engine(ModelThreadPool(1), admission, timeout_s=60, **more)
    loaded = ServableModel(model, PlainCodec())
    engine.host(loaded)
    return Entry(ModelConfig(uri="m", endpoint=True), engine, name="m", loaded=loaded)


class Pair:
    """A champion that answers a text, and a challenger behind it."""

    def __init__(self, challenger: Any, timeout_s: float = 60.0) -> None:
        self.metrics = ALONE.metrics(1).add_model(rpcs=0)
        self.champion = entry(FunctionModel(lambda text: f"<{text}>"))
        self.champion.challenger = entry(challenger, metrics=self.metrics)
        self.shadow = ShadowCalls(self.champion, Challenger(uri="c", shadow=True, max_cpu=1.0), timeout_s)
        self.champion.engine.add_layer(self.shadow.around)

    async def call(self, text: str) -> str:
        return await self.champion.engine.predict(TextRequest(text, None, Shadowed()), None)

    def outcomes(self) -> dict[str, int]:
        return {outcome.value: int(counter.total()) for outcome, counter in self.metrics.shadow._outcomes.items()}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.001)

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run(scenario)
        finally:
            for paired in (self.champion, self.champion.challenger):
                assert paired is not None
                paired.engine.threads.close()


def test_a_busy_challenger_drops_what_does_not_fit():
    """Calls are answered meanwhile; one is in the challenger, a limited number waits, and the others are counted."""
    gated = GatedModel()
    pair = Pair(gated)

    async def scenario() -> None:
        assert await pair.call("hold") == "<hold>"
        await asyncio.to_thread(gated.wait_until_entered)
        for number in range(MAX_WAITING + 5):
            assert await pair.call(f"{number}") == f"<{number}>"
        assert pair.outcomes()["dropped"] == 5
        assert await pair.call("x" * (MAX_WAITING_BYTES + 1))
        assert pair.outcomes()["dropped"] == 6
        gated.let_go()
        await pair.until(lambda: sum(pair.outcomes().values()) == MAX_WAITING + 7)
        assert pair.outcomes()["agreed"] == MAX_WAITING + 1

    pair.run(scenario())


def test_a_challenger_that_hangs_gets_no_second_call():
    """Until its run has ended, calls are dropped; then it goes on."""
    gated = GatedModel()
    pair = Pair(gated, timeout_s=0.05)

    async def scenario() -> None:
        await pair.call("hold")
        await pair.until(lambda: pair.outcomes()["failed"] == 1)
        for number in range(3):
            await pair.call(f"{number}")
        await pair.until(lambda: pair.outcomes()["dropped"] == 3)
        assert gated.calls == ["hold"]
        gated.let_go()
        assert pair.champion.challenger is not None
        threads = pair.champion.challenger.engine.threads
        await pair.until(lambda: not threads.abandoned_running)
        await pair.call("again")
        await pair.until(lambda: pair.outcomes()["agreed"] == 1)

    pair.run(scenario())


def test_a_challenger_that_is_gone_drops_calls():
    """Calls that wait while the challenger is replaced by nothing are counted, and answered by the champion."""
    gated = GatedModel()
    pair = Pair(gated)

    async def scenario() -> None:
        await pair.call("hold")
        await asyncio.to_thread(gated.wait_until_entered)
        await pair.call("waits")
        challenger, pair.champion.challenger = pair.champion.challenger, None
        gated.let_go()
        await pair.until(lambda: sum(pair.outcomes().values()) == 2)
        assert (pair.outcomes()["agreed"], pair.outcomes()["dropped"]) == (1, 1)
        pair.champion.challenger = challenger

    pair.run(scenario())
