"""Makes every call that the client has, with only the client and Python installed.

`test_alone.py` runs it in the Pythons that the client supports and the server does not.
"""

import asyncio
import json
import sys
from typing import Any

from mlflow_grpc_client import AsyncClient, Client, DeadlineExceeded, InvalidInput, PredictError, Unavailable

FLOWER: dict[str, Any] = {"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2}
VIRGINICA = {"sepal_length_cm": 6.7, "sepal_width_cm": 3.0, "petal_length_cm": 5.2, "petal_width_cm": 2.3}
RECORDS = {"dataframe_records": [FLOWER, VIRGINICA]}
SPECIES = ["setosa", "virginica"]


def blocking(address: str) -> None:
    """Makes every call of `Client`."""
    with Client(address) as client:
        assert client.health() == "SERVING"
        assert client.predict(RECORDS) == SPECIES
        assert json.loads(client.predict_text(json.dumps(RECORDS))) == {"predictions": SPECIES}
        assert [model.name for model in client.models()] == ["iris"]
        with client.stream([RECORDS, RECORDS]) as answers:
            assert list(answers) == [SPECIES, SPECIES]
        try:
            client.predict({"dataframe_records": [{**FLOWER, "petal_width_cm": "wide"}]})
        except InvalidInput as error:
            assert [violation.field for violation in error.violations] == ["petal_width_cm"]
        else:
            raise AssertionError("a text was taken for a number")
        iris = client.model("iris")
        assert iris.predict(**FLOWER) == "setosa"
        assert iris.predict([FLOWER, VIRGINICA]) == SPECIES
        outcomes = list(iris.predict_many([FLOWER, {"sepal_length_cm": 5.1}, VIRGINICA], on_error="return"))
        assert (outcomes[0], outcomes[2]) == ("setosa", "virginica")
        assert isinstance(outcomes[1], InvalidInput)


async def concurrent(address: str) -> None:
    """Makes every call of `AsyncClient`, several at a time."""
    async with AsyncClient(address) as client:
        assert await client.health() == "SERVING"
        assert await asyncio.gather(*(client.predict(RECORDS) for _ in range(8))) == [SPECIES] * 8
        iris = client.model("iris")
        # All of them wait for the call that fetches the contract.
        assert await asyncio.gather(*(iris.predict(**FLOWER) for _ in range(8))) == ["setosa"] * 8
        async with iris.predict_many([FLOWER, VIRGINICA]) as answers:
            assert [answer async for answer in answers] == SPECIES


async def closed_while_it_waits(address: str) -> None:
    """A closed stream is over, and a stream whose client is closed ends in a PredictError."""
    client = AsyncClient(address)
    stream, next_answer = await _waiting_stream(client)
    await stream.close()
    try:
        await next_answer
    except StopAsyncIteration:
        pass
    else:
        raise AssertionError("an answer to nothing")
    stream, next_answer = await _waiting_stream(client)
    await client.close()
    try:
        await next_answer
    except PredictError:
        pass
    else:
        raise AssertionError("the stream of a closed client ended as if it were complete")


async def _waiting_stream(client):
    """Returns a stream with one answer, and a task that waits for a second one, which never comes."""

    async def one_and_no_end():
        yield RECORDS
        await asyncio.Event().wait()

    stream = client.stream(one_and_no_end())
    assert await anext(stream) == SPECIES
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)  # Lets the task start.
    return stream, task


def unreachable() -> None:
    """Nothing listens on port 1."""
    with Client("127.0.0.1:1") as client:
        try:
            client.predict(RECORDS, timeout_s=2)
        except (Unavailable, DeadlineExceeded):
            return
    raise AssertionError("an answer from nobody")


if __name__ == "__main__":
    assert not {name for name in ("mlflow", "pandas", "mlflow_grpc") if name in sys.modules}
    blocking(sys.argv[1])
    asyncio.run(concurrent(sys.argv[1]))
    asyncio.run(closed_while_it_waits(sys.argv[1]))
    unreachable()
    print("answered in Python {}.{}".format(*sys.version_info))
