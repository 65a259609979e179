"""Service inference.GRPCInferenceService: its methods, its streams, and what it refuses."""

import json
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_grpc import protos
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.payload.codec import TextCodec
from mlflow_grpc.payload.tensors.datatypes import DATATYPES
from tests.support import tensors, zoo
from tests.support.depth import examples
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.servers import Caller, InProcess, serving, serving_models
from tests.support.shared import made_once

IRIS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
SETOSA = [5.1, 3.5, 1.4, 0.2]

MIRRORED = {
    "integer": 2**63 - 1, "number": 0.5, "flag": False, "text": "é", "data": "x", "moment": "2020-02-29T12:00:00.000001Z",
    "day": "2020-02-29", "uuid": "00000000-0000-4000-8000-000000000001", "size": "large", "level": 2, "literal": "B c",
    "part": {"weight": 1.5, "tags": ["x"]}, "parts": [], "numbers": [1.0, None], "counts": {"k": 0},
    "groups": {"g": [1, 2]}, "anything": {"a": [1, "x", None]}, "mixed": [1, "y"], "decimal": "0.10",
    "either": "word", "branch": {"name": "root", "children": [{"name": "leaf", "children": []}]}, "labels": ["one"],
}  # fmt: skip
"""A record of the class AllTypes."""


@pytest.fixture(scope="module")
def server(iris_path, tmp_path_factory) -> Iterator[InProcess]:
    """Two versions of a model that takes doubles, one with every type of column, and one that cannot be loaded."""
    every, optional = (
        made_once(tmp_path_factory, f"zoo_{name}", partial(zoo.save, name))
        for name in ("rows_every_column", "rows_optional")
    )
    models: list[tuple[ModelConfig, Any]] = [
        (ModelConfig(uri=str(iris_path), name="iris", version="1", endpoint=True), None),
        (ModelConfig(uri=str(iris_path), name="iris", version="2", endpoint=True), None),
        (ModelConfig(uri=str(every), name="every", endpoint=True), None),
        (ModelConfig(uri=str(optional), name="optional", endpoint=True), None),
        (ModelConfig(uri="models:/broken/1", name="broken", endpoint=True), "it is broken"),
    ]
    with serving_models(models, http_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def caller(server) -> Iterator[tensors.TensorCaller]:
    with Caller(server.address) as call:
        yield tensors.TensorCaller(call.channel)


def iris(*rows: list[float], **more: Any) -> Any:
    """Makes a request for the rows of iris flowers."""
    columns = zip(*(rows or (SETOSA,)), strict=True)
    inputs = [(name, "FP64", list(column)) for name, column in zip(IRIS, columns, strict=True)]
    return tensors.request("iris", *inputs, **more)


def optional(*inputs: tuple[str, str, list[Any]], **more: Any) -> Any:
    """Makes a request for one row of a model whose other columns are optional."""
    return tensors.request("optional", ("need", "FP64", [1.0]), *inputs, **more)


def labels(response: Any) -> list[str]:
    return tensors.values(response)["output-0"]


def test_health(caller):
    """The server is live and ready, and so is a model that is loaded; unknown and broken ones are not."""
    assert caller.call("ServerLive", tensors.message("ServerLiveRequest")).live
    assert caller.call("ServerReady", tensors.message("ServerReadyRequest")).ready
    ready = {
        (name, version): caller.call(
            "ModelReady", tensors.message("ModelReadyRequest", name=name, version=version)
        ).ready
        for name, version in [("iris", ""), ("iris", "1"), ("iris", "3"), ("broken", ""), ("nobody", "")]
    }
    assert [key for key, is_ready in ready.items() if is_ready] == [("iris", ""), ("iris", "1")]


def test_nothing_is_ready_while_the_server_goes(iris_path):
    """Once health is NOT_SERVING, server and model are not ready, and calls are answered."""
    model = ModelConfig(uri=str(iris_path), name="iris", endpoint=True)
    with serving_models([(model, None)]) as running, Caller(running.address) as call:
        client = tensors.TensorCaller(call.channel)
        running.run(running.server.host.send_callers_away)
        assert not client.call("ServerReady", tensors.message("ServerReadyRequest")).ready
        assert not client.call("ModelReady", tensors.message("ModelReadyRequest", name="iris")).ready
        assert labels(client.infer(iris())) == ["setosa"]


def test_server_metadata(caller):
    """The metadata names the extensions that the server has."""
    metadata = caller.call("ServerMetadata", tensors.message("ServerMetadataRequest"))
    assert metadata.name == "mlflow-grpc"
    assert set(metadata.extensions) == {"binary_tensor_data", "parameters", "model_configuration", "statistics"}


def test_model_metadata(caller):
    """The metadata of a model has a tensor for each column of its signature, and properties for what tensors lack."""
    metadata = caller.call("ModelMetadata", tensors.message("ModelMetadataRequest", name="every"))
    inputs = {column.name: (column.datatype, list(column.shape)) for column in metadata.inputs}
    assert inputs == {
        "boolean": ("BOOL", [-1, 1]), "integer": ("INT32", [-1, 1]), "long": ("INT64", [-1, 1]),
        "float": ("FP32", [-1, 1]), "double": ("FP64", [-1, 1]), "string": ("BYTES", [-1, 1]),
        "binary": ("BYTES", [-1, 1]), "datetime": ("BYTES", [-1, 1]),
    }  # fmt: skip
    assert metadata.platform == "mlflow_pyfunc"
    assert metadata.properties["content_type"] == "pd"
    assert metadata.properties["inputs.datetime.content_type"] == "datetime"
    assert "inputs.binary.content_type" not in metadata.properties
    versions = caller.call("ModelMetadata", tensors.message("ModelMetadataRequest", name="iris")).versions
    assert list(versions) == ["1", "2"]


def test_model_config(caller):
    """The configuration has the shapes without the dimension of the rows."""
    config = caller.call("ModelConfig", tensors.message("ModelConfigRequest", name="iris")).config
    assert config.max_batch_size > 10_000
    assert [(column.name, column.data_type, list(column.dims)) for column in config.input] == [
        (name, 12, [1]) for name in IRIS
    ]
    assert config.HasField("dynamic_batching")
    assert not config.model_transaction_policy.decoupled


def test_statistics(iris_path):
    """Statistics count requests, rows and runs, and their times."""
    model = ModelConfig(uri=str(iris_path), name="iris", endpoint=True)
    with serving_models([(model, None)], http_port=0) as running, Caller(running.address) as call:
        client = tensors.TensorCaller(call.channel)
        client.infer(iris(SETOSA, SETOSA))
        client.infer(iris())
        assert client.outcome(tensors.request("iris", ("no", "FP64", [1.0])))[0] == "INVALID_ARGUMENT"
        (statistics,) = client.call("ModelStatistics", tensors.message("ModelStatisticsRequest")).model_stats
    stats = statistics.inference_stats
    assert (statistics.name, statistics.inference_count, statistics.execution_count) == ("iris", 3, 2)
    assert (stats.success.count, stats.fail.count) == (2, 1)
    assert (stats.compute_infer.count, stats.compute_output.count) == (2, 2)
    assert 0 < stats.compute_infer.ns < stats.success.ns
    assert statistics.last_inference > 1_700_000_000_000


def test_statistics_need_metrics(iris_path):
    """A server without a port for metrics does not offer statistics, and says how to get them."""
    model = ModelConfig(uri=str(iris_path), name="iris", endpoint=True)
    with serving_models([(model, None)]) as running, Caller(running.address) as call:
        client = tensors.TensorCaller(call.channel)
        metadata = client.call("ServerMetadata", tensors.message("ServerMetadataRequest"))
        assert "statistics" not in metadata.extensions
        with pytest.raises(grpc.RpcError, match="--http-port") as caught:
            client.call("ModelStatistics", tensors.message("ModelStatisticsRequest"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_repository(caller):
    """The index lists all models with their states; a model is reloaded in all its versions, and callers bring none."""
    index = caller.call("RepositoryIndex", tensors.message("RepositoryIndexRequest")).models
    assert [(model.name, model.version, model.state) for model in index] == [
        ("iris", "1", "READY"), ("iris", "2", "READY"), ("every", "", "READY"), ("optional", "", "READY"),
        ("broken", "", "UNAVAILABLE"),
    ]  # fmt: skip
    ready = caller.call("RepositoryIndex", tensors.message("RepositoryIndexRequest", ready=True)).models
    assert [model.state for model in ready] == ["READY"] * 4
    caller.call("RepositoryModelLoad", tensors.message("RepositoryModelLoadRequest", model_name="iris"))
    refused: list[tuple[dict[str, Any], str, str]] = [
        ({"model_name": "broken"}, "FAILED_PRECONDITION", "log say why"),
        ({"model_name": "nobody"}, "NOT_FOUND", "no such model"),
        ({}, "INVALID_ARGUMENT", "no model_name"),
        ({"model_name": "iris", "parameters": {"config": {"string_param": "{}"}}}, "UNIMPLEMENTED", "parameters"),
    ]
    for fields, code, text in refused:
        with pytest.raises(grpc.RpcError, match=text) as caught:
            caller.call("RepositoryModelLoad", tensors.message("RepositoryModelLoadRequest", **fields))
        assert caught.value.code().name == code


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RepositoryModelUnload", "configuration"),
        *((f"{owner}SharedMemory{verb}", "no shared memory") for owner in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")),
        ("TraceSetting", "server's flags"),
        ("LogSettings", "server's flags"),
    ],
)  # fmt: skip
def test_what_is_not_implemented(caller, name, text):
    """Methods for what the server does not have are UNIMPLEMENTED, with the reason."""
    with pytest.raises(grpc.RpcError, match=text) as caught:
        caller.call(name, tensors.message(f"{name}Request"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_names_versions_and_ids(caller):
    """A request names the model and its version; the response has both, and the request's id."""
    for version, expected in (("", "2"), ("1", "1")):
        sent = iris(SETOSA, [6.3, 3.3, 6.0, 2.5])
        sent.model_version, sent.id = version, "an id"
        response = caller.infer(sent)
        assert (response.model_name, response.model_version, response.id) == ("iris", expected, "an id")
        assert labels(response) == ["setosa", "virginica"]
    sent.model_name = ""
    assert labels(caller.infer(sent, metadata=[("mlflow-model", "iris/2")])) == ["setosa", "virginica"]


def test_reflection_shows_the_service(server):
    """A reflection client gets the service with its messages."""
    with Caller(server.address) as call:
        database = ProtoReflectionDescriptorDatabase(call.channel)
        assert tensors.NAME in database.get_services()
        service: Any = DescriptorPool(database).FindServiceByName(tensors.NAME)
    assert len(service.methods) == 20
    assert service.FindMethodByName("ModelInfer").input_type.fields_by_name["raw_input_contents"].number == 7


FAULTS: list[tuple[Any, str]] = [
    (iris(shapes={"petal_width_cm": [2, 1]}), "8 bytes, and its shape and datatype need 16"),
    (iris(shapes={"petal_width_cm": [1, 2]}), "need 16"),
    (iris(shapes={"petal_width_cm": [-1, 1]}), "below 0"),
    (iris(shapes={"petal_width_cm": [2**62, 2**62]}), "above"),
    (iris(shapes={"petal_width_cm": [2**39, 2**39, 2**39]}), "need"),
    (iris(shapes={"petal_width_cm": [1] * 33}), "33 dimensions"),
    (iris(shapes={"petal_width_cm": []}), "[rows, 1]"),
    (iris(shapes={"petal_width_cm": [1, 1, 1]}), "[rows, 1]"),
    (iris(is_raw=False, shapes={"petal_width_cm": [3]}), "1 elements, and its shape needs 3"),
    (tensors.request("iris"), "lacks inputs of the model: sepal_length_cm"),
    (tensors.request("iris", ("no", "FP64", [1.0])), "lacks inputs of the model: sepal_length_cm"),
    (tensors.request("every", ("long", "INT64", [1])), "model: boolean, integer, float"),
    (tensors.request("iris", *[("a", "FP64", [1.0])] * 2), "comes twice"),
    (optional(("may_string", "BYTES", ["a"]), ("may_long", "INT64", [1, 2])), "2 rows"),
    (optional(("may_string", "BYTES", [b"\xff"])), "element 0 is not UTF-8"),
    (optional(("may_datetime", "BYTES", [b"2020-01-0\xab"])), "element 0 is not UTF-8"),
    (optional(("may_binary", "BYTES", ["?"]), content_types={"may_binary": "base64"}), "not base64"),
    (optional(("may_binary", "BYTES", ["x"]), content_types={"may_binary": "str"}), "base64 or pd_json"),
    (optional(("may_long", "BYTES", ["1"])), "the model takes INT64"),
    (optional(("may_long", "BYTES", ["x"]), content_types={"may_long": "pd_json"}), "not JSON"),
    (optional(("may_string", "BYTES", ["a"]), content_types={"may_string": "base64"}), "must be str"),
    (iris(content_type="csv"), "content_type of a request is one of"),
    (iris(outputs=["nothing"]), "it has output-0"),
    (iris(outputs=["output-0", "output-0"]), "requested twice"),
]  # fmt: skip


def broken(change: Any) -> Any:
    """Makes a request that a function has broken."""
    sent = iris()
    change(sent)
    return sent


def _set_both(sent: Any) -> None:
    sent.inputs[1].contents.fp64_contents.append(1.0)


def _unset_parameter(sent: Any) -> None:
    sent.parameters["x"].SetInParent()


def _bytes_past_the_end(sent: Any) -> None:
    sent.inputs[0].datatype, sent.raw_input_contents[0] = "BYTES", b"\xff\xff\xff\x7fabcd"


def _bytes_left_over(sent: Any) -> None:
    sent.inputs[0].datatype, sent.raw_input_contents[0] = "BYTES", b"\x01\0\0\0abcd"


def _many_bytes(sent: Any) -> None:
    sent.inputs[0].datatype = "BYTES"
    sent.inputs[0].shape[:] = [2**40, 1]


def _other_field(sent: Any) -> None:
    del sent.raw_input_contents[:]
    sent.inputs[0].contents.fp32_contents.append(1.0)


def _out_of_range(sent: Any) -> None:
    del sent.raw_input_contents[:]
    sent.inputs[0].datatype = "INT8"
    sent.inputs[0].contents.int_contents.append(128)


def _half_without_raw(sent: Any) -> None:
    del sent.raw_input_contents[:]
    sent.inputs[0].datatype = "FP16"


FAULTS += [
    (broken(lambda sent: sent.raw_input_contents.pop()), "3 entries for 4 inputs"),
    (broken(lambda sent: sent.raw_input_contents.append(b"")), "5 entries for 4 inputs"),
    (broken(lambda sent: setattr(sent.inputs[0], "datatype", "FLOAT")), "datatype must be one of"),
    (broken(_set_both), "one of the two"),
    (broken(_unset_parameter), "no value"),
    (broken(_bytes_past_the_end), "element 0 is longer"),
    (broken(_bytes_left_over), "3 bytes after"),
    (broken(_many_bytes), "too few for"),
    (broken(_other_field), "FP64 is in fp64_contents"),
    (broken(_out_of_range), "outside of INT8"),
    (broken(_half_without_raw), "send raw_input_contents"),
]


@pytest.mark.parametrize(("sent", "text"), FAULTS, ids=lambda value: value if isinstance(value, str) else "")
def test_faults(caller, sent, text):
    """An invalid request is INVALID_ARGUMENT, with a message that says what is wrong."""
    outcome, message = caller.outcome(sent)
    assert outcome == "INVALID_ARGUMENT", message
    assert text in message


def test_a_fault_names_its_input(caller):
    """The details of a refusal name the input at fault."""
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(iris(shapes={"petal_width_cm": [2, 1]}))
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert any(detail.Unpack(info) for detail in status.details)
    assert [violation.field for violation in bad.field_violations] == ["petal_width_cm"]
    assert info.reason == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("change", ["input", "output", "classification"])
def test_what_a_tensor_cannot_ask_for(caller, change):
    """Tensors in shared memory and ranked classes are UNIMPLEMENTED."""
    sent = iris(outputs=["output-0"])
    if change == "input":
        sent.inputs[0].parameters["shared_memory_region"].string_param = "r"
        del sent.raw_input_contents[0]
    elif change == "output":
        sent.outputs[0].parameters["shared_memory_region"].string_param = "r"
    else:
        sent.outputs[0].parameters["classification"].int64_param = 2
    assert caller.outcome(sent)[0] == "UNIMPLEMENTED"


DIMENSIONS = st.lists(st.sampled_from([-1, 0, 1, 2, 3, 2**31, 2**40, 2**62]), max_size=4)


@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_any_tensors(caller, data):
    """Whatever the tensors of a request are, it is answered or refused, and the server itself never fails."""
    names = ["need", *(f"may_{name}" for name in ("string", "binary", "long", "boolean", "datetime")), "other"]
    sent = tensors.message("ModelInferRequest", model_name="optional")
    for name in data.draw(st.lists(st.sampled_from(names), max_size=4)):
        tensor = sent.inputs.add(name=name, datatype=data.draw(st.sampled_from([*DATATYPES, "", "bytes"])))
        tensor.shape.extend(data.draw(DIMENSIONS))
        if data.draw(st.booleans()):
            tensor.parameters["content_type"].string_param = data.draw(
                st.sampled_from(["str", "base64", "pd_json", "np"])
            )
        if data.draw(st.integers(0, 4)) == 0:
            tensor.contents.bytes_contents.append(data.draw(st.binary(max_size=4)))
    for _ in range(data.draw(st.integers(0, len(sent.inputs) + 1))):
        sent.raw_input_contents.append(data.draw(st.binary(max_size=24)))
    outcome, message = caller.outcome(sent)
    assert outcome in ("OK", "INVALID_ARGUMENT"), message


def test_declared_sizes_take_no_memory(caller):
    """A declared size allocates nothing: a request of a few bytes cannot make the server reserve memory."""
    tracemalloc.start()
    try:
        for datatype in ("FP64", "BYTES", "BOOL"):
            for shape in ([2**40], [2**40, 2**40], [0, 2**40]):
                sent = tensors.request("every", ("double", datatype, []), shapes={"double": shape})
                assert caller.outcome(sent)[0] == "INVALID_ARGUMENT"
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_too_many_inputs(caller):
    """The number of inputs is limited."""
    sent = tensors.message("ModelInferRequest", model_name="iris")
    for _ in range(65_537):
        sent.inputs.add()
    assert caller.outcome(sent)[0] == "INVALID_ARGUMENT"


def test_a_stream_goes_on_after_errors(caller):
    """Each request of a stream is answered in order: an error, with the id of its request, does not end the stream."""
    sent = [iris() for _ in range(4)]
    for number, message in enumerate(sent):
        message.id = str(number)
    sent[1].model_name = "nobody"
    sent[2].inputs[0].shape[:] = [7]
    answers = caller.stream([*sent[:3], b"\xff", sent[3]])
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2", "", "3"]
    assert [answer.error_message.split(":")[0] for answer in answers] == [
        "", "NOT_FOUND", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "",
    ]  # fmt: skip
    for answer in (answers[0], answers[4]):
        assert labels(answer.infer_response) == ["setosa"]
        assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_streams_of_several_models(caller):
    """Requests of one stream may name different models and versions."""
    first = iris()
    first.model_version = "1"
    answers = caller.stream([first, tensors.request("every", ("long", "INT64", [1])), iris()])
    assert [answer.infer_response.model_version for answer in answers] == ["1", "", "2"]
    assert "lacks inputs" in answers[1].error_message


def test_one_pass_of_rows_in_order(caller):
    """A column-wise request of many rows is answered row by row, in order."""
    rows = np.random.default_rng(1).uniform(0.1, 7, (1000, 4))
    alone = [labels(caller.infer(iris(row.tolist())))[0] for row in rows[:20]]
    assert labels(caller.infer(iris(*rows.tolist())))[:20] == alone


def test_a_server_of_plain_text():
    """A model that takes plain text has no tensors."""
    with serving(FunctionModel(str), TextCodec()) as running, Caller(running.address) as call:
        outcome, message = tensors.TensorCaller(call.channel).outcome(tensors.request("function"))
    assert (outcome, "--payload text" in message) == ("UNIMPLEMENTED", True)


def test_traces_ids_and_metrics(iris_path, collector):
    """A call has the spans, the request id and the counters of every other call."""
    model = ModelConfig(uri=str(iris_path), name="iris", endpoint=True)
    options = {"otlp_endpoint": collector.url, "http_port": 0}
    with serving_models([(model, None)], **options) as running, Caller(running.address) as call:
        rpc: Any = call.channel.unary_unary(f"/{tensors.NAME}/ModelInfer")
        metadata = [("x-request-id", "from-the-test")]
        _, finished = rpc.with_call(iris().SerializeToString(), timeout=30, metadata=metadata)
        metrics = requests.get(f"{running.url}/metrics", timeout=30).text
    assert dict(finished.trailing_metadata())["x-request-id"] == "from-the-test"
    (span,) = collector.named(f"{tensors.NAME}/ModelInfer")
    assert span.attributes["mlflow_grpc.model"] == "iris"
    assert span.attributes["mlflow_grpc.request_id"] == "from-the-test"
    assert list(collector.children(span)) == ["waiting", "decoding", "predicting", "encoding"]
    labels_of_method = f'grpc_service="{tensors.NAME}",grpc_method="ModelInfer"'
    assert f'grpc_server_handled_total{{grpc_type="unary",{labels_of_method},grpc_code="OK"}} 1' in metrics
    assert 'mlflow_grpc_requests_total{model="iris",version="",grpc_code="OK"} 1' in metrics


def test_calls_are_refused_before_they_are_read():
    """A server with one model refuses a call that it has no room for before its request arrives."""
    gated = GatedModel()
    arrives = threading.Event()

    def late() -> Iterator[bytes]:
        assert arrives.wait(60)
        yield b""

    with serving(gated, PlainCodec(), queue_calls=1, threads=1) as running, Caller(running.address) as call:
        first = call.raw.future(protos.Input(value="hold").SerializeToString(), timeout=60)
        gated.wait_until_entered()
        infer: Any = call.channel.stream_unary(f"/{tensors.NAME}/ModelInfer")
        with pytest.raises(grpc.RpcError, match="limit") as caught:
            infer(late(), timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        arrives.set()
        gated.let_go()
        assert first.result(60)


def test_an_mlmodel_package():
    """A model with the MLModel interface has a tensor for each field, and gives the outputs that JSON has."""
    model = ModelConfig(class_path="tests.support.newer_models.Echo", name="echo", endpoint=True)
    with serving_models([(model, None)]) as running, Caller(running.address) as call:
        client = tensors.TensorCaller(call.channel)
        metadata = client.call("ModelMetadata", tensors.message("ModelMetadataRequest", name="echo"))
        assert metadata.platform == "mlmodel_python"
        optional = {
            column.name for column in metadata.inputs if f"inputs.{column.name}.optional" in metadata.properties
        }
        assert optional == {column.name for column in metadata.inputs} - {"name", "born"}
        record = {
            "name": "a", "size": "large", "born": "2020-02-29", "seen": "2020-02-29T12:00:00Z",
            "parts": [{"weight": 1.5, "tags": ["x"]}], "extra": {"k": 2**60}, "count": 3, "flag": True, "inputs": 0.5, "type": "t",
        }  # fmt: skip
        for absent in ((), ("size", "seen", "extra", "flag", "inputs")):
            fields = {name: value for name, value in record.items() if name not in absent}
            inputs = []
            for column in metadata.inputs:
                if column.name in fields:
                    value = fields[column.name]
                    is_text = column.datatype != "BYTES" or isinstance(value, str)
                    inputs.append((column.name, column.datatype, [value if is_text else json.dumps(value)] * 2))
            outputs = tensors.values(client.infer(tensors.request("echo", *inputs)))
            expected = json.loads(call(json.dumps({"instances": [fields] * 2})))["predictions"]
            assert [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)] == expected
        for sent, text in [
            (tensors.request("echo", ("name", "BYTES", ["a"])), "born"),
            (tensors.request("echo", ("name", "BYTES", ["a"]), ("born", "BYTES", ["no date"])), "born"),
            (
                tensors.request("echo", ("name", "BYTES", ["refuse"]), ("born", "BYTES", ["2020-02-29"])),
                "No such thing",
            ),
        ]:
            outcome, message = client.outcome(sent)
            assert (outcome, text in message) == ("INVALID_ARGUMENT", True)


def test_bytes_of_an_mlmodel_package_that_json_does_not_have():
    """Bytes that are not UTF-8 have no JSON; all other outputs have the values and types that they have beside UTF-8."""
    model = ModelConfig(class_path="tests.support.newer_models.Mirror", name="mirror", endpoint=True)
    with serving_models([(model, None)]) as running, Caller(running.address) as call:
        client = tensors.TensorCaller(call.channel)
        described = client.call("ModelMetadata", tensors.message("ModelMetadataRequest", name="mirror"))
        outputs = []
        for data in (b"x", b"\x00\xff"):
            inputs = []
            for column in described.inputs:
                if (value := {**MIRRORED, "data": data}.get(column.name)) is not None:
                    is_json = described.properties[f"inputs.{column.name}.content_type"] == "pd_json"
                    inputs.append((column.name, column.datatype, [json.dumps(value) if is_json else value]))
            response = client.infer(tensors.request("mirror", *inputs))
            outputs.append(
                {
                    output.name: (output.datatype, tensors.content_type(response, index))
                    for index, output in enumerate(response.outputs)
                }
            )
            values = tensors.values(response)
            assert values.pop("data") == [data]
            assert {name: values[name] for name in MIRRORED if name != "data"} == {
                name: [value] for name, value in MIRRORED.items() if name != "data"
            }
    assert outputs[0] == outputs[1]
