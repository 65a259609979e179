"""The targets grpc and grpcs of `mlflow deployments`, with MLflow's own commands and plugin manager."""

import json
import os
import signal
import tomllib

import mlflow
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.deployments import PredictionsResponse, cli, get_deploy_client, interface
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel
from mlflow_grpc_client import Unavailable

from mlflow_grpc.hosting.pyfunc import fetching
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.process.conftest import QUICK
from tests.support.processes import inherited
from tests.support.servers import ROOT, ForkedDeployments, free_port, serving

GROUP = "mlflow.deployments"
ROWS = pd.DataFrame(
    [[5.1, 3.5, 1.4, 0.2], [6, 3, 5, 2]],
    columns=["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"],
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A directory with the metadata of an installed client, whose entry points are those of client/pyproject.toml."""
    project = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]
    folder = tmp_path_factory.mktemp("site")
    metadata = folder / "mlflow_grpc_client-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow-grpc-client\nVersion: 0\n")
    lines = [f"{target} = {module}" for target, module in project["entry-points"][GROUP].items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
    return folder


@pytest.fixture
def plugins(installed, monkeypatch):
    """MLflow's plugin manager with the entry points of the client."""
    monkeypatch.syspath_prepend(installed)
    for target in ("grpc", "grpcs"):
        monkeypatch.delitem(interface.plugin_store.registry, target, raising=False)
    interface.plugin_store.register_entrypoints()
    return interface.plugin_store


@pytest.fixture
def target(plugins, iris):
    return f"grpc://{iris.address}"


@pytest.fixture
def deployments(plugins):
    """Runs `mlflow deployments` in this process, and returns its output."""

    def run(*arguments):
        done = CliRunner().invoke(cli.commands, [str(argument) for argument in arguments])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run


def targets(installed):
    """The environment of a process that has the targets of the client."""
    return {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT), str(ROOT / "client")])}


def test_predict_prints_the_answer(deployments, target, iris, tmp_path):
    """Without an output file, predict prints the answer."""
    source = tmp_path / "input.json"
    source.write_text(ROWS.to_json())
    printed = deployments("predict", "-t", target, "--name", "iris", "-I", source)
    assert json.loads(printed) == {"predictions": mlflow.pyfunc.load_model(str(iris.path)).predict(ROWS).tolist()}


def test_list_and_get(deployments, target, iris):
    """The list has the models of the server, and get has what the server publishes about one."""
    assert "'name': 'iris', 'version': '', 'state': 'READY'" in deployments("list", "-t", target)
    lines = deployments("get", "-t", target, "--name", "iris").splitlines()
    assert "name: iris" in lines
    assert "state: READY" in lines
    assert any(line.startswith("input_schema: {") and "sepal_length_cm" in line for line in lines)


def test_help(deployments):
    """The help has the form of the URI."""
    assert "grpc://host:port" in deployments("help", "-t", "grpc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "--name", "x", "-m", "models:/x/1"], "does not create deployments.*--config models.yaml"),
        (["update", "--name", "iris"], "does not update deployments.*--config models.yaml"),
        (["delete", "--name", "iris"], "does not delete deployments.*--config models.yaml"),
        (["explain", "--name", "iris", "-I", "{source}"], "computes no explanations.*mlflow.shap.log_explainer"),
        (["get", "--name", "rose"], r"There is no model rose\. There are: iris\."),
        (["predict", "--endpoint", "x", "-I", "{source}"], "has no endpoints"),
        (["list", "--endpoint", "x"], "has no endpoints"),
        (["predict", "--name", "rose", "-I", "{source}"], "NOT_FOUND.*There are: iris"),
    ],
)
def test_refusals(deployments, target, tmp_path, arguments, message):
    """What is not done here is refused with what to do instead."""
    source = tmp_path / "input.json"
    source.write_text(ROWS.to_json())
    command, *more = [argument.format(source=source) for argument in arguments]
    with pytest.raises(MlflowException, match=f"(?s){message}"):
        deployments(command, "-t", target, *more)


def test_payloads_of_python(target, iris):
    """predict takes payloads of MLflow and returns MLflow's class for answers."""
    client = get_deploy_client(target)
    expected = mlflow.pyfunc.load_model(str(iris.path)).predict(ROWS).tolist()
    records = f'{{"dataframe_records": {ROWS.to_json(orient="records")}}}'
    for inputs in (ROWS, {"dataframe_split": ROWS.to_dict(orient="split")}, records):
        answer = client.predict("iris", inputs)
        assert isinstance(answer, PredictionsResponse)
        assert answer.get_predictions("ndarray").tolist() == expected
    assert client.predict(inputs=ROWS)["predictions"] == expected


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_streams(plugins, tmp_path):
    """predict_stream yields the model's chunks. An answer to an LLM payload keeps its keys."""

    class Echo(PythonModel):
        def predict(self, context, model_input, params=None):
            return {"text": "hello"}

        def predict_stream(self, context, model_input, params=None):
            yield from ("hel", "lo")

    mlflow.pyfunc.save_model(str(tmp_path / "echo"), python_model=Echo(), pip_requirements=["mlflow"])
    model = load_pyfunc(fetching.fetch(str(tmp_path / "echo")), name="echo")
    with serving(model, ScoringCodec(model.metadata, model.loader_module)) as server:
        client = get_deploy_client(f"grpc://{server.address}")
        assert list(client.predict_stream("echo", {"messages": []})) == ["hel", "lo"]
        assert client.predict("echo", {"messages": []}) == {"text": "hello"}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("grpc", "the target has an address, grpc://host:port or grpcs://host:port; not 'grpc'"),
        ("grpc://localhost", "has no port"),
        ("grpcs://localhost:1/path", "without a path"),
    ],
)
def test_invalid_uris(plugins, uri, message):
    """An invalid URI is refused at once."""
    with pytest.raises(MlflowException, match=message) as caught:
        get_deploy_client(uri)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_errors_have_the_codes_of_mlflow(target, monkeypatch):
    """A refused payload, an absent model and an absent server have MLflow's error codes, and the client's error."""
    client = get_deploy_client(target)
    with pytest.raises(MlflowException, match="petal_width_cm") as caught:
        client.predict("iris", ROWS.assign(petal_width_cm="wide"))
    assert caught.value.error_code == "BAD_REQUEST"  # As in the answer of MLflow's server.
    with pytest.raises(MlflowException) as caught:
        client.predict("rose", ROWS)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(MlflowException, match="cannot send") as caught:
        client.predict("iris", object())
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    monkeypatch.setenv("MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT", "1")
    with pytest.raises(MlflowException, match="Nothing listens") as caught:
        get_deploy_client(f"grpc://127.0.0.1:{free_port()}").list_deployments()
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert isinstance(caught.value.__cause__, Unavailable)


@pytest.mark.slow
def test_predict_in_a_process(iris, certificates, installed, tmp_path):
    """The command in the documentation answers as the model does. It reads the input file, and writes the output file.

    grpcs:// is with TLS, and its authorities are those of gRPC's variable.
    """
    cert, key = certificates.server
    source, result = tmp_path / "input.json", tmp_path / "out.json"
    source.write_text(ROWS.to_json(orient="records"))
    model = load_pyfunc(fetching.fetch(str(iris.path)), name="iris")
    codec = ScoringCodec(model.metadata, model.loader_module)
    with serving(model, codec, tls_cert=cert, tls_key=key) as server:
        command = ["predict", "-t", f"grpcs://{server.address}", "--name", "iris", "-I", str(source), "-O", str(result)]
        trusted = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificates.ca)}
        with ForkedDeployments(command, {**targets(installed), **trusted}) as process:
            assert process.wait() == 0, process.output
    assert json.loads(result.read_text()) == {
        "predictions": mlflow.pyfunc.load_model(str(iris.path)).predict(ROWS).tolist()
    }


@pytest.mark.slow
def test_run_local(installed):
    """run-local serves a model until Ctrl-C, with flags of the server, also those without a value."""
    command = ["run-local", "-t", "grpc", "--name", "local", "-m", QUICK]
    arguments = ["-C", "port=0", "-C", "lame_duck=60", "-C", "no-reflection=true"]
    with inherited(signal.SIGINT, signal.default_int_handler):
        started = ForkedDeployments([*command, *arguments], targets(installed))
    with started as process:
        address = process.wait_for(r"ready: models? .* on (\S+:\d+),")[1]
        assert get_deploy_client(f"grpc://{address}").predict("local", {"inputs": ["x"]})["predictions"] == ["x"]
        process.signal(signal.SIGINT)  # Skips the lame-duck phase, like Ctrl-C in the terminal of a server.
        assert process.wait() == 0, process.output


def test_run_local_refusals(plugins, iris, capfd):
    """A flag that the server does not have, and another flavor, are refused."""
    with pytest.raises(MlflowException, match="exit code 2"):
        plugins["grpc"].run_local("x", str(iris.path), config={"prot": "1"})
    assert "--prot" in capfd.readouterr().err
    with pytest.raises(MlflowException, match="leave the flavor out"):
        plugins["grpc"].run_local("x", str(iris.path), flavor="sklearn")
