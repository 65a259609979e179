"""Refusals by MLflow's chat classes have a path, and models that do not stream have no streaming RPC."""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import grpc
import mlflow
import pytest
from mlflow.pyfunc.model import ChatAgent, ChatModel
from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage
from mlflow_grpc_client import Client, PredictError

from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import Oracle, oracle_of
from tests.support import chat_models, depth
from tests.support.depth import sample
from tests.support.servers import serving_models

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class WholeChat(ChatModel):
    """A ChatModel that does not stream."""

    def predict(self, context: Any, messages: list[ChatMessage], params: Any) -> ChatCompletionResponse:
        return ChatCompletionResponse([ChatChoice(ChatMessage("assistant", "yes"))])


class WholeAgent(ChatAgent):
    """A ChatAgent that does not stream."""

    def predict(self, messages: list[ChatAgentMessage], context: Any = None, custom_inputs: Any = None) -> Any:
        return ChatAgentResponse(messages=[ChatAgentMessage(role="assistant", content="yes", id="1")])


class LateRefusal(ChatAgent):
    """A ChatAgent whose own predict_stream raises NotImplementedError."""

    def predict(self, messages: list[ChatAgentMessage], context: Any = None, custom_inputs: Any = None) -> Any:
        return ChatAgentResponse(messages=[ChatAgentMessage(role="assistant", content="yes", id="1")])

    def predict_stream(
        self, messages: list[ChatAgentMessage], context: Any = None, custom_inputs: Any = None
    ) -> Iterator[Any]:
        raise NotImplementedError


class Broken(LateRefusal):
    """A ChatAgent that streams, and calls a function of its own that is not implemented."""

    def predict_stream(
        self, messages: list[ChatAgentMessage], context: Any = None, custom_inputs: Any = None
    ) -> Iterator[Any]:
        yield not_implemented()


def not_implemented() -> Any:
    raise NotImplementedError("on this device")


STREAMING = ("late", "broken")
"""Models with their own predict_stream."""

MODELS: dict[str, type] = {"chat": WholeChat, "agent": WholeAgent, "late": LateRefusal, "broken": Broken}

if chat_models.HAS_RESPONSES_AGENT:
    from mlflow.pyfunc.model import ResponsesAgent
    from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse

    class WholeResponses(ResponsesAgent):
        """A ResponsesAgent that does not stream."""

        def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
            return ResponsesAgentResponse.model_validate({"output": [self.create_text_output_item("yes", "1")]})

    MODELS["responses"] = WholeResponses


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("refusals")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow recommends ResponsesAgent for all models.
        for name, of in MODELS.items():
            mlflow.pyfunc.save_model(folder / name, python_model=of(), pip_requirements=["mlflow"])
    return {name: folder / name for name in MODELS}


@pytest.fixture(scope="module")
def client(paths) -> Iterator[Client]:
    models = [ModelConfig(uri=str(path), name=name, endpoint=True) for name, path in paths.items()]
    with serving_models([(model, None) for model in models]) as running, Client(running.address) as opened_client:
        yield opened_client


@pytest.fixture(scope="module")
def oracles(paths) -> dict[str, Oracle]:
    return {name: oracle_of(path) for name, path in paths.items()}


USER = {"role": "user", "content": "x"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

NONE: dict[str, Any] = {"type": "object", "properties": {}}
TEXT = {"a": {"type": "text"}}


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def responses(*items: Any, **more: Any) -> dict[str, Any]:
    return {"input": list(items), **more}


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": function}


REFUSED: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (
        "chat",
        chat({"role": "user"}),
        {"messages[0]": "lacks content; it must be a string"},
    ),
    ("chat", chat(USER, {"role": "user", "content": None}), {"messages[1].content": "is null; must be a string"}),
    (
        "chat",
        chat({"role": "assistant", "content": "a", "refusal": "b"}),
        {"messages[0]": "is refused; both 'content' and 'refusal' cannot be set"},
    ),
    ("chat", chat(USER, tools=[{"type": "function"}]), {"tools[0]": "lacks function; it must be an object"}),
    (
        "chat",
        chat(USER, tools=[tool(name="f", parameters=NONE), tool(name="f", parameters={**NONE, "properties": TEXT})]),
        {"tools[1].function.parameters.properties.<1st key>.type": 'is refused; must be "string" or "number" or '},
    ),
    ("agent", chat({"role": "user"}), {"messages[0]": "is refused; either 'content' or 'tool_calls' must be provided"}),
    ("agent", chat(USER, {"role": "user", "content": None}), {"messages[1]": "is refused; either 'content' or"}),
    (
        "agent",
        chat({"role": "tool", "content": "x"}),
        {"messages[0]": "is refused; both 'name' and 'tool_call_id' must be provided for tool messages"},
    ),
    ("responses", responses({"role": "user"}), {"input[0]": "lacks content; it must be a string"}),
    (
        "responses",
        responses(USER, {"role": "user", "content": 5}),
        {"input[1].content": "is a whole number; must be a string"},
    ),
    ("responses", responses({"content": "x"}), {"input[0]": "lacks role; it must be a string"}),
    (
        "responses",
        responses({"role": "bot", "content": "x"}),
        {"input[0]": "is refused; invalid role. Must be 'user', 'assistant', 'system', or 'developer'"},
    ),
    ("responses", responses({"type": "function_call", "name": "f"}), {"input[0]": "lacks arguments"}),
    ("responses", responses({"type": "nonsense"}), {"input[0]": "is refused; invalid type"}),
    (
        "responses",
        responses({"role": "user", "content": [{"type": "input_text"}]}),
        {"input[0].content[0]": "lacks text; it must be a string"},
    ),
    (
        "responses",
        responses({"type": "message", "role": "assistant", "id": "1", "content": [{"type": "output_text"}]}),
        {"input[0].content[0]": "lacks text; it must be there"},
    ),
    (
        "responses",
        responses(USER, metadata={"a": 1}),
        {"metadata.<1st key>": "is a whole number; must be string: text in quotes"},
    ),
    ("responses", responses(USER, custom_inputs=5), {"custom_inputs": "is a whole number; must be Map(Any)"}),
    ("responses", responses(5), {"input[0]": "is a whole number; must be an object"}),
]
AVAILABLE_CASES = [case for case in REFUSED if case[0] in MODELS]


def refusal(call: Any, *arguments: Any, **more: Any) -> PredictError:
    with pytest.raises(PredictError) as caught:
        call(*arguments, **more)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT, caught.value
    return caught.value


@pytest.mark.parametrize(("name", "payload", "expected"), AVAILABLE_CASES)
def test_refusals_have_a_path_in_json_and_typed_calls(client, oracles, name, payload, expected):
    """MLflow answers 400, and both JSON and typed calls name the message, the field and the problem."""
    assert oracles[name](json.dumps(payload), "application/json")[0] == 400
    ((field, description),) = expected.items()
    as_json = refusal(client.predict, payload, model=name)
    assert any(violation.description.startswith(f"{field} {description}") for violation in as_json.violations), as_json
    records = refusal(client.predict, {"dataframe_records": [payload]}, model=name)
    assert any(
        violation.description.startswith(f"dataframe_records[0].{field} {description}")
        for violation in records.violations
    )
    if description.startswith("is null"):
        return  # A message cannot express it except by leaving the field out.
    try:
        typed = refusal(client.model(name).predict, payload)
    except TypeError:
        return  # The message has no such field, and the client has named it.
    assert any(
        violation.field == field and violation.description.startswith(description) for violation in typed.violations
    ), typed


def test_only_the_selected_alternative_is_reported(client):
    """Only the alternative that `role` or `type` selects is reported; a message does not get errors of other item
    types."""
    if "responses" in MODELS:
        error = refusal(client.predict, responses({"role": "user"}), model="responses")
        assert len(error.violations) == 1


FIXED = {
    "The payload does not fit the model's signature.",
    "The record does not fit the model's signature.",
    "The request does not fit the model.",
    "The payload was refused.",
}
ITEMS: list[Any] = [
    5, None, [], {}, "x", {"role": "user"}, {"role": 5, "content": "x"}, {"role": "user", "content": 5},
    {"role": "user", "content": None}, {"role": "user", "content": []}, {"role": "user", "content": [5]},
    {"role": "user", "content": [{}]}, {"role": "user", "content": [{"type": "other"}]}, {"content": "x"},
    {"role": "assistant", "tool_calls": [{}]}, {"role": "assistant", "tool_calls": [{"function": {}}]},
    {"role": "assistant", "tool_calls": [{"function": {"name": 1, "arguments": "{}"}}]},
    {"role": "assistant", "content": "a", "refusal": "b"}, {"role": "tool", "content": "x"},
    {"type": "reasoning"}, {"type": "reasoning", "id": "1", "summary": [{}]}, {"type": "function_call_output"},
    {"type": "function_call_output", "call_id": "1", "output": 5}, {"type": 5}, {"type": "message"},
    {"type": "message", "role": "assistant", "id": "1", "content": []}, {"type": "mcp_approval_request"},
]  # fmt: skip
MORE: list[dict[str, Any]] = [
    {"tools": [{}]}, {"tools": [5]}, {"tools": 5}, {"tools": [{"type": "function"}]}, {"tools": [tool()]},
    {"tools": [tool(name=5)]}, {"tools": [tool(name="f", parameters=5)]}, {"tools": [tool(name="f", parameters={})]},
    {"tools": [tool(name="f", parameters={"properties": {"a": {}}})]}, {"temperature": "warm"}, {"n": 1.5},
    {"tools": [tool(name="f", parameters={"properties": {"a": {"type": "array", "items": {"type": "no"}}}})]},
    {"context": 5}, {"context": None}, {"context": {"user_id": 5}}, {"custom_inputs": 5}, {"metadata": {"a": 1}},
    {"metadata": 5}, {"stop": 5}, {"stop": [5]}, {"reasoning": {"effort": 5}}, {"tool_choice": 5}, {"stream": "x"},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::mlflow_grpc_client.IgnoredColumns")
@pytest.mark.parametrize("name", [name for name in MODELS if name not in STREAMING])
def test_every_refusal_has_a_reason(client, oracles, name):
    """Everything that MLflow refuses among many requests has a path and a message, in JSON and typed calls."""
    make = responses if name == "responses" else chat
    good: Any = USER
    count = 0
    items = [*(make(item) for item in ITEMS), *(make(good, item) for item in ITEMS), *(make(good, **m) for m in MORE)]
    for payload in sample(items, name):
        if oracles[name](json.dumps(payload), "application/json")[0] == 200:
            client.predict(payload, model=name)
            continue
        count += 1
        calls = [(client.predict, payload, {"model": name}), (client.model(name).predict, payload, {})]
        for call, request, more in calls:
            try:
                call(request, **more)
            except PredictError as error:
                assert error.code is grpc.StatusCode.INVALID_ARGUMENT, (payload, error)
                assert error.violations, (payload, error)
                assert error.message not in FIXED, payload
            except (TypeError, ValueError):
                assert call is not client.predict  # The typed client has refused it itself.
            else:
                assert call is not client.predict, payload
    assert count > (20 if depth.is_deep else 2)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in STREAMING])
def test_models_that_do_not_stream_have_no_streaming_rpc(client, paths, name):
    """MLflow marks these models as streaming, but their base classes raise NotImplementedError."""
    payload = responses(USER) if name == "responses" else chat(USER)
    theirs = mlflow.pyfunc.load_model(str(paths[name]), suppress_warnings=True)
    with pytest.raises(NotImplementedError):
        list(theirs.predict_stream(json.loads(json.dumps(payload))))
    (model,) = [model for model in client.models() if model.name == name]
    assert not [path for path in model.rpcs if path.endswith("predict_stream")]
    assert f"/model_grpc_service.ModelgRPCService/{name}_predict" in model.rpcs
    for call in (
        lambda: list(client.predict_stream(payload, model=name)),
        lambda: list(client.model(name).predict_stream(payload)),
    ):
        with pytest.raises(PredictError) as caught:
            call()
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_not_implemented_when_called_is_unimplemented(client):
    """NotImplementedError before the first chunk is UNIMPLEMENTED too."""
    with pytest.raises(PredictError) as caught:
        list(client.predict_stream(chat(USER), model="late"))
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(PredictError) as caught:
        list(client.model("late").predict_stream(chat(USER)))
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_not_implemented_inside_the_model_is_internal(client):
    """NotImplementedError inside the model is INTERNAL like any other exception, because the model does stream."""
    for call in (client.predict_stream(chat(USER), model="broken"), client.model("broken").predict_stream(chat(USER))):
        with pytest.raises(PredictError) as caught:
            list(call)
        assert caught.value.code is grpc.StatusCode.INTERNAL
