"""Calls printed by `--describe`: each is run, for many signatures and examples."""

import contextlib
import datetime
import io
import json
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import save_model
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array, Object, Property
from mlflow_grpc_client import TLS, Client
from mlflow_grpc_client._cli.command import EXIT_USAGE, main
from mlflow_grpc_client._cli.describe import Connection, describe

from mlflow_grpc.config import ModelConfig
from tests.support import zoo
from tests.support.depth import sample
from tests.support.servers import serving_models

pytestmark = pytest.mark.slow

NAMES = [
    *("numbers", "every_column", "optional", "one_string", "one_boolean", "unnamed", "unnamed_one", "structures", "nested"),
    *("tensor", "tensor_ints", "tensors", "tensor_named", "params", "chat", "prompt", "hint_str", "hint_bytes", "hint_dict"),
    *("hint_datetime", "hint_person", "hint_list_of_people", "hint_any", "unnamed_binary", "unnamed_datetime", "unnamed_list"),
    *("unnamed_object", "unnamed_map", "part", "param_object", "within", "nested_bytes"),
]  # fmt: skip
MADE_UP = {
    "all_optional": Schema(
        [ColSpec(DataType.string, "1", required=False), ColSpec(DataType.double, "2", required=False)]
    ),
    "only_typed": Schema([ColSpec(Object([Property("x", DataType.float), Property("at", DataType.datetime)]), "part")]),
    "one_tensor": Schema([TensorSpec(np.dtype("u1"), (3, 2))]),
    "one_tensor_with_a_name": Schema([TensorSpec(np.dtype("f8"), (3, 2), "x")]),
    "optional_within": Schema([ColSpec(Object([Property("at", DataType.datetime, required=False)]), "part")]),
    "only_typed_if_given": Schema([ColSpec(Array(DataType.float), "x", required=False), ColSpec(DataType.long, "n")]),
}
"""Signatures for which an example is generated."""


class Article(pydantic.BaseModel):
    code: str = pydantic.Field(pattern="^[A-Z]{3}-\\d+$")
    count: int = pydantic.Field(ge=5, lt=9)
    share: float = pydantic.Field(gt=0.5, lt=1)
    tags: list[str] = pydantic.Field(min_length=2)
    word: str = pydantic.Field(min_length=6)


class Meeting(pydantic.BaseModel):
    at: datetime.datetime


class Articles(PythonModel):
    """Has constraints on an article beyond its types."""

    def predict(self, model_input: list[Article]) -> list[str]:
        return [item.code for item in model_input]


class Meetings(PythonModel):
    """Takes times, which MLflow refuses as JSON."""

    def predict(self, model_input: list[Meeting]) -> list[str]:
        return [item.at.isoformat() for item in model_input]


HINTED = {"articles": Articles(), "meetings": Meetings()}
ONLY_TYPED = {"only_typed", "meetings"}
"""Models whose example is invalid as JSON."""

FRAMES = {
    "census": pd.DataFrame(
        {
            "age": [39, 50],
            "income": [float("nan"), 1.5],
            "job": [None, "clerk"],
            "since": [pd.Timestamp("2020-02-29"), pd.Timestamp("2021-01-01 12:00:00.5")],
            "until": [pd.NaT, pd.Timestamp("2021-01-01")],
            "is member": [True, False],
        }
    ),
    "infinite": pd.DataFrame({"class": [float("-inf")], "x": [float("inf")]}),
    "nanoseconds": pd.DataFrame({"at": pd.to_datetime(["2020-02-29T12:00:00.123456789"])}),
    "wide": pd.DataFrame(np.arange(30_000.0).reshape(300, 100), columns=[f"c{index}" for index in range(100)]),
    "images": pd.DataFrame({"image": [b"\xff\x00" * 60], "n": [1]}),
    "lists": pd.DataFrame({"values": [[1.0, float("nan")], [2.0]]}),
    "array": np.array([[1.0, np.nan], [3.0, 4.0]]),
}


class Count(PythonModel):
    """Returns a number per row."""

    def predict(self, context, model_input, params=None):
        return list(range(len(model_input)))


SAVED = (*NAMES, *FRAMES, *MADE_UP, *HINTED, "with_params")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("models")
    for name in NAMES:
        zoo.save(name, folder / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns about integers that may be missing.
        for name, frame in FRAMES.items():
            signature = infer_signature(frame)
            save_model(
                folder / name, python_model=Count(), input_example=frame, signature=signature, pip_requirements=[]
            )
        for name, schema in MADE_UP.items():
            save_model(folder / name, python_model=Count(), signature=ModelSignature(schema), pip_requirements=[])
        for name, hinted in HINTED.items():
            save_model(folder / name, python_model=hinted, pip_requirements=[])
        params = {"top_k": 3, "since": datetime.datetime(2020, 1, 1)}
        example = (FRAMES["infinite"], params)
        save_model(folder / "with_params", python_model=Count(), input_example=example, pip_requirements=[])
    models = [
        *(ModelConfig(uri=str(folder / name), name=name, endpoint=True) for name in SAVED),
        *(ModelConfig(class_path=f"tests.support.newer_models.{name}", endpoint=True) for name in ("Mirror", "Echo")),
    ]
    with serving_models([(model, None) for model in models]) as running:
        yield running.address


def described(address: str, name: str) -> list[str]:
    """Returns the output lines of the command."""
    return run(["-a", address, "--describe", name]).splitlines()


def run(arguments: list[str]) -> str:
    """Returns the output of the command; fails for another exit code than 0."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0, arguments
    out.seek(0)
    return out.read()


@pytest.fixture(autouse=True)
def _grpc_may_speak(monkeypatch):
    """Restores stderr, which the command moves to silence gRPC, also in the process of the tests."""
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")


@pytest.mark.parametrize("name", [*sample(SAVED, share=2), "mirror", "echo"])
def test_each_call_can_be_pasted(address, name):
    """The calls run in a shell, as JSON and typed, and in Python, where the typed call has the same answer."""
    lines = described(address, name)
    shell = {line.partition(": ")[0]: line.partition(": ")[2] for line in lines if ": mlflow-grpc-predict " in line}
    assert set(shell) == ({"typed"} if name in ONLY_TYPED else {"example", "typed"})
    answers = {title: run(shlex.split(command)[1:]) for title, command in shell.items()}
    assert all(answers.values())
    program = "\n".join(lines[lines.index("in Python:") + 1 :])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(program, name, "exec"), {})  # noqa: S102
    assert printed.getvalue()


def test_values_keep_their_types(address):
    """NaN has no literal, times are texts, bytes are bytes, and missing values are left out."""
    (call,) = (line for line in described(address, "census") if line.startswith("    print("))
    assert call == (
        "    print(client.model('census').predict({'age': 39, 'income': float(\"nan\"), 'since': '2020-02-29T00:00:00', "
        "'is member': True}))"
    )
    (call,) = (line for line in described(address, "nanoseconds") if line.startswith("    print("))
    assert "at='2020-02-29T12:00:00.123456789'" in call
    (call,) = (line for line in described(address, "images") if line.startswith("    print("))
    assert r"image=b'\xff\x00\xff\x00" in call


def test_the_connection_is_part_of_the_call(address):
    """TLS and its files are in the command and in the program."""
    with Client(address) as client:
        model = client.models()[0]
        contract = client.model(model.label).contract()
    for connection, flags, source in (
        (Connection("a:1"), "-a a:1 -m", "with Client('a:1') as client:"),
        (Connection("a:1", TLS()), "-a a:1 --tls -m", "with Client('a:1', tls=True) as client:"),
        (Connection("grpcs://a:1", TLS()), "-a grpcs://a:1 -m", "with Client('grpcs://a:1') as client:"),
        (
            Connection("a:1", TLS("ca.pem", server_name="b")),
            "-a a:1 --tls-ca ca.pem --tls-server-name b -m",
            "with Client('a:1', tls=TLS(ca='ca.pem', server_name='b')) as client:",
        ),
    ):
        lines = list(describe(model, connection, contract))
        assert any(line.startswith(f"example: mlflow-grpc-predict {flags} ") for line in lines)
        assert source in lines
        assert ("from mlflow_grpc_client import TLS, Client" in lines) is ("TLS(" in source)


def test_examples_too_long_for_a_command_line(address):
    """An example that is too long is replaced by its size; the first row of a table is enough."""
    with Client(address) as client:
        model = next(model for model in client.models() if model.name == "prompt")
    long = replace(model, example='{"prompt": "' + "x" * 200_000 + '"}')
    assert "example: none to paste, its payload has 200014 bytes" in list(describe(long, Connection("a:1")))
    (line,) = (line for line in described(address, "wide") if line.startswith("example: "))
    assert line.endswith("98.0, 99.0]]}}'")


def typed(address: str, *arguments: str) -> str:
    return run(["-a", address, "--typed", *arguments])


def test_typed_calls(address, tmp_path):
    """A record, rows, and a payload in one of MLflow's formats, each with params."""
    assert typed(address, "-m", "census", '{"age": 1, "since": "2020-01-01", "is member": false}') == "0\n"
    row = '{"age": 1, "income": NaN, "job": NaN, "since": "2020-01-01T00:00:00Z", "until": "NaT", "is member": true}'
    assert typed(address, "-m", "census", f"[{row}, {row}]") == "[0, 1]\n"
    assert typed(address, "-m", "census", f'{{"dataframe_records": [{row}, {row}, {row}]}}') == "[0, 1, 2]\n"
    (tmp_path / "split.json").write_text('{"dataframe_split": {"columns": ["x", "class"], "data": [[1, 2], [3, 4]]}}')
    assert typed(address, "-m", "infinite", f"@{tmp_path / 'split.json'}") == "[0, 1]\n"
    columns = '{"inputs": {"x": [1, 2], "class": [3, 4]}, "params": {"top_k": 1}}'
    assert typed(address, "-m", "with_params", columns) == "[0, 1]\n"
    assert "bytes b'\\\\xff\\\\x00'" in typed(address, "-m", "unnamed_binary", '"/wA="')
    for value in ("null", "5", '"x"', '{"a": 1}'):
        (as_json,) = json.loads(run(["-a", address, "-m", "hint_any", f'{{"inputs": [{value}]}}']))["predictions"]
        assert json.loads(typed(address, "-m", "hint_any", value)) == as_json
    assert typed(address, "-m", "array", "[[1, null], [3, 4], [5, 6]]") == "[0, 1, 2]\n"


@pytest.mark.parametrize(
    ("model", "payload", "sentence"),
    [
        ("census", '{"agee": 1}', "agee: there is no such field; there are: age"),
        ("census", '{"age": 1.5}', "age: 1.5 is not a whole number"),
        ("census", '{"age": "1"}', "age: str is not a whole number"),
        ("census", "age=1", "a typed call takes a record in JSON: Expecting value"),
        ("census", "1", "int is not a record: give fields by keyword, a dict, a list of dicts or a DataFrame"),
        ("census", '{"dataframe_split": {"columns": ["age"], "data": [[1, 2]]}}', "dataframe_split.data[0]: it does not have 1 values"),
        ("census", '{"dataframe_split": 1}', "dataframe_split: it does not have the form that MLflow gives it"),
        ("census", '{"inputs": {"age": [1, 2], "income": [1]}}', "inputs: the columns have 1, 2 values"),
        ("census", '{"age": 1}', "since: missing, and the model needs it; is member: missing"),
        ("unnamed_binary", '"!"', "value: the model takes bytes, which are base64 in JSON; this is not base64"),
    ],
)  # fmt: skip
def test_invalid_typed_records(address, capsys, model, payload, sentence):
    """A typed record that does not fit ends the command with exit code 3 and the name of the field."""
    with pytest.raises(SystemExit) as ended:
        main(["-a", address, "-m", model, "--typed", payload])
    assert ended.value.code == 3
    assert sentence in capsys.readouterr().err


def test_typed_calls_are_in_json(address, capsys):
    """CSV is refused for typed calls."""
    with pytest.raises(SystemExit) as ended:
        main(["-a", address, "-m", "census", "--typed", "--content-type", "text/csv", "age\n1"])
    assert ended.value.code == EXIT_USAGE
    assert "--typed takes records in JSON, and --content-type is text/csv" in capsys.readouterr().err


def test_no_typed_call_without_types(address):
    """A model without types, or on a server without reflection, is described without typed calls."""
    with Client(address) as client:
        model = next(model for model in client.models() if model.name == "census")
    assert not [line for line in describe(model, Connection("a:1")) if line.startswith(("typed:", "in Python:"))]
