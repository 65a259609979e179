"""The routes of rest-model-service where that service is silent: health while loading, other schemas, limits."""

from typing import Any

import pytest
import requests

from mlflow_grpc import config
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.thread_pool import ModelThreadPool
from mlflow_grpc.errors import Overloaded
from mlflow_grpc.settings import Settings
from tests.support.servers import InProcess, serving_models

IRIS, ECHO = "tests.support.rest_models.Iris", "tests.support.newer_models.Echo"

FLOWER = {"sepal_length": 6.1, "sepal_width": 3.0}


def server_of(*models: dict[str, Any], **settings: Any):
    """A server in this process, with models of the configuration file's form."""
    return serving_models([(config.ModelConfig(**model), None) for model in models], http_port=0, **settings)


def get(server: InProcess, path: str) -> tuple[int, Any]:
    response = requests.get(f"{server.url}/api/{path}", timeout=30)
    return response.status_code, response.json()


def predict(server: InProcess, model: str, record: Any, **headers: str) -> requests.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return requests.post(f"{server.url}/api/models/{model}/prediction", json=record, headers=named, timeout=30)


def statuses(server: InProcess) -> list[tuple[int, str]]:
    answers = [get(server, path) for path in ("health", "health/ready", "health/startup")]
    return [(status, *content.values()) for status, content in answers]


HEALTHY, READY, STARTED = (200, "HEALTHY"), (200, "ACCEPTING_TRAFFIC"), (200, "STARTED")
STUCK, REFUSING, NOT_STARTED = (503, "NOT_HEALTHY"), (503, "REFUSING_TRAFFIC"), (503, "NOT_STARTED")


def test_health_while_models_are_loaded():
    """Healthy, not ready, not started; a call of any model is 503 until all are there."""
    running = InProcess(
        Settings(model_uri="(in process)", port=0, http_port=0),
        config.Configuration(models=(config.ModelConfig(class_path=IRIS, endpoint=True),)),
    )
    running.start(None, None)
    try:
        assert statuses(running) == [HEALTHY, REFUSING, NOT_STARTED]
        assert get(running, "models") == (200, {"models": []})
        response = predict(running, "iris_model", FLOWER)
        assert (response.status_code, response.json()["type"]) == (503, "ServiceError")
    finally:
        running.stop()


def test_health_of_a_server(monkeypatch):
    """Healthy, unless calls that do not end hold all threads."""
    with server_of({"class_path": IRIS}) as server:
        assert statuses(server) == [HEALTHY, READY, STARTED]
        monkeypatch.setattr(ModelThreadPool, "is_exhausted", True)
        assert statuses(server)[0] == STUCK
        monkeypatch.undo()
        assert statuses(server)[0] == HEALTHY


def test_health_while_draining():
    """A connection that is open learns that the server refuses traffic, and is still healthy and started."""
    with server_of({"class_path": IRIS}) as server, requests.Session() as session:

        def answers() -> list[tuple[int, str]]:
            responses = [
                session.get(f"{server.url}/api/{path}", timeout=30)
                for path in ("health", "health/ready", "health/startup")
            ]
            return [(response.status_code, *response.json().values()) for response in responses]

        assert answers() == [HEALTHY, READY, STARTED]
        server.run(lambda: server.server.drain())
        assert answers() == [HEALTHY, REFUSING, STARTED]
        url = f"{server.url}/api/models/iris_model/prediction"
        response = session.post(url, json=FLOWER, timeout=30)
        assert (response.status_code, response.json()["type"]) == (503, "ServiceError")


def test_a_name_and_versions_of_the_configuration():
    """A model is called by the name of the configuration; of several versions the default one answers."""
    models = [
        {"class_path": IRIS, "name": "a", "version": version, "configuration": {"scale": scale}}
        for version, scale in (("1", 1.0), ("2", 10.0))
    ]
    with server_of(*models) as server:
        listed = get(server, "models")[1]["models"]
        assert [(model["qualified_name"], model["version"]) for model in listed] == [("a", "1"), ("a", "2")]
        assert get(server, "models/a/metadata")[1]["version"] == "2"
        assert predict(server, "a", FLOWER).json()["score"] == 61.0
        assert predict(server, "iris_model", FLOWER).status_code == 404


def test_models_with_schemas_of_other_libraries():
    """pydantic 1 and the interface before ml-base, which rest-model-service 0.6.0 cannot serve."""
    models = [{"class_path": "tests.support.newer_models.OldStyle"}, {"class_path": "older_models.Iris"}]
    with server_of(*models) as server:
        old, older = (model["qualified_name"] for model in get(server, "models")[1]["models"])
        answer = predict(server, old, {"number": 3}).json()
        assert answer == {"number": 3, "size": "small", "at": "2020-02-29T12:00:00"}
        refused = predict(server, old, {"number": 0})
        assert (refused.status_code, refused.json()["type"]) == (400, "ValidationError")
        assert refused.json()["messages"] == [
            "Field 'body, number' has error 'value_error', ensure this value is greater than 0."
        ]
        assert get(server, f"models/{older}/metadata")[1]["input_schema"]["required"]
        refused = predict(server, older, [])
        assert refused.json()["messages"] == ["Field 'body' has error 'dict_type', Input should be a valid dictionary."]
        assert predict(server, older, {"no": 1}).json()["type"] == "ValidationError"


def test_unknown_fields():
    """A field that the schema ignores is named in a header, and is refused if the server refuses such fields."""
    record = {"name": "a", "born": "2020-02-29", "colour": "red"}
    with server_of({"class_path": ECHO}) as server:
        response = predict(server, "echo", record)
        assert (response.status_code, response.headers["mlflow-ignored-columns"]) == (200, "colour")
    with server_of({"class_path": ECHO, "unknown_columns": "refuse"}) as server:
        response = predict(server, "echo", record)
        assert (response.status_code, response.json()["type"]) == (400, "ValidationError")
        assert "colour" in response.json()["messages"][0]


def test_limits(monkeypatch):
    """Requests that are too large, too late or too many get the statuses of other routes, in the service's format."""
    with server_of({"class_path": IRIS}, max_message_bytes=1024) as server:
        response = predict(server, "iris_model", FLOWER | {"remark": "x" * 2000})
        assert (response.status_code, response.json()["type"]) == (413, "ValidationError")
        response = predict(server, "iris_model", FLOWER, x_request_timeout_s="never")
        assert (response.status_code, response.json()["type"]) == (400, "ValidationError")

        def refuse(*_: object) -> None:
            raise Overloaded("There is no room.", retry_after_s=1.5)

        monkeypatch.setattr(Engine, "open_call", refuse)
        response = predict(server, "iris_model", FLOWER, x_request_id="abc")
        assert (response.status_code, response.json()["type"]) == (429, "ServiceError")
        assert (response.headers["retry-after"], response.headers["x-request-id"]) == ("2", "abc")


@pytest.mark.parametrize("model", ["iris_model", "nothing"])
def test_a_model_without_an_endpoint(model):
    """A model without an endpoint is listed and described, and has no route for predictions."""
    with server_of({"class_path": IRIS, "endpoint": False}, {"class_path": ECHO}) as server:
        assert [entry["qualified_name"] for entry in get(server, "models")[1]["models"]] == ["iris_model", "echo"]
        assert predict(server, model, FLOWER).json() == {"detail": "Not Found"}


def test_metrics_have_a_series_for_each_route():
    """Requests are counted by the template of their route; a path that a caller makes up has no series of its own."""
    with server_of({"class_path": IRIS}) as server:
        predict(server, "iris_model", FLOWER)
        predict(server, "made-up", FLOWER)
        get(server, "made/up")
        text = requests.get(f"{server.url}/metrics", timeout=30).text
        assert 'http_route="/api/models/{name}/prediction",http_response_status_code="200"' in text
        assert 'http_route="/api/models/{name}/prediction",http_response_status_code="404"' in text
        assert 'http_route="/api/{path:path}",http_response_status_code="404"' in text
        assert "made" not in text
