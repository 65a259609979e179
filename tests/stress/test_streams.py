"""Streams of a hundred thousand records and chunks with a server process: order and memory."""

import json
import resource
from collections.abc import Callable, Iterator
from typing import Any

import mlflow
import pytest

from mlflow_grpc import protos
from tests.stress.conftest import ROWS
from tests.stress.test_load import Use, still_well
from tests.support.servers import Caller, ready_address, start_server
from tests.support.typed import SERVICE, TypedCaller

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]

RECORDS, WARM, BAD = 100_000, 10_000, 997

COUNTER = """
import mlflow
from mlflow.pyfunc.model import PythonModel

class Counter(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input

    def predict_stream(self, context, model_input, params=None):
        for number in range(int(model_input)):
            yield number

mlflow.models.set_model(Counter())
"""


def text_of(number: int) -> str:
    row = ["x" if number % BAD == 0 else float(number % ROWS), 0.0]
    return json.dumps({"dataframe_split": {"columns": ["id", "other"], "data": [row]}})


def as_text(call: Caller) -> tuple[str, Callable[[int], bytes], Callable[[bytes], Any]]:
    """Returns the method, the record of a number, and the number in an answer; None for an error."""

    def read(data: bytes) -> Any:
        output = protos.Output.FromString(data)
        return None if output.HasField("error") else json.loads(output.value)["predictions"][0]

    return (
        "/MLflowStream/predict_many",
        lambda number: protos.Input(value=text_of(number)).SerializeToString(),
        read,
    )


def as_messages(call: Caller) -> tuple[str, Callable[[int], bytes], Callable[[bytes], Any]]:
    """Returns the parts of `as_text` for messages of the model's own types."""
    typed = TypedCaller(call.channel)
    method = typed.method("identity_predict_many")
    record, answer = protos.message_class(method.input_type), protos.message_class(method.output_type)

    def data_of(number: int) -> bytes:
        message: Any = record(other=0.0)
        if number % BAD:
            message.id = float(number % ROWS)
        return bytes(message.SerializeToString())

    def read(data: bytes) -> Any:
        message: Any = answer.FromString(data)
        return None if message.HasField("error") else message.prediction

    return f"/{SERVICE}/identity_predict_many", data_of, read


@pytest.mark.parametrize("way", [as_text, as_messages])
def test_a_hundred_thousand_records(identity, way):
    """Answers and errors come in order; neither side keeps more of a long stream than of a short one."""
    with start_server("-m", str(identity), "--model-name", "identity", "--log-level", "warning") as server:
        address = ready_address(server)
        with Caller(address) as call:
            method, data_of, read = way(call)
            rpc: Any = call.channel.stream_stream(method)
            sent = 0

            def records() -> Iterator[bytes]:
                nonlocal sent
                for number in range(RECORDS):
                    sent += 1
                    yield data_of(number)

            most_ahead, warm = 0, Use(server.popen.pid)
            here_mb = 0.0
            for number, data in enumerate(rpc(records(), timeout=500)):
                assert read(data) == (None if number % BAD == 0 else number % ROWS * 3.0), number
                most_ahead = max(most_ahead, sent - number)
                if number == WARM:
                    warm, here_mb = Use(server.popen.pid), _peak_mb()
            end = Use(server.popen.pid)
            assert number == RECORDS - 1
        print(
            f"{way.__name__}: server {warm.memory_mb:.0f} -> {end.memory_mb:.0f} MB, client at its peak {here_mb:.0f} -> "
            f"{_peak_mb():.0f} MB, at most {most_ahead} records ahead of their answers"
        )
        assert end.memory_mb - warm.memory_mb < 20
        assert _peak_mb() - here_mb < 20
        still_well(address, text_of(1))


def test_a_hundred_thousand_chunks(tmp_path):
    """The chunks of one answer come in order."""
    (tmp_path / "code.py").write_text(COUNTER)
    mlflow.pyfunc.save_model(
        tmp_path / "model", python_model=tmp_path / "code.py", pip_requirements=[], streamable=True
    )
    with start_server("-m", str(tmp_path / "model"), "--payload", "text", "--log-level", "warning") as server:
        address = ready_address(server)
        with Caller(address) as call:
            rpc: Any = call.channel.unary_stream("/MLflowStream/predict_stream")
            warm = Use(server.popen.pid)
            for number, data in enumerate(rpc(protos.Input(value=str(RECORDS)).SerializeToString(), timeout=500)):
                assert protos.Output.FromString(data).value == str(number)
                if number == WARM:
                    warm = Use(server.popen.pid)
            assert number == RECORDS - 1
            end = Use(server.popen.pid)
        print(f"memory {warm.memory_mb:.0f} -> {end.memory_mb:.0f} MB")
        assert end.memory_mb - warm.memory_mb < 20
        still_well(address, "x")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
