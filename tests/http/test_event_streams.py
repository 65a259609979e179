"""Answers as server-sent events: the framing of MLflow's agent server, for every model that streams."""

import json
import threading
from http import HTTPStatus

import mlflow
import pytest
import requests
import uvicorn
from mlflow.pyfunc.model import PythonModel

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.errors import ModelFailed
from tests.support import chat_models
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import free_port, serving, serving_models

EVENTS = {"accept": "text/event-stream"}
QUESTION = {"input": [{"role": "user", "content": "a b"}], "custom_inputs": {"k": [1, None, "é"]}}


class Words(PythonModel):
    """Yields one word after the other."""

    def predict(self, context, model_input, params=None):
        raise AssertionError("it is only streamed")

    def predict_stream(self, context, model_input, params=None):
        for word in model_input["text"].split():
            if word == "raise":
                raise ValueError("a secret")
            yield {"word": word}


class Twice(PythonModel):
    """Takes any value, and yields it twice."""

    def predict(self, context, model_input, params=None):
        raise AssertionError("it is only streamed")

    def predict_stream(self, context, model_input, params=None):
        yield from [str(model_input)] * 2


class Upper(PythonModel):
    """Has no stream."""

    def predict(self, context, model_input, params=None):
        return ["whole"]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    signature = mlflow.models.infer_signature([{"text": "a"}], None)
    for name, model in (("words", Words()), ("upper", Upper())):
        mlflow.pyfunc.save_model(folder / name, python_model=model, pip_requirements=["mlflow"], signature=signature)
    mlflow.pyfunc.save_model(folder / "twice", python_model=Twice(), pip_requirements=["mlflow"])
    for name in chat_models.MODELS:
        chat_models.save(name, folder / name)
    models = [ModelConfig(uri=str(path), name=path.name, endpoint=True) for path in sorted(folder.iterdir())]
    with serving_models([(config, None) for config in models], http_port=0) as server:
        yield f"{server.url}/models"


def ask(url, model, payload, **headers):
    return requests.post(f"{url}/{model}/invocations", json=payload, headers=headers, timeout=30)


def events(response):
    """The values of the events but the last, which has to be [DONE]."""
    assert response.status_code == HTTPStatus.OK, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *frames, last, rest = response.text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    assert all(frame.startswith("data: ") for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def test_an_accept_header_asks_for_events(url):
    """One event for each chunk, written as an answer is."""
    response = ask(url, "words", {"dataframe_records": [{"text": "a b"}]}, **EVENTS)
    assert events(response) == [{"predictions": {"word": word}} for word in "ab"]
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("value", ["a b", "", 3, True, None])
def test_a_single_value_is_streamed(url, value):
    """A model without a signature gets a string, a number or null as MLflow passes it on: an array without dimensions."""
    response = ask(url, "twice", {"inputs": value}, **EVENTS)
    assert events(response) == [{"predictions": str(value)}] * 2


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        ("Text/Event-Stream", True),
        ("application/json;q=0.5, text/event-stream; charset=utf-8", True),
        ("text/event-stream;q=0.001", True),
        ("text/event-stream;q=0, application/json", False),
        ("text/event-stream; Q=0.000, */*", False),
        ("text/event-streams", False),
        ("text/*", False),
    ],
)
def test_accept_headers(url, accept, is_stream):
    """Media types are compared without regard to case, and one with the weight 0 is not accepted (RFC 9110)."""
    response = ask(url, "chat", {"messages": [{"role": "user", "content": "a b"}]}, accept=accept)
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type == ("text/event-stream" if is_stream else "application/json")


def test_models_without_a_stream(url):
    """501 for a caller that takes nothing else; one that takes JSON too gets the whole answer."""
    payload = {"dataframe_records": [{"text": "a"}]}
    assert ask(url, "upper", payload, **EVENTS).status_code == HTTPStatus.NOT_IMPLEMENTED
    both = ask(url, "upper", payload, accept="application/json, text/event-stream")
    assert both.json() == {"predictions": ["whole"]}


@pytest.mark.parametrize("model", list(chat_models.MODELS))
def test_a_chat_payload_asks_for_events(url, model):
    """A chat payload with `"stream": true` gets events, and without it a complete answer."""
    key = "input" if model == "responses" else "messages"
    payload = {key: [{"role": "user", "content": "a b"}]}
    assert len(events(ask(url, model, {**payload, "stream": True}))) > 2
    for other in (payload, {**payload, "stream": False}):
        assert ask(url, model, other).headers["content-type"] == "application/json"


def test_the_framing_is_that_of_the_agent_server(url):
    """A ResponsesAgent served by MLflow's own agent server sends the same events."""
    if not chat_models.HAS_RESPONSES_AGENT:
        pytest.skip("this MLflow has no ResponsesAgent")
    server = pytest.importorskip("mlflow.genai.agent_server", reason="this MLflow has no agent server")
    model = chat_models.MODELS["responses"]()

    @server.stream()
    def stream(request):
        yield from (event.model_dump(exclude_none=True) for event in model.predict_stream(request))

    port = free_port()
    agent = uvicorn.Server(uvicorn.Config(server.AgentServer("ResponsesAgent").app, port=port, log_config=None))
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    try:
        while not agent.started:
            thread.join(0.01)
        payload = {**QUESTION, "stream": True}
        theirs = requests.post(f"http://127.0.0.1:{port}/invocations", json=payload, timeout=60)
    finally:
        agent.should_exit = True
        thread.join()
    assert events(ask(url, "responses", payload)) == events(theirs)


class Lines(FunctionModel):
    """Yields a text with all ends of lines."""

    streams = True

    def predict_stream(self, data, params):
        yield "a\rb\r\nc\nd\u2028e"


def test_every_line_of_a_chunk_is_a_line_of_its_event():
    """A carriage return ends a line of an event, alone and before a line feed; what follows is data too."""
    with serving(Lines(str), PlainCodec(), http_port=0) as server:
        response = requests.post(f"{server.url}/invocations", "x", headers=EVENTS, timeout=30)
    event = "data: a\ndata: b\ndata: c\ndata: d\u2028e\n\n"
    assert response.content.decode() == f"{event}data: [DONE]\n\n"


def test_an_error_before_the_first_chunk_has_its_status(url):
    """A caller need not read a stream to learn that there is none."""
    refused = ask(url, "words", {"dataframe_records": [{"txt": "a"}]}, **EVENTS)
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/json")
    failed = ask(url, "words", {"dataframe_records": [{"text": "raise"}]}, **EVENTS)
    assert (failed.status_code, failed.json()["error_code"]) == (400, "BAD_REQUEST")


def test_an_error_after_a_chunk_is_an_event(url):
    """The last one but [DONE]; it does not tell what the model raised."""
    *_, error = events(ask(url, "words", {"dataframe_records": [{"text": "a raise"}]}, **EVENTS))
    assert error.keys() == {"error", "error_code"}
    assert error["error_code"] == "BAD_REQUEST"  # As in an HTTP error.
    assert "secret" not in error["error"]


class Breaks(FunctionModel):
    """Yields a word, and raises."""

    streams = True

    def predict_stream(self, data, params):
        yield "a"
        try:
            raise ValueError("a secret")
        except ValueError as error:
            raise ModelFailed("The model raised.") from error


@pytest.mark.parametrize("show_exceptions", [False, True])
def test_an_error_after_a_chunk_shows_the_exception_on_request(show_exceptions):
    """With --show-exceptions an event shows what an HTTP error shows."""
    with serving(Breaks(str), PlainCodec(), http_port=0, show_exceptions=show_exceptions) as server:
        response = requests.post(f"{server.url}/invocations", "x", headers=EVENTS, timeout=30)
    first, error, *_ = response.text.split("\n\n")
    assert first == "data: a"
    assert ("ValueError: a secret" in error) is show_exceptions
