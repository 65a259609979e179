"""What a server shows of its models to callers that may call one of them: over each protocol, and in errors."""

import json
from typing import Any

import grpc
import pytest
import requests
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from mlflow_grpc import protos
from mlflow_grpc.access_config import AccessRule
from mlflow_grpc.choices import Service
from mlflow_grpc.config import ModelConfig
from tests.support.access import bearer, lines_of
from tests.support.servers import Caller, serving_models

STEPPER = "tests.support.quick_stepper.Stepper"
TOKENS = {name: f"token-of-{name}-0123456789" for name in ("one", "all", "prober", "caller", "nobody")}
OPEN, HIDDEN = "visible", "classified"
RULES = (
    AccessRule(callers=("one",), models=(OPEN, f"{HIDDEN}/9")),
    AccessRule(callers=("all",)),
    AccessRule(callers=("prober",), models=(HIDDEN,), services=(Service.HEALTH,)),
    AccessRule(callers=("caller",), models=(OPEN,), services=(Service.PREDICT,)),
)
OPEN_INFERENCE, FLIGHT = "/inference.GRPCInferenceService", "/arrow.flight.protocol.FlightService"
HEALTH, TYPED = "/grpc.health.v1.Health", "/model_grpc_service.ModelgRPCService"
MODELS, REFLECTION = "/mlflow_grpc.v1.Models", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

SERVING = b"\x08\x01"
"""A HealthCheckResponse with the status SERVING."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with two models, of which the caller `one` may use one; and rules for three other callers."""
    path = tmp_path_factory.mktemp("access") / "tokens"
    path.write_text(lines_of(TOKENS))
    configs = [ModelConfig(class_path=STEPPER, name=name, version="1", endpoint=True) for name in (OPEN, HIDDEN)]
    with serving_models([(config, None) for config in configs], access=RULES, http_port=0, auth_tokens=path) as running:
        running.run(lambda: running.server.host._loader.offer_typed())
        yield running


@pytest.fixture(scope="module")
def channel(server):
    with Caller(server.address) as caller:
        yield caller.channel


def message(full_name: str, **fields: Any) -> bytes:
    data: bytes = protos.message_named(full_name)(**fields).SerializeToString()
    return data


def call(channel: Any, path: str, data: bytes, caller: str) -> list[bytes]:
    """Returns the answers, or the message of the error, of a call with any number of answers."""
    metadata = tuple(bearer(TOKENS[caller]).items()) if caller else ()
    try:
        return list(channel.stream_stream(path)(iter([data]), timeout=20, metadata=metadata))
    except grpc.RpcError as error:
        failed: Any = error
        return [f"{failed.code().name}: {failed.details()}".encode()]


def calls() -> dict[str, tuple[str, bytes]]:
    """RPCs that may show models, and those that fail with an error about models: paths and requests."""
    descriptor = protos.message_named("arrow.flight.protocol.FlightDescriptor")
    unknown = descriptor(type=descriptor.PATH, path=["unknown"]).SerializeToString()
    model = {"name": OPEN}
    return {
        "ListModels": (f"{MODELS}/ListModels", b""),
        "GetModel": (f"{MODELS}/GetModel", message("mlflow_grpc.v1.GetModelRequest", **model)),
        "GetModel of no model": (f"{MODELS}/GetModel", message("mlflow_grpc.v1.GetModelRequest", name="unknown")),
        "get_models": (f"{TYPED}/get_models", b""),
        "predict without a name": ("/MLflow/predict", message("Input", value="x")),
        "RepositoryIndex": (f"{OPEN_INFERENCE}/RepositoryIndex", b""),
        "ModelStatistics": (f"{OPEN_INFERENCE}/ModelStatistics", b""),
        "ModelMetadata": (f"{OPEN_INFERENCE}/ModelMetadata", message("inference.ModelMetadataRequest", **model)),
        "ModelMetadata of no model": (
            f"{OPEN_INFERENCE}/ModelMetadata",
            message("inference.ModelMetadataRequest", name="unknown"),
        ),
        "ModelInfer": (f"{OPEN_INFERENCE}/ModelInfer", b""),
        "RepositoryModelLoad": (
            f"{OPEN_INFERENCE}/RepositoryModelLoad",
            message("inference.RepositoryModelLoadRequest", model_name="unknown"),
        ),
        "ListFlights": (f"{FLIGHT}/ListFlights", b""),
        "GetFlightInfo": (f"{FLIGHT}/GetFlightInfo", unknown),
        "params": (f"{FLIGHT}/DoAction", message("arrow.flight.protocol.Action", type="params", body=b"unknown")),
        "List": (f"{HEALTH}/List", b""),
        "services": (REFLECTION, reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString()),
        "typed file": (
            REFLECTION,
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="model_grpc_service.ModelgRPCService"
            ).SerializeToString(),
        ),
    }


@pytest.mark.parametrize("name", calls())
def test_no_rpc_shows_another_model(channel, name):
    """No answer and no error names a model that the caller may not use; callers that may use all see both models."""
    answered, everything = (b"".join(call(channel, *calls()[name], caller)) for caller in ("one", "all"))
    assert answered
    assert HIDDEN.encode() not in answered
    if name in ("ListModels", "get_models", "RepositoryIndex", "ModelStatistics", "ListFlights", "List", "typed file"):
        assert OPEN.encode() in answered
        assert HIDDEN.encode() in everything


@pytest.mark.parametrize(
    "path",
    [
        *("/models", "/openapi.json", "/docs", "/api/models", "/version", "/page/server.json", "/v2"),
        *("/v2/models/stats", f"/v2/models/{OPEN}", "/v2/models/unknown", "/metrics"),
    ],
)
def test_no_route_shows_another_model(server, path):
    """No page names a model that the caller may not use, nor do metrics, which are for callers of all models."""
    answered, everything = (
        requests.get(server.url + path, headers=bearer(TOKENS[caller]), timeout=60) for caller in ("one", "all")
    )
    assert answered.status_code == {"/metrics": 403, "/v2/models/unknown": 404}.get(path, 200)
    assert HIDDEN not in answered.text
    if path in ("/models", "/openapi.json", "/api/models", "/v2/models/stats", "/metrics"):
        assert HIDDEN in everything.text
        assert (OPEN in answered.text) is (path != "/metrics")


def test_documents_are_for_their_callers(server):
    """Each caller gets its own OpenAPI document, whoever asked first; a route of another model is not described."""
    for caller in ("one", "all", "one"):
        document = requests.get(f"{server.url}/openapi.json", headers=bearer(TOKENS[caller]), timeout=60).json()
        invoked = {path for path in document["paths"] if path.startswith("/models/")}
        models = [OPEN, HIDDEN] if caller == "all" else [OPEN]
        assert invoked == {f"/models/{model}/invocations" for model in models}
        parameters = document["paths"]["/invocations"]["post"]["parameters"]
        enums = [parameter["schema"]["enum"] for parameter in parameters if parameter.get("name") == "mlflow-model"]
        assert enums in ([], [[f"{model}/1" for model in models]])


def test_the_description_of_another_model_is_refused(server):
    """GET /api/models/NAME/metadata is 403 for a model that the caller may not see."""
    for name, status in ((OPEN, 200), (HIDDEN, 403)):
        url = f"{server.url}/api/models/{name}/metadata"
        assert requests.get(url, headers=bearer(TOKENS["one"]), timeout=30).status_code == status


def reflected(channel: Any, caller: str, **request: Any) -> Any:
    (data,) = call(channel, REFLECTION, reflection_pb2.ServerReflectionRequest(**request).SerializeToString(), caller)
    return reflection_pb2.ServerReflectionResponse.FromString(data)


def test_reflection_has_usable_files_for_each_caller(channel):
    """The file of the typed messages is complete for the caller's models, with comments, and has nothing of others."""
    symbol = "model_grpc_service.ModelgRPCService"
    answer = reflected(channel, "one", file_containing_symbol=symbol)
    (file,) = [
        parsed
        for parsed in map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
        if parsed.name == "model_service.proto"
    ]
    methods = {method.name for method in file.service[0].method}
    assert methods == {"get_models", *(f"{OPEN}_predict{end}" for end in ("", "_many", "_batch"))}
    pool = protos.pool_with(file)
    for method in pool.FindServiceByName(symbol).methods:
        assert method.input_type.full_name
        assert method.output_type.full_name
    comments = {location.leading_comments.strip() for location in file.source_code_info.location}
    assert any("A model to step through." in comment for comment in comments)

    by_all = reflected(channel, "all", file_containing_symbol=symbol).file_descriptor_response
    hidden = f"model_grpc_service.{HIDDEN}_input"
    assert any(f"{HIDDEN}_predict".encode() in data for data in by_all.file_descriptor_proto)
    assert reflected(channel, "one", file_containing_symbol=hidden).error_response.error_code == 5
    assert not reflected(channel, "all", file_containing_symbol=hidden).HasField("error_response")


def test_strangers_learn_no_names_of_models(channel):
    """A caller that is not recognized gets the same answer for the typed RPCs of models that exist, and of others."""
    for name in (OPEN, HIDDEN, "unknown"):
        assert call(channel, f"{TYPED}/{name}_predict", b"", "")[0].startswith(b"UNAUTHENTICATED")
    assert call(channel, f"{TYPED}/unknown_predict", b"", "all") == [b"UNIMPLEMENTED: Method not found!"]
    assert call(channel, f"{TYPED}/{HIDDEN}_predict", b"", "one")[0].startswith(b"PERMISSION_DENIED")


def test_what_reflection_shows_without_models(channel):
    """A caller without the service is refused, and no caller is recognized by a wrong token."""
    assert call(channel, *calls()["services"], "caller")[0].startswith(b"PERMISSION_DENIED")
    assert call(channel, *calls()["services"], "")[0].startswith(b"UNAUTHENTICATED")


def check(channel: Any, name: str, caller: str) -> bytes:
    (answer,) = call(channel, f"{HEALTH}/Check", message("grpc.health.v1.HealthCheckRequest", service=name), caller)
    return answer if answer == SERVING else answer.partition(b":")[0]


def test_health_of_the_server_is_open(channel):
    """The server and its services have no secrets, and a wrong token does not matter."""
    for name in ("", "MLflow", "inference.GRPCInferenceService"):
        assert check(channel, name, "") == SERVING
    assert channel.unary_unary(f"{HEALTH}/List")(b"", timeout=20, metadata=(("authorization", "Bearer x"),))


def test_health_of_models_follows_the_rules(channel, server):
    """Whoever may call or see a model, or has the service health, sees its health, over each protocol; others do not."""
    expected = {
        ("", OPEN): b"UNAUTHENTICATED",
        ("", HIDDEN): b"UNAUTHENTICATED",
        ("", "unknown"): b"UNAUTHENTICATED",
        ("nobody", OPEN): b"PERMISSION_DENIED",
        ("one", OPEN): SERVING,
        ("one", HIDDEN): b"PERMISSION_DENIED",
        ("one", "unknown"): b"NOT_FOUND",
        ("caller", OPEN): SERVING,
        ("prober", HIDDEN): SERVING,
        ("prober", OPEN): b"PERMISSION_DENIED",
        ("all", HIDDEN): SERVING,
    }
    assert {(caller, name): check(channel, name, caller) for caller, name in expected} == expected
    statuses = {b"UNAUTHENTICATED": 401, b"PERMISSION_DENIED": 403, b"NOT_FOUND": 404, SERVING: 200}
    for (caller, name), answer in expected.items():
        headers = bearer(TOKENS[caller]) if caller else {}
        for path in (name, f"{name}/versions/1"):
            response = requests.get(f"{server.url}/v2/models/{path}/ready", headers=headers, timeout=30)
            assert response.status_code == statuses[answer], (caller, path)
        ready = call(channel, f"{OPEN_INFERENCE}/ModelReady", message("inference.ModelReadyRequest", name=name), caller)
        assert ready[0].partition(b":")[0] == {b"NOT_FOUND": b""}.get(answer, answer)
    action = message("arrow.flight.protocol.Action", type="health", body=HIDDEN.encode())
    assert call(channel, f"{FLIGHT}/DoAction", action, "one")[0].startswith(b"PERMISSION_DENIED")
    assert b"SERVING" in call(channel, f"{FLIGHT}/DoAction", action, "all")[0]


def test_a_watcher_sees_its_models_only(channel):
    """Watch is refused for another model, and at once."""
    watch = message("grpc.health.v1.HealthCheckRequest", service=HIDDEN)
    for caller, status in (("one", b"PERMISSION_DENIED"), ("", b"UNAUTHENTICATED")):
        assert call(channel, f"{HEALTH}/Watch", watch, caller)[0].startswith(status)
    metadata = tuple(bearer(TOKENS["all"]).items())
    watching = channel.unary_stream(f"{HEALTH}/Watch")(watch, timeout=20, metadata=metadata)
    assert next(iter(watching)) == SERVING
    watching.cancel()


def test_listed_health_without_rules(tmp_path):
    """Without rules, health is open for those who know a name; names are listed to recognized callers only."""
    path = tmp_path / "tokens"
    path.write_text(lines_of(TOKENS))
    config = ModelConfig(class_path=STEPPER, name=HIDDEN, version="1", endpoint=True)
    with serving_models([(config, None)], auth_tokens=path, http_port=0) as server, Caller(server.address) as caller:
        assert check(caller.channel, HIDDEN, "") == SERVING
        assert requests.get(f"{server.url}/v2/models/{HIDDEN}/ready", timeout=30).status_code == 200
        listed = {name: b"".join(call(caller.channel, f"{HEALTH}/List", b"", name)) for name in ("", "nobody")}
        assert {name: HIDDEN.encode() in data for name, data in listed.items()} == {"": False, "nobody": True}
        assert json.loads(requests.get(f"{server.url}/v2/health/live", timeout=30).text)["live"]
