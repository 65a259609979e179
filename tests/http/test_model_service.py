"""The routes of rest-model-service beside the service itself: both run on the same rest_config.yaml."""

import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from mlflow_grpc.config import Decorator, ModelConfig
from tests.support import zoo
from tests.support.depth import examples, sample
from tests.support.servers import Process, serving_models, start_server

pytestmark = pytest.mark.slow

IRIS, LOOSE = "tests.support.rest_models.Iris", "tests.support.rest_models.LooseEcho"

CONFIG = f"""
service_title: Flowers
version: 1.2.3
description: Guesses
models:
  - class_path: {IRIS}
    create_endpoint: true
    configuration: {{scale: 2}}
  - class_path: {LOOSE}
    create_endpoint: true
  - class_path: tests.support.newer_models.Words
    create_endpoint: false
  - class_path: tests.support.newer_models.Echo
    create_endpoint: true
    decorators:
      - class_path: tests.support.newer_models.Gate
      - class_path: tests.support.newer_models.Suffix
        configuration: {{suffix: "?"}}
"""
CONFIG += "".join(
    f"  - {{class_path: tests.support.{name}, create_endpoint: true}}\n"
    for name in [
        "newer_models.Mirror", "newer_models.Liar", "newer_models.Strict", "particular_models.Unions",
        "particular_models.Nulls", "serialized_models.Rounded", "serialized_models.InBase64", "serialized_models.Bytes",
        "serialized_models.Naive", "serialized_models.Zones", "serialized_models.Alias", "serialized_models.Choices",
        "serialized_models.RootList", "serialized_models.RootScalar", "serialized_models.RootMap",
        "serialized_models.Raises", "serialized_models.Defaults", "serialized_models.Cells",
    ]
)  # fmt: skip

FLOWER = {"sepal_length": 6.1, "sepal_width": 3.0}

RECORDS: dict[str, dict[str, Any]] = {
    "iris_model": FLOWER | {"petals": [1.5, 2], "species": "Iris virginica", "remark": "café ☕"},
    "loose echo": {"x": 1, "y": {"z": [None, True, 1e300]}, "": "é"},
    "echo": {"name": "a", "size": "large", "born": "2020-02-29", "parts": [{"weight": 1, "tags": ["t"]}]},
    "mirror": {
        "integer": 1, "number": 0.5, "flag": True, "text": "t", "data": "b", "moment": "2020-02-29T12:00:00Z",
        "day": "2020-02-29", "uuid": "00000000-0000-4000-8000-000000000000", "decimal": "1.50", "size": "small",
        "level": 2, "literal": "b-c", "part": {"weight": 1}, "parts": [], "numbers": [None, 1], "counts": {"a": 1},
        "groups": {"a": [1]}, "anything": [1], "mixed": [1, "a"], "either": {"weight": 2}, "branch": {"name": "n"},
        "labels": ["a"],
    },
    "liar": {"count": 1, "ratio": 0.5, "word": "nothing"},
    "strict model": {"day": "2020-02-29", "ratio": 0.5},
    "unions": {
        "pet": {"name": "n", "kind": "cat"}, "day": "2020-02-29", "moment": "2020-02-29T12:00:00", "several": ["a"],
        "labels": [1], "part": {"x": 1},
    },
    "nulls": {"number": None, "items": [1], "inner": {"x": None}, "kind": "a"},
    "Rounded": {"value": 1.26},
    "InBase64": {"data": "eA=="},
    "Bytes": {"plain": "x", "encoded": "eA==", "many": ["eA=="], "inner": {"data": "eA=="}},
    "Naive": {"moment": "2020-02-29T12:00:00", "moments": []},
    "Zones": {
        "any": "2020-02-29T12:00:00Z", "naive": "2020-02-29T12:00:00", "aware": "2020-02-29T12:00:00Z",
        "either": "2020-02-29T12:00:00",
    },
    "Alias": {"instances": 1},
    "Choices": {"number": 1},
    "RootList": {"value": 1},
    "RootScalar": {"value": 1},
    "RootMap": {"a": 1},
    "Raises": {"code": "a"},
    "Defaults": {},
    "Cells": {"number": 1, "text": None, "data": ["x"]},
}  # fmt: skip
"""A record for each model that has an endpoint."""

UNANSWERED = {"liar", "strict model", "Defaults"}
"""Models that return what is no instance of a schema, take no record from JSON, or return NaN."""

ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e308, 10**30, "", "text", "5", "2020-02-29", "2020-02-29T12:00:00+01:00", "eA==",
    "é", [], [1], ["a", 1], {}, {"weight": -1}, {"x": 1}, [{}],
]  # fmt: skip

JSON = {"content-type": "application/json"}

Answer = tuple[int, str | None, str]
"""Status, content type and text of a response."""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("service") / "rest_config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def theirs(config):
    """Address of rest-model-service."""
    command = [sys.executable, "-m", "uvicorn", "rest_model_service.main:app", "--port", "0"]
    with Process(command, {"REST_CONFIG": str(config)}) as process:
        url = process.wait_for(r"Uvicorn running on (\S+)")[1]
        process.wait_for("Application startup complete")
        while requests.get(f"{url}/api/health/ready", timeout=30).status_code != 200:
            pass
        yield url


def start(config, *flags: str) -> Process:
    return start_server("--config", str(config), "--http-port", "0", *flags)


def address(process: Process) -> str:
    return process.wait_for(r"ready: .*HTTP on (http://\S+?);")[1]


@pytest.fixture(scope="module")
def ours(config):
    """Address of this server, which shows exceptions as rest-model-service does."""
    with start(config, "--show-exceptions") as process:
        yield address(process)


def ask(url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    response = requests.request(method, url + path, data=body, headers=headers, timeout=30, allow_redirects=False)
    location = response.headers.get("location", "").replace(url, "")
    return response.status_code, response.headers.get("content-type"), location or response.text


def predict(url: str, model: str, record: Any, headers: dict[str, str] = JSON) -> Answer:
    body = record if isinstance(record, bytes) else json.dumps(record).encode()
    return ask(url, "POST", f"/api/models/{model}/prediction", body, headers)


def is_unhandled(answer: Answer) -> bool:
    """True for an answer of rest-model-service that is a fault of the service itself; no client can rely on it."""
    return answer[2] == "Internal Server Error" or "is not JSON serializable" in answer[2]


def assert_alike(theirs: Answer, ours: Answer, what: object) -> None:
    """Compares two answers. Where rest-model-service has a fault, this server has an answer of its own."""
    if not is_unhandled(theirs):
        assert ours == theirs, what
        return
    assert ours[1] == "application/json", what
    content = json.loads(ours[2])
    if ours[0] != 200:
        assert (ours[0], content["type"]) in {(400, "ValidationError"), (500, "ServiceError")}, what


PATHS = [
    "/api/health", "/api/health/ready", "/api/health/startup", "/api/models", "/api/models/", "/api/health/",
    "/api/models/nope/metadata", "/api/models/nope", "/api/models/nope/prediction", "/api/nope", "/api/",
    *(f"/api/models/{name}/metadata" for name in (*RECORDS, "words", "loose%20echo") if name != "Defaults"),
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_what_calls_no_model(theirs, ours, path):
    """Status, content type and body are the same to the byte, for GET and for methods that a route does not have."""
    for method in ("GET", "POST", "DELETE"):
        assert ask(ours, method, path) == ask(theirs, method, path)


@pytest.mark.parametrize("model", RECORDS)
def test_a_record(theirs, ours, model):
    """A valid record has the same answer; what rest-model-service cannot write is written here."""
    expected, got = predict(theirs, model, RECORDS[model]), predict(ours, model, RECORDS[model])
    assert_alike(expected, got, model)
    assert (got[0] == 200) == (model not in UNANSWERED), got


def test_a_schema_without_json(theirs, ours):
    """A default that JSON does not have is a ServiceError at the model's metadata; the text is of this server."""
    answers = [ask(url, "GET", "/api/models/Defaults/metadata") for url in (theirs, ours)]
    assert [(status, json.loads(text)["type"]) for status, _, text in answers] == [(500, "ServiceError")] * 2


def mutated(record: dict[str, Any], draw: random.Random) -> Any:
    """A record with one or two changes: a field that is missing, of another type, or one more."""
    changed = json.loads(json.dumps(record))
    for _ in range(draw.choice((1, 1, 2))):
        name = draw.choice([*changed, "more"])
        if draw.random() < 0.3:
            changed.pop(name, None)
        else:
            changed[name] = draw.choice(ODD)
    return changed


@pytest.mark.parametrize("model", RECORDS)
def test_many_records(theirs, ours, model):
    """Records with missing, wrong, odd and additional fields have the same answers, 32 at a time."""
    draw = random.Random(model)
    records = [mutated(RECORDS[model], draw) for _ in range(examples(150))] + sample(ODD, model, share=2)
    with ThreadPoolExecutor(32) as pool:
        answers = [
            list(pool.map(lambda record, url=url: predict(url, model, record), records)) for url in (theirs, ours)
        ]
    for record, expected, got in zip(records, *answers, strict=True):
        assert_alike(expected, got, record)
    assert sum(not is_unhandled(expected) for expected in answers[0]) > 0


NOTES = [
    "raise", "refuse", "no message", "bad output", "nothing", "a dict", "another class", "nan", "SHOUT", "fine",
]  # fmt: skip


@pytest.mark.parametrize("note", NOTES)
def test_models_that_fail(theirs, ours, note):
    """A model that raises, refuses, or returns what its output schema does not describe."""
    record = FLOWER | {"remark": note}
    assert predict(ours, "iris_model", record) == predict(theirs, "iris_model", record)


BODIES = [
    b"",
    b"null",
    b"[]",
    b"3",
    b'"a"',
    b"\xff",
    b"[" * 100_000,
    b"1" * 5000,
    b"\xef\xbb\xbf{}",
    json.dumps(FLOWER).encode("utf-16"),
]
TYPES = [
    None, "", "application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/json;charset=x",
    "application/vnd.x+json", "application/x-json", "text/json", "text/plain", "text/csv", "multipart/form-data",
    "application/x-www-form-urlencoded", "nonsense",
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_bodies_that_are_no_record(theirs, ours, body):
    """No body, JSON that is no object, text in other encodings."""
    expected, got = predict(theirs, "iris_model", body), predict(ours, "iris_model", body)
    assert_alike(expected, got, body[:20])
    assert got[0] in (200, 400)


@pytest.mark.parametrize("content_type", TYPES)
def test_content_types(theirs, ours, content_type):
    """JSON is read if its content type says so, as FastAPI has it."""
    headers = {} if content_type is None else {"content-type": content_type}
    record = json.dumps(FLOWER).encode()
    assert predict(ours, "iris_model", record, headers) == predict(theirs, "iris_model", record, headers)


def test_malformed_json(theirs, ours):
    """rest-model-service fails at its own message and answers "Internal Server Error"; the message is sent here."""
    assert predict(theirs, "iris_model", b'{"sepal_length": ') == (
        500,
        "text/plain; charset=utf-8",
        "Internal Server Error",
    )
    status, _, text = predict(ours, "iris_model", b'{"sepal_length": ')
    assert status == 400
    message = "Field 'body, 17' has error 'json_invalid', JSON decode error."
    assert json.loads(text) == {"type": "ValidationError", "messages": [message]}


def test_a_fault_in_a_list(theirs, ours):
    """A fault in an element of a list is described with the element's number as its position."""
    record = FLOWER | {"petals": [1, "a"]}
    assert predict(theirs, "iris_model", record)[2] == "Internal Server Error"
    status, _, text = predict(ours, "iris_model", record)
    assert status == 400
    begin = "Field 'body, petals, 1' has error 'float_parsing', Input should be a valid number"
    assert json.loads(text)["messages"][0].startswith(begin)


def test_values_without_json(theirs, ours):
    """Dates and enums are written as pydantic writes them; rest-model-service cannot write them."""
    record = {"name": "a", "size": "large", "born": "2020-02-29"}
    assert is_unhandled(predict(theirs, "echo", record))
    status, _, text = predict(ours, "echo", record)
    assert (status, json.loads(text)["born"], json.loads(text)["size"]) == (200, "2020-02-29", "large")


def test_exceptions_are_not_shown(config):
    """Without --show-exceptions the caller does not get the text of the model's exception; refusals it does get."""
    with start(config) as process:
        url = address(process)
        status, _, text = predict(url, "iris_model", FLOWER | {"remark": "raise"})
        assert (status, json.loads(text)["type"]) == (500, "ServiceError")
        assert "secret" not in text
        refusal = predict(url, "iris_model", FLOWER | {"remark": "refuse"})
        assert json.loads(refusal[2]) == {
            "type": "SchemaValidationError",
            "messages": ["Flowers of this size are not known."],
        }


def test_mlflow_models(tmp_path):
    """An MLflow model is not there, because it has no record schema; within decorators of ml-base it has one."""
    path = tmp_path / "numbers"
    zoo.save("numbers", path)
    decorators = (Decorator(class_path="ml_base.decorator.MLModelDecorator"),)
    models = [
        (ModelConfig(uri=str(path), name="plain", endpoint=True), None),
        (ModelConfig(uri=str(path), name="decorated", decorators=decorators, endpoint=True), None),
    ]
    with serving_models(models, http_port=0) as server:
        listed = requests.get(f"{server.url}/api/models", timeout=30).json()["models"]
        assert [model["qualified_name"] for model in listed] == ["decorated"]
        record = {"a": 1, "b": 0.5}
        status, _, text = predict(server.url, "decorated", record)
        payload = {"dataframe_records": [record]}
        plain = requests.post(f"{server.url}/models/plain/invocations", json=payload, timeout=30).json()
        assert (status, json.loads(text)["input"]) == (200, plain["predictions"]["input"])
        assert predict(server.url, "plain", record)[2] == '{"detail":"Not Found"}'
