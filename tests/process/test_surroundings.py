"""A model finds the same surroundings as in `mlflow models serve`: main thread, event loop, signals, context."""

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from mlflow_grpc import protos
from tests.support import surroundings
from tests.support.servers import Caller, ready_address, start_mlflow_server, start_server

ROWS = [json.dumps({"dataframe_records": [{"a": number + 0.5}]}) for number in range(64)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models, in one folder."""
    folder = tmp_path_factory.mktemp("surroundings")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        surroundings.save(folder / "any")
        surroundings.save_estimator(folder / "estimator")
    return folder


def by_mlflow(model: Path, *payloads: str) -> list[Any]:
    """Returns the answers of a real `mlflow models serve`."""
    process, url = start_mlflow_server(model)
    with process:
        headers = {"Content-Type": "application/json"}
        return [requests.post(url, data=text, headers=headers, timeout=60).json() for text in payloads]


@pytest.fixture(scope="module")
def answers(saved: Path) -> list[Any]:
    """Answers of `mlflow models serve` for the estimator, one row at a time."""
    return by_mlflow(saved / "estimator", *ROWS)


def chunks_of(call: Caller, text: str) -> list[Any]:
    """Returns the chunks of a streamed answer."""
    stream: Any = call.channel.unary_stream("/MLflowStream/predict_stream")
    output: Any = protos.Output
    request = protos.Input(value=text).SerializeToString()
    return [json.loads(output.FromString(data).value) for data in stream(request, timeout=60)]


def test_calls_and_streams(saved):
    """The model is loaded in the main thread, which has an event loop and can set signal handlers. Each call runs in a
    copy of the context that loading left."""
    text = json.dumps({"inputs": [1]})
    expected, again = by_mlflow(saved / "any", text, text)
    assert expected == again
    assert expected["predictions"][:2] == [True, "acme"]
    with start_server("-m", str(saved / "any")) as process, Caller(ready_address(process)) as call:
        assert [json.loads(call(text)) for _ in range(3)] == [expected] * 3
        first, second = chunks_of(call, text)
        assert first == expected
        # A stream has one context: a chunk sees values that the chunk before it has set.
        assert second["predictions"][1] == "set by a call"


def test_batches_and_single_rows(saved, answers):
    """An estimator that sets the context when it is unpickled predicts in that context, batched or not."""
    for batching in ("on", "off"):
        process = start_server("-m", str(saved / "estimator"), "--batching", batching)
        with process, Caller(ready_address(process)) as call, ThreadPoolExecutor(32) as threads:
            assert [json.loads(answer) for answer in threads.map(call, ROWS)] == answers


def test_several_models_and_decorators(saved, answers, tmp_path):
    """Each model has the context of its own loading, also inside a decorator."""
    file = tmp_path / "models.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "models": [
                    {"uri": str(saved / "any"), "name": "first", "configuration": {"tenant": "first"}},
                    {"uri": str(saved / "any"), "name": "second", "configuration": {"tenant": "second"}},
                    {
                        "uri": str(saved / "estimator"),
                        "name": "decorated",
                        "decorators": [{"class_path": "ml_base.decorator.MLModelDecorator"}],
                    },
                ]
            }
        )
    )
    with start_server("--config", str(file)) as process, Caller(ready_address(process)) as call:
        for name in ("first", "second"):
            seen = json.loads(call(json.dumps({"inputs": [1]}), mlflow_model=name))["predictions"]
            assert seen[:2] == [True, name]
        assert json.loads(call(ROWS[0], mlflow_model="decorated")) == answers[0]
