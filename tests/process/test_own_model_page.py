"""The blocks and commands of docs/own-model.md run, and do what the page says of them, as MLflow does."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, Schema

from tests.client.test_pages_run import blocks, lines, printed_by, sh
from tests.parity.conftest import oracle_of
from tests.support.servers import ROOT, Forked, ready_address, start_mlflow_server

pytestmark = [pytest.mark.slow, pytest.mark.deep, pytest.mark.timeout(300)]

PAGE = "docs/own-model.md"
TEXT = (ROOT / PAGE).read_text()


@pytest.fixture(scope="module")
def own_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the blocks of docs/own-model.md have saved and registered their models."""
    directory = tmp_path_factory.mktemp("own_models")
    save, log, infer, habits, risk, save_risk, _ = blocks(PAGE, "python")
    (directory / "habits.py").write_text(habits)
    (directory / "risk.py").write_text(risk)
    (directory / "session.py").write_text("\n".join([save, log, infer, save_risk]))
    printed, warned = sh("python session.py", directory)
    assert re.findall(r"MLflow warns ``(.*)``", TEXT)[0] in warned
    (signatures,) = blocks(PAGE, "")
    assert printed == "\n".join([*re.findall(r"^print\(.*  # (.*)$", log, re.MULTILINE), signatures])
    for name in ("habits.py", "risk.py"):  # The saved model has its own copies.
        (directory / name).unlink()
    return directory


@contextlib.contextmanager
def own_server(command: str, directory: Path) -> Iterator[tuple[str, str]]:
    """Runs a `mlflow-grpc serve` of the page on other ports, and yields the gRPC and the HTTP address."""
    variables, _, arguments = command.partition("mlflow-grpc ")
    env = dict(variable.split("=", 1) for variable in variables.split())
    assert "-p 50054 --http-port 8084" in arguments
    with Forked([*arguments.split(), "-p", "0", "--http-port", "0"], env, directory) as process:
        yield ready_address(process), process.wait_for(r"HTTP on (http://\S+?);")[1]


def test_the_page_about_ones_own_model(own_models):
    """The models of the page are served from a directory and a registry, and answer as the page and MLflow do."""
    serve, from_registry, *calls, serve_risk, json_call, typed_call, mlflow_serve, to_mlflow, to_http, _ = lines(PAGE)
    save, *_, in_python = blocks(PAGE, "python")
    load = next(line for line in save.splitlines() if line.startswith("features, species"))
    answer = '{"predictions": [0, 0]}'
    assert f"The second command prints `{answer}`" in TEXT
    with own_server(serve, own_models) as (address, url):
        described, called = (sh(call.replace("localhost:50054", address), own_models)[0] for call in calls)
        assert "sepal length (cm): number" in described
        assert "flowers_predict" in described
        assert called == f"{answer}\n"
        code = in_python.replace("localhost:50054", address)
        printed = printed_by(f"from sklearn.datasets import load_iris\n{load}\n{code}")
        assert printed.splitlines() == re.findall(r"print\(.*\)  # (.*)$", in_python, re.MULTILINE)
        assert mlflow_serve == "mlflow models serve -m flowers -p 5001 --env-manager local"
        mlflow_process, mlflow_url = start_mlflow_server(own_models / "flowers", fresh=True)
        with mlflow_process:
            expected, _ = sh(to_mlflow.replace("localhost:5001/invocations", mlflow_url), own_models)
        assert sh(to_http.replace("localhost:8084", url), own_models)[0] == expected == answer
    with own_server(from_registry, own_models) as (address, _):
        assert sh(calls[1].replace("localhost:50054", address), own_models)[0] == f"{answer}\n"
    with own_server(serve_risk, own_models) as (address, _):
        printed = "".join(
            sh(call.replace("localhost:50054", address), own_models)[0] for call in (json_call, typed_call)
        )
        shown = re.search(r"^These print `(.*?)` and `(.*?)`", TEXT, re.MULTILINE)
        assert shown
        assert printed.splitlines() == list(shown.groups())
        (console,) = blocks(PAGE, "console")
        mistake, error = console.removeprefix("$ ").splitlines()
        _, printed = sh(mistake.replace("localhost:50054", address), own_models, exit_code=3)
        assert printed.startswith(error.partition("...")[0])


def test_a_model_is_checked_before_it_is_handed_over(own_models):
    """The commands of docs/own-model.md succeed, and write the files that they name."""
    *_, serve_strictly = lines(PAGE)
    with own_server(serve_strictly, own_models):
        pass
    commands = re.findall(r"^\| .* \| `mlflow-grpc (.*)` \|$", TEXT, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["proto", "proto", "openapi", "dockerfile"]
    for command in commands:
        with Forked(command.split(), cwd=own_models) as process:
            assert process.wait() == 0, process.output
    assert process.output.count("docker build") == 1
    written = {"flowers.proto", "flowers.lock.json", "flowers.json", "flowers-image"}
    assert written <= {path.name for path in own_models.iterdir()}
    # Each reason for a refusal, with the flags that bring it about.
    lock = own_models / "flowers.lock.json"
    lock.write_text(lock.read_text().replace('"flowers"', '"risk"'))
    (own_models / "empty").mkdir()
    unmet = own_models / "risk" / "requirements.txt"
    unmet.write_text("no-such-package==1.0\n")
    refusals = re.findall(r"^\| `(.*?)` \| [a-z]", TEXT, re.MULTILINE)
    registry = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    flags = ["nowhere", "empty", "models:/flower/1", "risk", "risk --requirements warn --lock flowers.lock.json"]
    for line, model in zip(refusals, flags, strict=True):
        with Forked(["serve", "-p", "0", "-m", *model.split()], registry, own_models) as process:
            assert process.wait() == 2
            assert line in process.stderr[-1], process.output


class Columns(PythonModel):
    """Answers the values of each column that it gets, or None for a column that it does not get."""

    def predict(self, context, model_input, params=None):
        return [str([list(model_input[name]) if name in model_input else None for name in "abcd"])]


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"a": 1.5, "b": 1}, "[[1.5], [1], None, None]"),
        ({"b": 1}, None),
        ({"a": None, "b": 1, "c": None}, "[[nan], [1], [nan], None]"),
        ({"a": 1.5, "b": None}, None),
        ({"a": 1.5, "b": 1, "d": None}, None),
    ],
    ids=["left_out", "required", "null", "null_integer", "optional_null_integer"],
)
@pytest.mark.filterwarnings("ignore")
def test_missing_values(tmp_path_factory, row, answer):
    """MLflow itself passes on or refuses missing values as the page says, for required and optional columns."""
    types = {"a": ("double", True), "b": ("long", True), "c": ("double", False), "d": ("long", False)}
    schema = Schema([ColSpec(type_, name, required=required) for name, (type_, required) in types.items()])
    path = tmp_path_factory.mktemp("columns") / "model"
    mlflow.pyfunc.save_model(
        path,
        python_model=Columns(),
        signature=ModelSignature(schema, Schema([ColSpec("string")])),
        pip_requirements=["mlflow"],
    )
    payload: dict[str, Any] = {"dataframe_records": [row]}
    status, text = oracle_of(path)(json.dumps(payload), "application/json")
    assert (status, text) == (200, json.dumps({"predictions": [answer]})) if answer else status == 400
