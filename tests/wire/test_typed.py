"""Typed RPCs of MLModel packages and of models with an output signature, over real gRPC."""

import base64
import json
from typing import Any

import grpc
import mlflow
import numpy as np
import pandas as pd
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, DataType

from mlflow_grpc import protos
from mlflow_grpc.config import ModelConfig
from tests.support.depth import examples
from tests.support.newer_models import Everything, Part
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, batch_of, plain, rows_of

NEWER = "tests.support.newer_models."
RECORD = {
    "integer": 2**63 - 1, "number": 0.0, "flag": False, "text": "", "data": "\u00e9", "moment": "2020-02-29T12:00:00.000001Z",
    "day": "2020-02-29", "uuid": "00000000-0000-4000-8000-000000000001", "decimal": "0.10", "size": "large", "level": 2,
    "literal": "B c", "part": {"weight": 1.5, "tags": ["x"]}, "parts": [], "numbers": [1.0, None], "counts": {"k": 0},
    "groups": {"g": [1, 2]}, "anything": {"a": [1, "x", None, False]}, "mixed": [1, "y"], "either": "word",
    "branch": {"name": "root", "children": [{"name": "leaf", "children": []}]}, "labels": ["one"],
}  # fmt: skip
FIELDS = {
    **RECORD,
    "data": base64.b64encode("\u00e9".encode()).decode(),
    "decimal": {"string_value": "0.10"},
    "size": "MIRROR_SIZE_LARGE",
    "literal": "MIRROR_LITERAL_B_C_2",
    "numbers": [{"value": 1.0}, {}],
    "groups": {"g": {"values": [1, 2]}},
    "either": {"string_value": "word"},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One server with MLflow models and MLModel packages."""
    folder = tmp_path_factory.mktemp("models")
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0.5, -1.0]})

    class Outputs(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
        def predict(self, context, model_input, params=None):
            return pd.DataFrame(
                {
                    "long": np.array([2**60] * len(model_input)),
                    "maybe": [None] * len(model_input),
                    "when": [pd.Timestamp("2020-02-29T12:00:00.123456789")] * len(model_input),
                    "list": [[1.5, -0.0]] * len(model_input),
                    "data": [b"\x00\xff"] * len(model_input),
                    "a b": model_input["x"].to_numpy(),
                }
            )

    outputs = Schema(
        [
            ColSpec(DataType.long, "long"),
            ColSpec(DataType.string, "maybe", required=False),
            ColSpec(DataType.datetime, "when"),
            ColSpec(Array(DataType.double), "list"),
            ColSpec(DataType.binary, "data"),
            ColSpec(DataType.double, "a b"),
        ]
    )
    from sklearn.linear_model import LinearRegression, LogisticRegression

    classifier = LogisticRegression().fit(frame, [7, 9])
    regressor = LinearRegression().fit(frame, np.array([[1.0, 2.0], [3.0, 4.0]]))
    for name, estimator in (("classifier", classifier), ("regressor", regressor)):
        signature = infer_signature(frame, estimator.predict(frame))
        mlflow.sklearn.save_model(estimator, folder / name, signature=signature, pip_requirements=["scikit-learn"])
    signature = ModelSignature(inputs=infer_signature(frame).inputs, outputs=outputs)
    mlflow.pyfunc.save_model(
        folder / "outputs", python_model=Outputs(), signature=signature, pip_requirements=["mlflow"]
    )
    models = [
        *(
            ModelConfig(uri=str(folder / name), name=name, endpoint=True)
            for name in ("classifier", "regressor", "outputs")
        ),
        *(ModelConfig(class_path=f"{NEWER}{name}", endpoint=True) for name in ("Mirror", "Echo", "Liar", "OldStyle")),
        ModelConfig(class_path="older_models.Iris", name="older.iris", endpoint=True),
        ModelConfig(class_path=f"{NEWER}Echo", name="echo", version="1.0", endpoint=True),
    ]
    with serving_models([(model_config, None) for model_config in models]) as running, Caller(running.address) as call:
        yield folder, call, TypedCaller(call.channel)


def test_fields_of_all_types_round_trip(served):
    """A record in a message equals the same record as JSON, and its output arrives unchanged."""
    _, call, typed = served
    answer = json.loads(call(json.dumps(RECORD), mlflow_model="mirror"))
    got = typed("mirror_predict", FIELDS)
    answered = plain(got)
    assert answered.pop("moment") == {"seconds": 1582977600, "nanos": 1000}
    assert answered.pop("data").decode() == answer["data"]
    assert answered.pop("size") == 2
    assert answered.pop("literal") == 3
    assert answered.pop("numbers") == [{"value": 1.0}, {}]
    assert answered.pop("decimal") == answer["decimal"]
    assert answered.pop("either") == {"string_value": "word"}
    assert {key: got.groups[key].values[:] for key in got.groups} == {"g": [1, 2]}
    assert dict(got.counts) == {"k": 0}
    for name in ("integer", "number", "flag", "text", "day", "uuid", "level", "part", "anything", "mixed", "labels"):
        assert answered[name] == answer[name], name
    assert answered["branch"] == {"name": "root", "children": [{"name": "leaf"}]}
    assert (answered["defaulted"], answered["strange_name"]) == (7, 0)
    assert not got.HasField("maybe")
    assert not got.HasField("maybe_list")


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"maybe": 0.0}, "maybe", 0.0),
        ({"maybe_list": {}}, "maybe_list", {}),
        ({"maybe_list": {"values": [0]}}, "maybe_list", {"values": [0]}),
        ({"either": {"long_value": 0}}, "either", {"long_value": 0}),
        ({"either": {"Part_value": {"weight": 2.0}}}, "either", {"Part_value": {"weight": 2.0}}),
        ({"defaulted": 9}, "defaulted", 9),
        ({"data": base64.b64encode(b"\xff\x00").decode()}, "data", b"\xff\x00"),
    ],
)
def test_presence_of_fields(served, fields, field, value):
    """Zero, empty and absent are different values, and bytes need not be text."""
    _, _, typed = served
    assert plain(typed("mirror_predict", {**FIELDS, **fields}))[field] == value


@pytest.mark.parametrize(
    ("fields", "violations"),
    [
        ({"part": {"weight": -1.0}}, {"part.weight": "Input should be greater than 0"}),
        ({"integer": None, "defaulted": 1}, {"integer": "Field required", "defaulted": "Input should be greater than or equal to 5"}),
        ({"size": 9}, {"size": "has no value of number 9"}),
        ({"either": {}}, {"either": "has no value in it"}),
        ({"moment": None}, {"moment": "Field required"}),
    ],
)  # fmt: skip
def test_invalid_records_have_a_violation_per_field(served, fields, violations):
    """INVALID_ARGUMENT has an entry for each field, with the schema library's message."""
    _, _, typed = served
    with pytest.raises(grpc.RpcError) as caught:
        typed("mirror_predict", {name: value for name, value in {**FIELDS, **fields}.items() if value is not None})
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert {violation.field: violation.description for violation in bad.field_violations} == violations


def test_outputs_of_mlflow_models(served):
    """Columns have their names, nanoseconds and 64 bits are kept, and unnamed arrays are called prediction, as in JSON."""
    folder, call, typed = served
    row = {"x": 1.0, "y": 0.5}
    got = typed("outputs_predict", row)
    assert (got.long, got.when.seconds, got.when.nanos) == (2**60, 1582977600, 123456789)
    assert (list(got.list), got.data, got.a_b) == ([1.5, -0.0], b"\x00\xff", 1.0)
    assert not got.HasField("maybe")
    for name in ("classifier", "regressor"):
        (expected,) = json.loads(call(json.dumps({"dataframe_records": [row]}), mlflow_model=name))["predictions"]
        prediction = typed(f"{name}_predict", row).prediction
        assert (prediction if name == "classifier" else list(prediction.data)) == expected
        by_mlflow = mlflow.pyfunc.load_model(str(folder / name)).predict(pd.DataFrame([row]))[0]
        assert np.array_equal(prediction if name == "classifier" else prediction.data, by_mlflow)


@pytest.mark.parametrize(
    "word", ["text for a number", "too large", "not whole", "more", "nothing", "inexact", "too few", "too many"]
)
def test_outputs_that_violate_the_schema(served, word):
    """No value is changed to fit: the model is at fault. Values that fit exactly are written."""
    _, _, typed = served
    status, details = typed.outcome("liar_predict", {"count": 1, "ratio": 1.0, "word": word})
    assert status == "INTERNAL"
    assert "is not what its schema says" in details
    assert plain(typed("liar_predict", {"count": 1, "ratio": 1.0, "word": "whole float"})) == {"count": 3, "ratio": 2.0}


def test_packages_of_all_kinds(served):
    """pydantic 1, the older interface, names that are not identifiers, and two versions of one model work."""
    _, _, typed = served
    assert plain(typed("old_style_predict", {"number": 3}))["number"] == 3
    older = typed("older_iris_predict", {"sepal_length": 5.1, "petal": {"length": 1.4}})
    assert older.species == 1
    assert older.DESCRIPTOR.fields_by_name["species"].enum_type.values_by_number[1].name == "OLDER_IRIS_SPECIES_SETOSA"
    names = [method.name for method in typed.service.methods]
    assert [name for name in names if name.endswith(("get_models", "_predict"))] == [
        "get_models", "classifier_predict", "regressor_predict", "outputs_predict", "mirror_predict", "echo_predict",
        "liar_predict", "old_style_predict", "older_iris_predict", "echo_1_0_predict",
    ]  # fmt: skip
    versions = {
        model.predict_operation: (model.major_version, model.minor_version) for model in typed("get_models", {}).models
    }
    assert versions["echo_predict"] == (1, 2)
    assert versions["echo_1_0_predict"] == (1, 0)
    assert versions["older_iris_predict"] == (0, 1)


def test_get_model_lists_renamed_fields(served):
    """GetModel has the model's name for each renamed field or enum value, and the messages that are not records."""
    _, call, typed = served
    rpc: Any = call.channel.unary_unary("/mlflow_grpc.v1.Models/GetModel")
    request, model = (protos.message_named(f"mlflow_grpc.v1.{name}") for name in ("GetModelRequest", "Model"))
    model_info = model.FromString(rpc(request(name="outputs").SerializeToString(), timeout=30))
    assert dict(model_info.output.field_names) == {"a_b": "a b"}
    assert not model_info.input.field_names
    package = "model_grpc_service.outputs_"
    assert dict(model_info.names) == {f"{package}output.a_b": "a b", f"{package}outputs.a_b": "a b"}
    model_info = model.FromString(rpc(request(name="classifier").SerializeToString(), timeout=30))
    package = "model_grpc_service.classifier_"
    assert dict(model_info.names) == {f"{package}output.prediction": "", f"{package}outputs.prediction": ""}
    model_info = model.FromString(rpc(request(name="mirror").SerializeToString(), timeout=30))
    assert dict(model_info.input.field_names) == {"strange_name": "strange name!"}
    original_names = {name.rpartition(".")[2]: word for name, word in model_info.names.items()}
    assert (
        original_names.items()
        >= {"strange_name": "strange name!", "MIRROR_SIZE_LARGE": "large", "MIRROR_LITERAL_B_C_2": "B c"}.items()
    )
    assert not any(name.endswith("UNSPECIFIED") for name in model_info.names)
    messages = {
        field.message_type.full_name for field in typed.method("mirror_predict").input_type.fields if field.message_type
    }
    boxes = {name.rpartition("_")[2] for name in messages & set(model_info.wrappers)}
    assert boxes == {"value", "values"}
    assert not any(name.endswith(("_Part", "_Branch", "_union")) for name in model_info.wrappers)
    model_info = model.FromString(rpc(request(name="regressor").SerializeToString(), timeout=30))
    assert model_info.names["model_grpc_service.regressor_output.prediction"] == ""
    assert list(model_info.wrappers) == [typed.method("regressor_predict").output_type.fields[0].message_type.full_name]


def test_get_model_lists_required_and_defaulted_fields(served):
    """GetModel has the numbers of the fields that pydantic requires or gives a default, also of nested records."""
    _, call, typed = served
    rpc: Any = call.channel.unary_unary("/mlflow_grpc.v1.Models/GetModel")
    request, model = (protos.message_named(f"mlflow_grpc.v1.{name}") for name in ("GetModelRequest", "Model"))
    rules = model.FromString(rpc(request(name="echo").SerializeToString(), timeout=30)).field_rules
    inputs = typed.method("echo_predict").input_type
    for descriptor, schema in ((inputs, Everything), (inputs.fields_by_name["parts"].message_type, Part)):
        fields: dict[str, Any] = {field.alias or name: field for name, field in schema.model_fields.items()}
        rule = rules[descriptor.full_name]
        required = {descriptor.fields_by_number[number].name for number in rule.required}
        defaulted = {descriptor.fields_by_number[number].name for number in rule.defaulted}
        assert required == {name for name, field in fields.items() if field.is_required()}
        assert defaulted == {name for name in fields.keys() - required if fields[name].get_default() is not None}


def test_concurrent_callers_get_their_own_answers(served):
    """Typed calls and JSON calls to a model share its batches."""
    _, call, typed = served
    from concurrent.futures import ThreadPoolExecutor

    rows = [{"x": number / 7, "y": -number / 3} for number in range(examples(400))]
    with ThreadPoolExecutor(16) as pool:
        by_type = list(pool.map(lambda row: list(typed("regressor_predict", row).prediction.data), rows))
        payloads = [json.dumps({"dataframe_records": [row]}) for row in rows]
        by_text = list(
            pool.map(lambda text: json.loads(call(text, mlflow_model="regressor"))["predictions"][0], payloads)
        )
    assert by_type == by_text


ROWS: dict[str, list[dict[str, Any]]] = {
    "classifier": [{"x": 1.0, "y": 0.5}, {"x": 2.0, "y": -1.0}, {"x": -3.0, "y": 0.0}],
    "regressor": [{"x": 1.0, "y": 0.5}, {"x": 2.0, "y": -1.0}],
    "outputs": [{"x": 1.0, "y": 0.5}, {"x": 2.0, "y": -1.0}],
    "mirror": [
        FIELDS,
        {**FIELDS, "maybe": 0.0, "maybe_list": {"values": [0]}, "counts": {}, "labels": [], "text": "other"},
        {**FIELDS, "maybe_list": {}, "either": {"long_value": 0}, "groups": {}, "defaulted": 9},
    ],
    "old_style": [{"number": 3}, {"number": 1}],
    "older_iris": [{"sepal_length": 5.1, "petal": {"length": 1.4}}],
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_get_the_answers_of_single_records(served, name):
    """Scalars, enums, unions, nested records, tensors and absent values have the same answers in columns as alone."""
    _, _, typed = served
    records = [typed.input(f"{name}_predict", fields) for fields in ROWS[name]]
    alone = [typed(f"{name}_predict", record) for record in records]
    together = typed(f"{name}_predict_batch", batch_of(typed, name, records))
    assert rows_of(together, type(alone[0])) == alone


@pytest.mark.parametrize("name", ROWS)
def test_streams_get_the_answers_of_single_records(served, name):
    """Answers come in order, and an invalid record has its error in its turn."""
    _, _, typed = served
    records = [typed.input(f"{name}_predict", fields) for fields in ROWS[name]]
    alone = [typed(f"{name}_predict", record) for record in records]
    bad = type(records[0])()
    answers = typed.many(f"{name}_predict_many", [*records, bad, *records])
    assert answers[: len(records)] == answers[len(records) + 1 :] == alone
    with pytest.raises(grpc.RpcError) as caught:
        typed(f"{name}_predict", bad)
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    error = answers[len(records)].error
    violations = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violations) for detail in status.details)
    assert (error.code, error.message) == (status.code, status.message)
    assert [(violation.field, violation.description) for violation in error.field_violations] == [
        (violation.field, violation.description) for violation in violations.field_violations
    ]
    assert error.field_violations


def test_an_invalid_row_refuses_the_call(served):
    """The complete call is refused, and the error names the row."""
    _, _, typed = served
    records = [typed.input("mirror_predict", fields) for fields in (FIELDS, {**FIELDS, "part": {"weight": -1.0}})]
    with pytest.raises(grpc.RpcError) as caught:
        typed("mirror_predict_batch", batch_of(typed, "mirror", records))
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [violation.field for violation in bad.field_violations] == ["[1].part.weight"]
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("word", ["text for a number", "too large", "not whole", "inexact"])
def test_output_rows_that_violate_the_schema(served, word):
    """The model is at fault, and the error names the row."""
    _, _, typed = served
    rows = {"count": [1, 1], "ratio": [1.0, 1.0], "word": ["whole float", word]}
    status, details = typed.outcome("liar_predict_batch", rows)
    assert status == "INTERNAL"
    assert "[1] has" in details


@pytest.mark.parametrize(("columns", "methods"), [(2_000, 3), (2_001, 2), (4_000, 2), (4_001, 0)])
@pytest.mark.deep
def test_many_columns(columns, methods, tmp_path):
    """Thousands of texts pass in both directions, with params. A model too wide for protobuf has only the plain
    predict."""
    names = [f"c{index}" for index in range(columns)]

    class Mirror(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
        def predict(self, context, model_input, params=None):
            return model_input

    schema = Schema([ColSpec(DataType.string, name, required=False) for name in names])
    params = ParamSchema([ParamSpec("p", DataType.string, "x")])
    mlflow.pyfunc.save_model(
        tmp_path / "wide",
        python_model=Mirror(),
        signature=ModelSignature(schema, schema, params),
        pip_requirements=["mlflow"],
    )
    model = ModelConfig(uri=str(tmp_path / "wide"), name="wide", endpoint=True)
    with serving_models([(model, None)]) as running, Caller(running.address) as call:
        record = dict.fromkeys(names, "x")
        payload = json.dumps({"dataframe_records": [record]})
        assert json.loads(call(payload)) == {"predictions": [record]}
        rpc: Any = call.channel.unary_unary("/mlflow_grpc.v1.Models/GetModel")
        description = protos.message_named("mlflow_grpc.v1.Model").FromString(rpc(b"", timeout=30))
        assert len([model_rpc for model_rpc in description.rpcs if "ModelgRPCService" in model_rpc.path]) == methods
        if methods:
            typed = TypedCaller(call.channel)
            assert plain(typed("wide_predict", record)) == record
        if methods == 3:
            rows = {name: ["x", "y"] for name in names}
            assert plain(typed("wide_predict_batch", rows)) == rows


def test_outdated_fingerprints_are_refused(served):
    """A call with the current fingerprint, or without one, is answered; any other fingerprint is refused."""
    _, call, typed = served
    rpc: Any = call.channel.unary_unary("/mlflow_grpc.v1.Models/GetModel")
    request, model = (protos.message_named(f"mlflow_grpc.v1.{name}") for name in ("GetModelRequest", "Model"))
    now = model.FromString(rpc(request(name="regressor").SerializeToString(), timeout=30)).contract
    message = typed.input("regressor_predict", {"x": 1.0, "y": 0.5}).SerializeToString()
    predict: Any = call.channel.unary_unary(f"/{typed.service.full_name}/regressor_predict")
    assert predict(message, metadata=(("mlflow-contract", now),)) == predict(message)
    with pytest.raises(grpc.RpcError) as caught:
        predict(message, metadata=(("mlflow-contract", "0" * 16),))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_models_with_duplicate_columns_have_no_typed_rpc(tmp_path):
    """A record could hold only one of two columns with the same name, so the model has only the plain predict."""

    class Rows(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
        def predict(self, context, model_input, params=None):
            return model_input.to_numpy().tolist()

    signature = ModelSignature(Schema([ColSpec(DataType.double, "a"), ColSpec(DataType.double, "a")]))
    mlflow.pyfunc.save_model(tmp_path / "twins", python_model=Rows(), signature=signature, pip_requirements=["mlflow"])
    model = ModelConfig(uri=str(tmp_path / "twins"), name="twins", endpoint=True)
    with serving_models([(model, None)]) as running, Caller(running.address) as call:
        rpc: Any = call.channel.unary_unary("/mlflow_grpc.v1.Models/GetModel")
        description = protos.message_named("mlflow_grpc.v1.Model").FromString(rpc(b"", timeout=30))
        assert [model_rpc.path for model_rpc in description.rpcs] == ["/MLflow/predict", "/MLflowStream/predict_many"]


def test_named_targets_and_integer_column_names(tmp_path):
    """scikit-learn models may be fitted with a named Series or frame, or with columns called 0, 1, 2."""
    from sklearn.linear_model import LinearRegression, LogisticRegression

    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [0.5, -1.0, 2.0]})
    labels, numbers = pd.Series(["a", "b", "a"], name="word"), pd.DataFrame({"target": [1.0, 2.0, 4.0]})
    bare = pd.DataFrame(frame.to_numpy())
    fitted = {
        "words": (LogisticRegression().fit(frame, labels), frame, labels),
        "column": (LinearRegression().fit(frame, numbers), frame, numbers),
        "integers": (LinearRegression().fit(bare, [1.0, 2.0, 4.0]), bare, np.array([1.0, 2.0, 4.0])),
    }
    for name, (model, data, target) in fitted.items():
        mlflow.sklearn.save_model(
            model, tmp_path / name, signature=infer_signature(data, target), pip_requirements=["scikit-learn"]
        )
    models = [ModelConfig(uri=str(tmp_path / name), name=name, endpoint=True) for name in fitted]
    with serving_models([(model_config, None) for model_config in models]) as running, Caller(running.address) as call:
        typed = TypedCaller(call.channel)
        for name, (model, data, _) in fitted.items():
            record: Any = typed.input(f"{name}_predict", {})
            for field, value in zip(record.DESCRIPTOR.fields, data.iloc[0], strict=True):
                setattr(record, field.name, value)
            (output,) = [field for field in typed.method(f"{name}_predict").output_type.fields if field.number == 1]
            expected = np.ravel(model.predict(data[:1])).tolist()
            assert [getattr(typed(f"{name}_predict", record), output.name)] == expected
            together = typed(f"{name}_predict_batch", batch_of(typed, name, [record, record]))
            assert list(getattr(together, output.name)) == expected * 2


def test_missing_values_in_output_rows(tmp_path):
    """None in a required column is left out of the answer for one row, and is among the nulls for several rows."""

    class Gaps(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
        def predict(self, context, model_input, params=None):
            return [
                {"word": None if x < 0 else "w", "when": pd.NaT if x < 0 else pd.Timestamp(0)} for x in model_input["x"]
            ]

    signature = ModelSignature(
        Schema([ColSpec(DataType.double, "x")]),
        Schema([ColSpec(DataType.string, "word"), ColSpec(DataType.datetime, "when")]),
    )
    mlflow.pyfunc.save_model(tmp_path / "gaps", python_model=Gaps(), signature=signature, pip_requirements=["mlflow"])
    model = ModelConfig(uri=str(tmp_path / "gaps"), name="gaps", endpoint=True)
    with serving_models([(model, None)]) as running, Caller(running.address) as call:
        typed = TypedCaller(call.channel)
        records = [typed.input("gaps_predict", {"x": x}) for x in (1.0, -1.0, 2.0)]
        alone = [typed("gaps_predict", record) for record in records]
        assert [plain(answer) for answer in alone][1] == {}
        together = typed("gaps_predict_batch", batch_of(typed, "gaps", records))
        assert (list(together.word), list(together.word_nulls)) == (["w", "", "w"], [1])
        assert rows_of(together, type(alone[0])) == alone
