"""`mlflow-grpc proto` with a lock, and servers whose models have one."""

import json
import re
import shutil
import struct
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import grpc
import mlflow
import pytest
import yaml
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from mlflow_grpc import protos
from mlflow_grpc.contract.lockfile import format as lock_format
from tests.support.servers import ROOT, Caller, Forked, ready_address, start_server
from tests.support.typed import TypedCaller

MODEL = '''
import mlflow


class Names(mlflow.pyfunc.PythonModel):
    """Tells the columns in the order in which it was given them, with their values."""

    def predict(self, context, model_input, params=None):
        return [str([(name, model_input[name].tolist()[0]) for name in model_input])]


mlflow.models.set_model(Names())
'''


OTHERS = """
from typing import Literal

from ml_base import MLModel
from pydantic import BaseModel


class Tags(BaseModel):
    tags: list[str] = []


class TagsRequired(BaseModel):
    tags: list[str]


class Modes(BaseModel):
    mode: Literal["a_b", "c"]
    mode_a: Literal["b", "d"]


class First(MLModel):
    display_name = qualified_name = description = "first"
    version = "1.0.0"
    input_schema = output_schema = Tags

    def __init__(self):
        pass

    def predict(self, data):
        return data

    def predict_stream(self, data):
        yield data


class Second(First):
    input_schema = TagsRequired
    predict_stream = None


class Third(First):
    input_schema = Modes
"""
"""The last one has enums whose values would have the same full name, M_MODE_A_B."""


@pytest.fixture
def others(tmp_path):
    """The directory of a Python module with models."""
    (tmp_path / "other_models.py").write_text(OTHERS)
    return tmp_path


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    """Saves a version of a model with these columns; a question mark makes a column optional."""
    folder = tmp_path_factory.mktemp("versions")
    (folder / "names.py").write_text(MODEL)

    def save(name, *columns):
        specs: list[Any] = [
            ColSpec(data_type, column.rstrip("?"), required=not column.endswith("?")) for column, data_type in columns
        ]
        signature = ModelSignature(Schema(specs), Schema([ColSpec("string")]))
        path = folder / name
        if not path.exists():
            mlflow.pyfunc.save_model(
                path, python_model=str(folder / "names.py"), signature=signature, pip_requirements=["mlflow"]
            )
        return path

    return save


@pytest.fixture(scope="module")
def first(save):
    return save("first", ("a", "double"), ("b", "double"))


@pytest.fixture(scope="module")
def more(save):
    """A version that accepts calls of old clients."""
    return save("more", ("c?", "double"), ("b", "double"), ("a", "double"))


@pytest.fixture(scope="module")
def turned(save):
    """A version that accepts them too: plain rows with reordered columns."""
    return save("turned", ("b", "double"), ("a", "double"))


@pytest.fixture(scope="module")
def incompatible(save):
    """A version that refuses them."""
    return save("other", ("a", "long"), ("c", "double"))


@pytest.fixture
def start():
    with ExitStack() as stack:

        def launch(*flags, env=None):
            return stack.enter_context(start_server("--model-name", "m", *flags, env=env))

        yield launch


def test_a_model_flag_wins_over_a_file_in_the_environment(first, more, tmp_path):
    """`mlflow-grpc proto -m` writes the model of the flag, although MLFLOW_GRPC_CONFIG names a file with another."""
    file = tmp_path / "models.yaml"
    file.write_text(yaml.safe_dump({"models": [{"uri": str(more), "name": "of_the_file"}]}))
    path = tmp_path / "model_service.proto"
    command = ["proto", "-m", str(first), "--model-name", "of_the_flag", "-o", str(path)]
    with Forked(command, {"MLFLOW_GRPC_CONFIG": str(file)}) as process:
        assert process.wait() == 0
    assert "rpc of_the_flag_predict(" in path.read_text()
    assert "of_the_file" not in path.read_text()


def proto(*arguments, modules=None):
    """Returns exit code and output of `mlflow-grpc proto`, and its own lines on stderr."""
    env = {"PYTHONPATH": str(modules)} if modules else None
    with Forked(["proto", *map(str, arguments)], env) as process:
        code = process.wait()
    complaints = [line for line in process.stderr if line.startswith(("Error: ", "Warning: ")) or "Traceback" in line]
    return code, "\n".join(process.stdout), "\n".join(complaints)


def wrote(path, *arguments, modules=None):
    """Returns the text that the command wrote."""
    code, _, errors = proto(*arguments, "-o", path, modules=modules)
    assert code == 0, errors
    return path.read_text(), errors


@pytest.fixture(scope="module")
def locked(first, tmp_path_factory):
    """The lock of the first version."""
    path = tmp_path_factory.mktemp("lock") / lock_format.FILE_NAME
    wrote(path.with_name("model_service.proto"), "-m", first, "--model-name", "m", "--lock", path)
    return path


def test_a_lock_through_three_versions(first, more, incompatible, locked, tmp_path):
    """The lock is created if it is missing, updated, and compared without being written."""
    path = tmp_path / lock_format.FILE_NAME
    text, errors = wrote(tmp_path / "one.proto", "-m", first, "--model-name", "m", "--lock", path)
    assert (errors, path.read_text()) == ("", locked.read_text())
    assert "optional double b = 2;" in text
    common = ("--model-name", "m", "--lock", path)
    code, report, _ = proto("-m", more, *common, "--check", "-o", tmp_path / "no.proto")
    assert (code, report.splitlines()) == (
        0,
        [
            "m: compatible: calls of old clients are taken, their answers are read",
            "  fine: input.c: added: old clients leave it out",
        ],
    )
    code, report, _ = proto("-m", incompatible, *common, "--check")
    lost = "what old clients send there would be lost"
    assert (code, report.splitlines()) == (
        1,
        [
            "m: incompatible: calls of old clients are not taken, their answers are read",
            f"  breaks: input.a: was optional double, is optional int64: another number, and {lost}",
            f"  breaks: input.b: removed, and it was required: {lost}",
            "  breaks: input.c: added and required: old clients do not send it",
        ],
    )
    assert path.read_text() == locked.read_text()
    assert not (tmp_path / "no.proto").exists()
    text, errors = wrote(tmp_path / "two.proto", "-m", more, *common)
    assert errors == ""
    assert "optional double c = 3;" in text
    text, errors = wrote(tmp_path / "three.proto", "-m", incompatible, *common)
    assert errors.splitlines()[1] == f"Warning: breaks old clients: m: input.b: removed, and it was required: {lost}"
    for line in ("reserved 1, 2;", 'reserved "b";', "optional int64 a = 4;", "optional double c = 3;"):
        assert line in text
    code, report, _ = proto("-m", incompatible, *common, "--check")
    assert (code, report.splitlines()) == (0, ["m: compatible: calls of old clients are taken, their answers are read"])


def test_impossible_checks(first, tmp_path):
    """An impossible check has exit code 2, and one line with advice."""
    code, printed, errors = proto("-m", first, "--check")
    assert (code, printed) == (2, "")
    assert errors.startswith(
        "Error: there is no lock to check against: make one from the version that clients use, with "
    )
    code, printed, errors = proto("-m", first, "--check", "--lock", tmp_path / "nope.json")
    assert (code, printed) == (2, "")
    assert errors.startswith(f"Error: cannot read the lock {tmp_path}/nope.json: No such file")
    code, _, errors = proto("-m", first, "--lock", tmp_path / "no" / "dir.json", "-o", tmp_path / "x.proto")
    assert (code, errors) == (1, f"Error: cannot write {tmp_path}/no/dir.json: No such file or directory")
    assert not (tmp_path / "x.proto").exists()


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", pytest.param(">&-", marks=pytest.mark.deep)])
def test_closed_standard_streams(closed, tmp_path):
    """The file is written, and contains no output meant for the closed streams."""
    arguments = ("-m", "mlmodel:tests.support.newer_models.Echo", "--lock", tmp_path / lock_format.FILE_NAME)
    expected, _ = wrote(tmp_path / "expected.proto", *arguments)
    command = " ".join(map(str, [sys.executable, "-m", "mlflow_grpc", "proto", *arguments, "-o", tmp_path / "x.proto"]))
    done = subprocess.run(["/bin/sh", "-c", f"{command} {closed}"], capture_output=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.proto").read_text() == expected


def test_no_model_with_typed_rpcs(save, tmp_path):
    """The command `proto` ends with exit code 2 and writes no file if no model has typed RPCs."""
    code, printed, errors = proto("-m", save("twice", ("a", "long"), ("a", "long")), "-o", tmp_path / "x.proto")
    assert (code, printed) == (2, "")
    assert errors.splitlines()[-1].startswith(
        "Error: there are no typed RPCs: no model has a signature or schemas that "
    )
    assert not (tmp_path / "x.proto").exists()


def test_a_removed_model(first, locked, tmp_path):
    """A check reports the removed model. A lock that is written keeps its numbers, and later checks do not report it."""
    path = shutil.copy(locked, tmp_path)
    arguments = ("-m", first, "--model-name", "n", "--lock", path)
    code, report, _ = proto(*arguments, "--check")
    assert (code, report.splitlines()) == (
        1,
        [
            "n: new: no lock knows it",
            "m: incompatible: calls of old clients are not taken, their answers are read",
            "  breaks: m: the model is no longer hosted",
        ],
    )
    wrote(tmp_path / "x.proto", *arguments)
    assert proto(*arguments, "--check")[0] == 0
    models = json.loads(locked.read_text())["models"]
    assert json.loads((tmp_path / lock_format.FILE_NAME).read_text())["models"]["m"] == {
        "name": "m",
        "removed": True,
        **models["m"],
    }


@pytest.mark.parametrize("where", ["file", pytest.param("environment", marks=pytest.mark.deep), "directory"])
def test_old_clients_of_a_compatible_model(where, start, first, more, turned, locked, tmp_path):
    """An old client's messages keep their meaning, for any order of columns and for both decoders."""
    with grpc.insecure_channel(ready_address(start("-m", str(first)))) as channel:
        sent = TypedCaller(channel).input("m_predict", {"a": 1.5, "b": -2.0})
    for model in (more, turned):
        path = shutil.copytree(model, tmp_path / model.name)
        flags, env = [], {}
        if where == "file":
            flags = ["--lock", str(locked)]
        elif where == "environment":
            env = {"MLFLOW_GRPC_LOCK": str(locked)}
        else:
            shutil.copy(locked, path)
        process = start("-m", str(path), *flags, env=env)
        with grpc.insecure_channel(ready_address(process)) as channel:
            answer = TypedCaller(channel)("m_predict", sent).prediction
        assert answer == "[('b', -2.0), ('a', 1.5)]"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_refuses_incompatible_models(start, incompatible, locked, workers, tmp_path):
    """One line names the columns and the remedies, with workers too; --allow-incompatible serves the model with a
    warning."""
    process = start("-m", str(incompatible), "--lock", str(locked), "-w", workers)
    assert process.wait() == 2
    (line,) = process.errors
    for excerpt in (
        f"m is incompatible with old clients, according to the lock {locked}: input.a: was",
        "input.b: removed",
        "--allow-incompatible",
    ):
        assert excerpt in line
    assert "Traceback" not in process.output
    path = shutil.copytree(incompatible, tmp_path / "model")
    shutil.copy(locked, path)
    process = start("-m", str(path))
    assert process.wait() == 2
    assert "according to the lock model_service.lock.json in the model's directory" in process.output
    process = start("-m", str(incompatible), "--lock", str(locked), "--allow-incompatible", "-w", workers)
    with grpc.insecure_channel(ready_address(process)) as channel:
        caller = TypedCaller(channel)
        message = caller.input("m_predict", {"a": 1, "c": 0.5})
        assert {field.name: field.number for field in message.DESCRIPTOR.fields} == {"a": 3, "c": 4}
        assert "('a', 1)" in caller("m_predict", message).prediction
    process.wait_for("m breaks old clients: input.a: was")


def test_rolling_back(start, first, more, locked, tmp_path):
    """--allow-incompatible serves the previous version under the newest lock, with its numbers and without changing the lock.
    Only values of newer columns are lost."""
    path = tmp_path / lock_format.FILE_NAME
    shutil.copy(locked, path)
    wrote(tmp_path / "new.proto", "-m", more, "--model-name", "m", "--lock", path)
    newest = path.read_text()
    process = start("-m", str(first), "--lock", str(path), "--allow-incompatible")
    with grpc.insecure_channel(ready_address(process)) as channel:
        caller = TypedCaller(channel)
        message = caller.input("m_predict", {"a": 1.5, "b": -2.0})
        assert {field.name: field.number for field in message.DESCRIPTOR.fields} == {"a": 1, "b": 2}
        assert caller("m_predict", message).prediction == "[('a', 1.5), ('b', -2.0)]"
        message.MergeFromString(b"\x19" + struct.pack("<d", 7.0))  # Column c, with the number 3.
        assert caller("m_predict", message).prediction == "[('a', 1.5), ('b', -2.0)]"
    process.wait_for("m breaks old clients: input.c: removed: what old clients send there would be lost")
    assert path.read_text() == newest


def test_an_incompatible_model_can_be_skipped(first, incompatible, locked, tmp_path):
    """The other models are served, and the log has the reason."""
    models = [
        {"uri": str(first), "name": "good"},
        {"uri": str(incompatible), "name": "m", "on_error": "skip"},
    ]
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": models}))
    with start_server("--config", str(path), "--lock", str(locked)) as process:
        address = ready_address(process)
        process.wait_for("is left out: m is incompatible with old clients")
        assert "other" not in process.stdout[0]
        with Caller(address) as call:
            record = json.dumps({"dataframe_records": [{"a": 1.0, "b": 2.0}]})
            assert call.outcome(record, mlflow_model="good")[0] == "OK"
            assert call.outcome(record, mlflow_model="m")[0] == "FAILED_PRECONDITION"
            names = [method.name for method in TypedCaller(call.channel).service.methods]
            assert names[:2] == ["get_models", "good_predict"]
            assert not [name for name in names if name.startswith("m_")]
            request, model = (protos.message_named(f"mlflow_grpc.v1.{name}") for name in ("GetModelRequest", "Model"))
            rpc: Any = call.channel.unary_unary("/mlflow_grpc.v1.Models/GetModel")
            status = model.FromString(rpc(request(name="m").SerializeToString(), timeout=30))
            assert status.state == model.FAILED
            assert "input.b: removed" in status.error
    path.write_text(yaml.safe_dump({"models": models[1:]}))
    with start_server("--config", str(path), "--lock", str(locked)) as process:
        assert process.wait() == 2
        assert "none of the models could be loaded" in process.output


@pytest.mark.parametrize(
    ("content", "excerpt"),
    [
        (None, "cannot read the lock"),
        ("{", "is not a valid lock file: it is not JSON"),
        ('{"format": 9}', "is a lock file of format 9"),
    ],
)
def test_invalid_locks_are_refused(start, first, content, excerpt, tmp_path):
    """Exit code 2 and one line, wherever the lock is."""
    path = tmp_path / lock_format.FILE_NAME
    if content is not None:
        path.write_text(content)
        model = shutil.copytree(first, tmp_path / "model")
        shutil.copy(path, model)
        process = start("-m", str(model))
        assert process.wait() == 2
        assert excerpt in process.output
    process = start("-m", str(first), "--lock", str(path))
    assert process.wait() == 2
    (line,) = process.errors
    assert excerpt in line


def test_changes_that_affect_only_streams_and_rows(others):
    """A model that no longer streams, and a list that rows can no longer leave out, are incompatible."""
    arguments = ("--model-name", "m", "--lock", others / lock_format.FILE_NAME)
    wrote(others / "one.proto", "-m", "mlmodel:other_models.First", *arguments, modules=others)
    assert proto("-m", "mlmodel:other_models.First", *arguments, "--check", modules=others)[0] == 0
    code, report, _ = proto("-m", "mlmodel:other_models.Second", *arguments, "--check", modules=others)
    assert (code, report.splitlines()[1:]) == (
        1,
        [
            "  breaks: predict_stream: removed: old clients cannot call it",
            "  breaks: input.tags: required now: old clients may leave it out",
        ],
    )


def test_messages_refused_by_protobuf(others):
    """The model has no typed RPCs, the log has the reason, and other models have theirs. Only a lock can cause this."""
    path, lock_path = others / "models.yaml", others / lock_format.FILE_NAME
    models = [{"class_path": f"other_models.{name}", "name": name.lower()} for name in ("First", "Third")]
    path.write_text(yaml.safe_dump({"models": models}))
    text, _ = wrote(others / "one.proto", "--config", path, "--lock", lock_path, modules=others)
    (renamed,) = {match for match in re.findall(r"THIRD_MODE_A_B\w*", text) if match != "THIRD_MODE_A_B"}
    name = f'"name": "{renamed.removeprefix("THIRD_MODE_").removeprefix("A_").lower()}"'
    assert lock_path.read_text().count(name) == 1
    lock_path.write_text(lock_path.read_text().replace(name, '"name": "b"'))
    flags = ("--config", str(path), "--lock", str(lock_path))
    with start_server(*flags, "--allow-incompatible", env={"PYTHONPATH": str(others)}) as process:
        address = ready_address(process)
        process.wait_for(r"third/1\.0\.0: no typed RPCs: protobuf refuses its messages: .*THIRD_MODE_A_B")
        assert "Traceback" not in process.output
        with Caller(address) as call:
            assert [method.name for method in TypedCaller(call.channel).service.methods] == [
                "get_models", "first_predict", "first_predict_batch", "first_predict_many", "first_predict_stream",
            ]  # fmt: skip
            # The plain RPC still works.
            assert call.outcome('{"mode": "c", "mode_a": "d"}', mlflow_model="third")[0] != "UNIMPLEMENTED"
    code, report, _ = proto(*flags, "--check", modules=others)
    assert (code, report.splitlines()[-1]) == (1, "  breaks: third: it no longer has typed RPCs")
