"""Functions before and after an MLflow model, over real gRPC: as text, typed, and streamed."""

import json
import threading
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from mlflow_grpc import protos
from mlflow_grpc.choices import Batching, Payload, UnknownColumns
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.loading import load
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings
from tests.support import hooks
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, plain

HERE = "tests.support.hooks"
TWO_ROWS = '{"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2.0], [3.0, 4.0]]}}'
ONE_ROW = '{"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2.0]]}}'


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "sum"
    hooks.save(path)
    return path


def config(path, preprocess=None, postprocess=None, **more):
    named: Any = {"preprocess": preprocess, "postprocess": postprocess}
    paths: Any = {key: f"{HERE}.{name}" for key, name in named.items() if name}
    return ModelConfig(uri=str(path), name="sum", endpoint=True, **paths, **more)


@contextmanager
def served(model, **settings):
    with serving_models([(model, None)], **settings) as running, Caller(running.address) as call:
        yield call


def test_both_hooks_in_json_and_typed(path):
    """Hooks run in a thread of the model. Plain rows, other payloads, a record and rows in columns get the same
    answers."""
    with served(config(path, "noted", "negative")) as call:
        hooks.threads.clear()
        typed = TypedCaller(call.channel)
        expected = {"predictions": [-12.0, -34.0]}
        assert json.loads(call(TWO_ROWS)) == expected
        assert json.loads(call('{"inputs": {"a": ["1.0", 3], "b": [2.0, 4.0]}}')) == expected  # A text is not plain.
        assert json.loads(call("a,b\n1,2\n3,4\n", mlflow_content_type="text/csv")) == expected
        assert plain(typed("sum_predict", typed.input("sum_predict", {"a": 1.0, "b": 2.0}))) == {"prediction": -12.0}
        rows = typed.input("sum_predict_batch", {"a": [1.0, 3.0], "b": [2.0, 4.0]})
        assert plain(typed("sum_predict_batch", rows))["prediction"] == [-12.0, -34.0]
        assert len(hooks.threads) == 5
        assert not {threading.main_thread().name, "asyncio"} & set(hooks.threads)
        assert all(name.startswith("model") for name in hooks.threads), hooks.threads


def test_preprocess_makes_the_columns_of_the_model(path):
    """preprocess gets the caller's columns, and its result is checked against the signature."""
    with served(config(path, "from_raw")) as call:
        assert json.loads(call('{"dataframe_records": [{"raw": 1.5}]}')) == {"predictions": [3.0]}
        status, details = call.outcome('{"dataframe_records": [{"a": 1.5}]}')
        assert status == "INVALID_ARGUMENT"
        assert details is not None
        assert "The result of the hook preprocess does not fit" in details
        assert "b: missing after preprocess, and the model needs it" in details


@pytest.mark.parametrize("batching", [Batching.OFF, Batching.ON])
def test_columns_that_preprocess_uses_are_not_ignored(path, batching):
    """Only columns of the payload that are left in the result of preprocess count as ignored, in every kind of call."""
    used = '{"dataframe_records": [{"raw": 1.5}]}'
    left = TWO_ROWS.replace('"b"', '"b", "c"').replace("2.0", "2.0, 1").replace("4.0", "4.0, 1")
    model = config(path, "from_raw", batching=batching)
    with served(model) as call:
        predict = call.channel.unary_unary("/MLflow/predict")
        stream = call.channel.unary_stream("/MLflowStream/predict_stream")
        for text, expected in ((used, {}), (left, {"mlflow-ignored-columns": "c"})):
            calls: list[Any] = [predict.with_call(protos.Input(value=text).SerializeToString(), timeout=30)[1]]
            if text == used:
                calls.append(stream(protos.Input(value=text).SerializeToString(), timeout=30))
                list(calls[-1])
            for done in calls:
                trailers = dict(done.trailing_metadata())
                assert {key: trailers[key] for key in trailers if key == "mlflow-ignored-columns"} == expected
    with served(model.model_copy(update={"unknown_columns": UnknownColumns.REFUSE})) as call:
        assert json.loads(call(used)) == {"predictions": [3.0]}
        status, details = call.outcome(left)
        assert (status, "c: the model has no such column" in str(details)) == ("INVALID_ARGUMENT", True)


def test_postprocess_applies_to_chunks(path):
    """postprocess is applied to each chunk."""
    with served(config(path, "noted", "negative")) as call:
        method = call.channel.unary_stream("/MLflowStream/predict_stream")
        parts: list[Any] = [
            protos.Output.FromString(answer_part)
            for answer_part in method(protos.Input(value=ONE_ROW).SerializeToString())
        ]
        assert [json.loads(answer_part.value)["predictions"] for answer_part in parts] == [-10.0, -2.0]


@pytest.mark.parametrize(
    ("named", "status", "message"),
    [
        ({"preprocess": "raises"}, "INTERNAL", "The hook preprocess raised an exception"),
        ({"postprocess": "raises"}, "INTERNAL", "The hook postprocess raised an exception"),
        ({"postprocess": "forgets"}, "INTERNAL", "The hook postprocess returned None"),
        ({"preprocess": "refuses"}, "INVALID_ARGUMENT", "The hook preprocess answered INVALID_PARAMETER_VALUE"),
        ({"preprocess": "without_b"}, "INVALID_ARGUMENT", "b: missing after preprocess"),
        ({"preprocess": "three_columns"}, "INVALID_ARGUMENT", "it is of type ndarray, and the model takes a DataFrame"),
        ({"preprocess": "text_in_a"}, "INVALID_ARGUMENT", "and the model takes double"),
    ],
)
@pytest.mark.parametrize("batching", [Batching.AUTO, Batching.ON])
def test_failing_hooks_are_named(path, caplog, named, status, message, batching):
    """The error has the failing hook and a request id, but no text of the exception, which is logged."""
    with served(config(path, batching=batching, **named)) as call, pytest.raises(grpc.RpcError) as caught:
        call(TWO_ROWS, x_request_id="of-a-hook")
    error: Any = caught.value
    assert error.code().name == status
    assert message in error.details()
    assert "secret" not in error.details()
    assert dict(error.trailing_metadata())["x-request-id"] == "of-a-hook"
    if "raises" in named.values():
        assert "ValueError: a secret" in caplog.text
        assert "of-a-hook" in str([vars(record) for record in caplog.records])


@pytest.mark.parametrize(("hook", "is_told"), [("forgets", False), ("raises", True)])
def test_missing_values_are_named_only_for_exceptions(path, hook, is_told):
    """A hook that returns nothing does so for any input, so its error names no missing values."""
    with served(config(path, postprocess=hook)) as call, pytest.raises(grpc.RpcError) as caught:
        call(ONE_ROW.replace("2.0", "null"))
    error: Any = caught.value
    assert error.code().name == "INTERNAL"
    assert ("Missing values may be why" in error.details()) == is_told


def test_typed_answers_must_match_the_signature(path):
    """JSON returns any result of postprocess; typed messages must match the signature."""
    with served(config(path, postprocess="labels")) as call:
        assert json.loads(call(ONE_ROW)) == {"predictions": ["label 3"]}
        typed = TypedCaller(call.channel)
        record = typed.input("sum_predict", {"a": 1.0, "b": 2.0})
        status, details = typed.outcome("sum_predict", record)
        assert status == "INTERNAL"
        assert "The model's output is not what its schema says" in str(details)


@pytest.mark.parametrize(("batching", "together"), [(None, False), (Batching.AUTO, False), (Batching.ON, True)])
def test_calls_are_batched_only_if_the_owner_says_so(path, batching, together):
    """A hook may use all rows that it gets. Only with `on` does it get rows of several calls."""
    model = config(path, "noted", batching=batching)
    loaded = load(model, Settings(model_uri="m"))
    assert loaded.batched is together
    assert loaded.fast_path is not None
    hooks.rows.clear()
    with serving_models([(model, loaded)], batch_wait_s=0.05) as running, Caller(running.address) as call:
        calls = [call.raw.future(protos.Input(value=ONE_ROW).SerializeToString()) for _ in range(20)]
        outputs: list[Any] = [protos.Output.FromString(future.result()) for future in calls]
    answers = {output.value for output in outputs}
    assert [json.loads(value) for value in answers] == [{"predictions": [12.0]}]
    assert (max(hooks.rows) > 1) is together
    assert sum(hooks.rows) == 20


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("no_such_module.clean", "there is no module 'no_such_module'; .*PYTHONPATH"),
        (f"{HERE}.no_such", "the module tests.support.hooks has no no_such"),
        (f"{HERE}.NUMBER", "is not a function, but of type int"),
        (f"{HERE}.Sum", "is not a function, but a class"),
    ],
)
def test_invalid_paths_are_refused(path, hook, message):
    """The server does not start, and the error has the path."""
    with pytest.raises(StartError, match=message) as caught:
        load(ModelConfig(uri=str(path), postprocess=hook, endpoint=True), Settings(model_uri="m"))
    assert hook in str(caught.value)


def test_hooks_and_text_payloads_are_exclusive(path):
    """Hooks take tables, so text payloads are refused."""
    with pytest.raises(StartError, match="--payload text hands the model a text"):
        load(config(path, "noted"), Settings(model_uri="m", payload=Payload.TEXT))
