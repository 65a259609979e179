"""services/refusal_pause.py: refused calls wait together."""

import asyncio

from mlflow_grpc.services.refusal_pause import RefusalPause


def test_calls_share_a_pause():
    """All calls that wait go on in the same turn of the event loop; the next call begins another pause."""

    async def main() -> None:
        pause = RefusalPause()
        for _ in range(2):
            calls = [asyncio.create_task(pause.wait()) for _ in range(5)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert all(call.done() for call in calls)

    asyncio.run(main())


def test_a_caller_that_leaves_ends_no_other_call():
    """A call that is cancelled leaves the pause of the others alone."""

    async def main() -> None:
        pause = RefusalPause()
        calls = [asyncio.create_task(pause.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        calls[0].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert outcomes[1:] == [None, None]

    asyncio.run(main())
