"""engine/turns.py: the order in which fetched models are loaded."""

import asyncio

from mlflow_grpc.engine.turns import Turns


def test_the_lowest_waiting_number_is_next():
    """The first turn waits for the numbers that arrive soon. Turns then follow the numbers, one at a time, and a
    cancelled task blocks no other."""

    async def scenario() -> list[int]:
        turns, order, inside = Turns([0, 1, 2]), [], 0

        async def load(number: int) -> None:
            nonlocal inside
            async with turns.turn(number):
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                order.append(number)
                inside -= 1

        tasks = [asyncio.ensure_future(load(number)) for number in (5, 2, 3, 1)]
        await asyncio.sleep(0)
        assert turns.waiting == 4
        assert not order
        tasks[2].cancel()
        turns.give_up(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not turns.waiting
        return order

    assert asyncio.run(scenario()) == [1, 2, 5]
