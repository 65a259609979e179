"""Health and reflection, tested with their own clients."""

import subprocess
import sys
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from mlflow_grpc.settings import Settings
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.servers import ROOT, Caller, InProcess, serving

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
pb: Any = health_pb2
HealthStub: Any = health_pb2_grpc.HealthStub
Request = reflection_pb2.ServerReflectionRequest


@pytest.fixture
def served():
    with serving(FunctionModel(str), PlainCodec()) as server, grpc.insecure_channel(server.address) as channel:
        yield server, channel


def request(service=""):
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", "MLflow", "grpc.health.v1.Health", "function"])
def test_check(served, service):
    """The server and each of its services are SERVING."""
    _, channel = served
    assert HealthStub(channel).Check(request(service)).status == SERVING


def test_list(served):
    """List returns all statuses."""
    _, channel = served
    statuses = channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.HealthListResponse.FromString,
    )(pb.HealthListRequest()).statuses
    assert {name: status.status for name, status in statuses.items()} == dict.fromkeys(
        [
            *("", "MLflow", "MLflowStream", "arrow.flight.protocol.FlightService", "mlflow_grpc.v1.Models"),
            *("inference.GRPCInferenceService", "grpc.health.v1.Health", "function"),
        ],
        SERVING,
    )


def test_an_unknown_service_is_not_found(served):
    """An unknown service is NOT_FOUND, by the health protocol."""
    _, channel = served
    with pytest.raises(grpc.RpcError) as caught:
        HealthStub(channel).Check(request("nope"))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_watching_an_unknown_service(served):
    """A watcher of an unknown service gets SERVICE_UNKNOWN, and its status once the service exists, by the health
    protocol."""
    server, channel = served
    watch = HealthStub(channel).Watch(request("later"), timeout=20)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    server.run(lambda: server.server.host._health.set_serving(True, "later"))
    assert next(watch).status == SERVING


def test_not_serving_and_unavailable_until_loaded():
    """A server that listens without a model is NOT_SERVING, and calls are UNAVAILABLE: typed ones too, whose methods are
    not known yet."""
    running = InProcess(Settings(model_uri="m", port=0))
    running.start(None, None)
    try:
        with grpc.insecure_channel(running.address) as channel, Caller(running.address) as call:
            stub = HealthStub(channel)
            watch = stub.Watch(request())
            assert next(watch).status == NOT_SERVING
            assert stub.Check(request("MLflow")).status == NOT_SERVING
            assert call.outcome("x")[0] == "UNAVAILABLE"
            assert outcome_of_typed(channel) is grpc.StatusCode.UNAVAILABLE
            running.run(lambda: running.host(FunctionModel(str), PlainCodec()))
            assert next(watch).status == SERVING
            assert call("x") == "x"
            assert outcome_of_typed(channel) is grpc.StatusCode.UNIMPLEMENTED
    finally:
        running.stop()


def outcome_of_typed(channel: grpc.Channel) -> grpc.StatusCode:
    """Calls a typed method that the server does not have."""
    rpc: Any = channel.unary_unary("/model_grpc_service.ModelgRPCService/m_predict")
    with pytest.raises(grpc.RpcError) as caught:
        rpc(b"", timeout=30)
    error: Any = caught.value
    return cast("grpc.StatusCode", error.code())


def test_draining():
    """While a call is in flight after the signal, check and watch return NOT_SERVING, new calls are UNAVAILABLE, and
    the call in flight is answered."""
    model = GatedModel()
    with (
        serving(model, PlainCodec()) as server,
        grpc.insecure_channel(server.address) as channel,
        Caller(server.address) as call,
    ):
        stub = HealthStub(channel)
        watch = stub.Watch(request())
        assert next(watch).status == SERVING
        held = call.raw.future(b"\n\x04hold", timeout=30)
        model.wait_until_entered()
        import asyncio

        draining = asyncio.run_coroutine_threadsafe(server.server.drain(), server._loop)
        assert next(watch).status == NOT_SERVING
        assert stub.Check(request()).status == NOT_SERVING
        assert call.outcome("new")[0] == "UNAVAILABLE"
        assert not draining.done()
        model.let_go()
        assert held.result() == b"\n\x06<hold>"
        assert draining.result(30) == 0


@pytest.mark.slow
def test_stop_ends_watchers():
    """Watchers, which would wait until cancelled, are notified of the shutdown and do not delay it."""
    with serving(FunctionModel(str), PlainCodec()) as server, grpc.insecure_channel(server.address) as channel:
        watches = [HealthStub(channel).Watch(request()) for _ in range(50)]
        for watch in watches:
            assert next(watch).status == SERVING
        server.run(server.server.stop)
        for watch in watches:
            with pytest.raises(grpc.RpcError) as caught:
                next(watch)
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_two_hundred_watchers_delay_no_call(served):
    """Predict and health are answered while 200 watchers are open."""
    server, channel = served
    with Caller(server.address) as call:
        stub = HealthStub(channel)
        calls = [channel.unary_stream("/grpc.health.v1.Health/Watch", request_serializer=None)(b"") for _ in range(200)]
        assert call("x") == "x"
        assert stub.Check(request()).status == SERVING
        for watcher in calls:
            watcher.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection(served, version):
    """Both versions of the protocol list the services and describe the contract."""
    _, channel = served
    listed, described, missing = reflect(
        channel,
        Request(list_services=""),
        Request(file_containing_symbol="MLflow"),
        Request(file_containing_symbol="no.such.thing"),
        version=version,
    )
    assert {"MLflow", "grpc.health.v1.Health"} <= {item.name for item in listed.list_services_response.service}
    assert b"predict" in described.file_descriptor_response.file_descriptor_proto[0]
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def reflect(channel: grpc.Channel, *requests: Any, version: str = "v1") -> list[Any]:
    """Returns reflection's response to each request of a stream."""
    method: Any = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(method(iter(requests), timeout=10))


def files_of(channel: grpc.Channel, request: Any) -> dict[str, FileDescriptorProto]:
    """Returns the files in reflection's responses, by name."""
    (answer,) = reflect(channel, request)
    files = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
    return {file.name: file for file in files}


@pytest.mark.parametrize("path", ["mlflow.proto", "mlflow_grpc/v1/models.proto"])
def test_reflection_includes_comments(served, path, tmp_path):
    """Reflection returns our own .proto files as protoc compiles them, with comments and their locations."""
    _, channel = served
    roots = [f"-I{ROOT}", f"-I{ROOT / 'mlflow_grpc' / 'protos'}"]
    out = f"--descriptor_set_out={tmp_path / 'set'}"
    command = [sys.executable, "-m", "grpc_tools.protoc", *roots, out, "--include_source_info", path]
    subprocess.run(command, check=True)
    (expected,) = FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    assert [location for location in expected.source_code_info.location if location.leading_comments]
    assert files_of(channel, Request(file_by_filename=path)) == {path: expected}


@pytest.mark.parametrize("name", ["Status", "ErrorInfo", "BadRequest", "RetryInfo"])
def test_reflection_includes_the_messages_of_errors(served, name):
    """Reflection has the messages of google.rpc, so that clients can show the details of a status."""
    _, channel = served
    files = files_of(channel, Request(file_containing_symbol=f"google.rpc.{name}"))
    declared = {f"{file.package}.{message.name}" for file in files.values() for message in file.message_type}
    assert f"google.rpc.{name}" in declared
    needed = {dependency for file in files.values() for dependency in file.dependency}
    assert needed <= files.keys()


def test_extensions_by_reflection(served):
    """There are no extensions: an existing message has no numbers, and anything else is NOT_FOUND."""
    _, channel = served
    of_input = reflection_pb2.ExtensionRequest(containing_type="Input", extension_number=7)
    extension_numbers, *missing, nothing = reflect(
        channel,
        Request(all_extension_numbers_of_type="Input"),
        Request(all_extension_numbers_of_type="no.such.thing"),
        Request(file_containing_extension=of_input),
        Request(file_by_filename="no/such.proto"),
        Request(),
    )
    assert extension_numbers.all_extension_numbers_response.base_type_name == "Input"
    assert list(extension_numbers.all_extension_numbers_response.extension_number) == []
    assert [response.error_response.error_code for response in missing] == [grpc.StatusCode.NOT_FOUND.value[0]] * 3
    assert nothing.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_reflection_client_can_call(served):
    """A client without the .proto file fetches the contract and calls it."""
    from google.protobuf import message_factory

    _, channel = served
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName("MLflow").FindMethodByName("predict")
    input_class = message_factory.GetMessageClass(method.input_type)
    output_class: Any = message_factory.GetMessageClass(method.output_type)
    call = channel.unary_unary(
        "/MLflow/predict",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=output_class.FromString,
    )
    assert call(input_class(value="x"), timeout=10).value == "x"


def test_reflection_can_be_turned_off():
    """--no-reflection removes the service."""
    with (
        serving(FunctionModel(str), PlainCodec(), reflection=False) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        method: Any = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as caught:
            next(method(iter([b""]), timeout=10))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
