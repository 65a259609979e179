"""MLflow's chat APIs, as JSON and typed, at once and in chunks, compared with MLflow's `PyFuncModel`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import mlflow
import pytest
from mlflow_grpc_client import Client, PredictError
from mlflow_grpc_client._cli.describe import Connection, describe

from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import oracle_of
from tests.support import chat_models
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller

TEXT = "Hello over there"
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"properties": {"at": {"type": "string", "enum": ["it"]}}, "type": "object"},
    },
}
EXTRA_FIELDS: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {},
        {"n": 2, "temperature": 0.5, "max_tokens": 5, "stop": ["a", "b"]},
        {"tools": [TOOL]},
        {"custom_inputs": {"deep": [{"a": [1, None, "b", 0.5, True]}], "none": None}},
    ],
    "agent": [
        {},
        {"context": {"conversation_id": "c", "user_id": "u"}},
        {"custom_inputs": {"dicts": True, "deep": [{"a": [1, None, "b", 0.5, True]}]}},
    ],
    "responses": [
        {},
        {"temperature": 0.5, "metadata": {"a": "b"}, "custom_inputs": {"deep": [{"a": [1, None]}]}},
        {"tools": [{"type": "web_search"}], "text": {"format": {"type": "text"}}, "context": {"user_id": "u"}},
    ],
}
CALLS = [
    pytest.param(name, more, id=f"{name} {'+'.join(more)}")
    for name in chat_models.MODELS
    for more in EXTRA_FIELDS[name]
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("chat")
    for name in chat_models.MODELS:
        chat_models.save(name, folder / name)
    return {name: folder / name for name in chat_models.MODELS}


@pytest.fixture(scope="module")
def address(paths) -> Iterator[str]:
    models = [ModelConfig(uri=str(path), name=name, endpoint=True) for name, path in paths.items()]
    with serving_models([(model, None) for model in models]) as running:
        yield running.address


@pytest.fixture(scope="module")
def theirs(paths) -> dict[str, Any]:
    return {name: mlflow.pyfunc.load_model(str(path), suppress_warnings=True) for name, path in paths.items()}


def payload(name: str, more: dict[str, Any]) -> dict[str, Any]:
    """Returns a new payload, because MLflow removes keys from its input."""
    request = {"input" if name == "responses" else "messages": [{"role": "user", "content": TEXT}], **more}
    copy: dict[str, Any] = json.loads(json.dumps(request))
    return copy


def present(value: Any) -> Any:
    """Removes keys with the value None, because the typed client has all fields of a record."""
    if isinstance(value, dict):
        return {key: present(field) for key, field in value.items() if field is not None}
    return [present(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("name", "more"), CALLS)
def test_as_json(address, paths, theirs, name, more):
    """Answers equal those of MLflow's server byte for byte; chunks equal those of `PyFuncModel.predict_stream`."""
    with Client(address) as client, Caller(address) as call:
        status, body = oracle_of(paths[name])(json.dumps(payload(name, more)), "application/json")
        assert (status, call(json.dumps(payload(name, more)), mlflow_model=name)) == (200, body)
        parts = list(client.predict_stream(payload(name, more), model=name))
        assert parts == list(theirs[name].predict_stream(payload(name, more)))
        assert len(parts) > 3


@pytest.mark.parametrize(("name", "more"), CALLS)
def test_typed(address, theirs, name, more):
    """Typed answers have the same values: at once, in a stream of records and in chunks."""
    expected = present(theirs[name].predict(payload(name, more)))
    parts = present(list(theirs[name].predict_stream(payload(name, more))))
    with Client(address) as client:
        model = client.model(name)
        assert present(model.predict(payload(name, more))) == expected
        assert present(list(model.predict_many([payload(name, more)] * 2))) == [expected] * 2
        assert present(list(model.predict_stream(payload(name, more)))) == parts


@pytest.mark.parametrize("name", chat_models.MODELS)
def test_only_working_rpcs_are_offered(address, name):
    """MLflow answers only the first of several rows, so there is no RPC for rows in columns."""
    with Client(address) as client:
        (model,) = [model for model in client.models() if model.name == name]
        typed = [path.rpartition(f"/{name}_")[2] for path in model.rpcs if f"/{name}_" in path]
        assert typed == ["predict", "predict_many", "predict_stream"]
        with pytest.raises(PredictError) as caught:
            client.model(name).predict([payload(name, {})])
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", chat_models.MODELS)
def test_the_call_that_describe_prints(address, theirs, name):
    """The call that --describe prints is answered."""
    with Client(address) as client:
        (model,) = [model for model in client.models() if model.name == name]
        lines = describe(model, Connection(address), client.model(name).contract())
        (line,) = [line for line in lines if line.startswith("    print(")]
        answer = eval(line.removeprefix("    print"), {"client": client})  # noqa: S307 - the line that is tested
        assert present(answer) == present(theirs[name].predict(json.loads(model.example)))


def test_the_messages_of_chunks(address):
    """Messages of chunks have the fields of MLflow's classes, with their own numbers, and a map for other keys."""
    with Caller(address) as call:
        typed = TypedCaller(call.channel)
        fields = {
            name: {field.name: field.number for field in typed.method(f"{name}_predict_stream").output_type.fields}
            for name in chat_models.MODELS
        }
    assert fields["chat"] == {
        "choices": 1, "usage": 2, "id": 3, "model": 4, "object": 5, "created": 6, "custom_outputs": 7, "extra": 1002,
    }  # fmt: skip
    assert fields["agent"] == {"delta": 1, "finish_reason": 2, "custom_outputs": 3, "usage": 4, "extra": 1002}
    if chat_models.HAS_RESPONSES_AGENT:
        assert fields["responses"] == {"type": 1, "custom_outputs": 2, "extra": 1002}


def test_the_proto_file_has_the_messages(address, paths, tmp_path):
    """`mlflow-grpc proto` writes the same messages, and protoc compiles them from the text."""
    from grpc_tools import protoc

    from mlflow_grpc.config import Configuration
    from mlflow_grpc.settings import Settings
    from mlflow_grpc.typed_contract import typed_contract

    models = tuple(ModelConfig(uri=str(path), name=name, endpoint=True) for name, path in paths.items())
    contract = typed_contract(Settings(model_uri="m"), Configuration(models=models), make_lock=True)
    (tmp_path / "model_service.proto").write_text(contract.text)
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{tmp_path}", f"-I{well_known}", f"--descriptor_set_out={tmp_path / 'set'}", "model_service.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    from google.protobuf import descriptor_pb2

    (file,) = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    ours = [
        proto_file
        for proto_file in descriptor_pb2.FileDescriptorSet.FromString(contract.data).file
        if proto_file.name == file.name
    ]
    names = [message.name for message in file.message_type]
    assert [message.name for message in ours[0].message_type] == names
    assert re.search(r"rpc chat_predict_stream\(chat_input\) returns \(stream chat_chunk\);", contract.text)
    assert not re.search(r"^ *// .*:py:class:", contract.text, re.MULTILINE)
