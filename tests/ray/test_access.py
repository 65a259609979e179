"""Callers, tracked versions and recorded calls of replicas."""

import hashlib
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow_grpc_client import Client, PermissionDenied, Unauthenticated

from mlflow_grpc.config import Configuration
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings
from tests.ray.calls import ROWS, outcome, text
from tests.support.servers import ready_address, start_server

PREDICT = "/MLflow/predict"

TOKENS = {"batch": "token-of-batch-0123456789", "web": "token-of-web-0123456789"}


def line_of(name: str, token: str) -> str:
    return f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n"


def authorization(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name]}"}


def save_answering(directory: Path, number: int) -> None:
    """Saves a model that answers a number for each row."""
    code = directory.with_suffix(".py")
    code.write_text(
        "import mlflow\n"
        "class Answering(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        f"        return [{number}] * len(model_input)\n"
        "mlflow.models.set_model(Answering())\n"
    )
    mlflow.pyfunc.save_model(directory, python_model=str(code), pip_requirements=["mlflow"])


def test_callers_of_a_replica_are_checked(cluster, models, tmp_path):
    """Calls with and without tokens end as on a single server with the same files; a new file of tokens takes effect; a
    log line says that tokens are not encrypted.
    """
    tokens, file = tmp_path / "tokens", tmp_path / "models.yaml"
    tokens.write_text(line_of("batch", TOKENS["batch"]) + line_of("web", TOKENS["web"]))
    listed = yaml.safe_load(models.file.read_text())
    access = [{"callers": ["batch"], "models": ["iris"]}, {"callers": ["web"], "services": ["models"]}]
    file.write_text(yaml.safe_dump({**listed, "access": access}))
    settings = {"auth_tokens": str(tokens)}
    cluster.deploy({"name": "models", "args": {"config": str(file), "settings": settings}})
    cases: list[dict[str, Any]] = [
        {},
        authorization("batch"),
        authorization("web"),
        {"authorization": "Bearer other"},
        {"authorization": "Basic other"},
        {**authorization("batch"), "mlflow_model": "steps"},
    ]
    with start_server("--config", str(file), "--auth-tokens", str(tokens), fresh=True) as process:
        reference = ready_address(process)
        for case in cases:
            metadata = {**case, "x_request_id": "of-the-test"}
            expected, reached = (
                outcome(address, "unary", PREDICT, text({"dataframe_split": ROWS}), **metadata)
                for address in (reference, cluster.address)
            )
            assert reached == expected
    assert "tokens reach this replica without encryption" in cluster.logs()
    tokens.write_text(line_of("batch", "another-token-of-batch-0123"))
    with Client(cluster.address, token="another-token-of-batch-0123", token_over_plaintext=True) as client:  # noqa: S106

        def is_known() -> bool:
            try:
                return bool(client.predict({"dataframe_split": ROWS}) == ["setosa", "virginica"])
            except Unauthenticated:
                return False

        cluster.wait_until(is_known, 30)
        with pytest.raises(PermissionDenied):
            client.predict({"inputs": ["pid"]}, model="steps")
    assert TOKENS["batch"] not in cluster.logs()


def test_a_replica_follows_its_registry_and_records_calls(cluster, tmp_path):
    """A moved alias is served without new replicas; the calls are in complete files once the replica has ended."""
    registry, recorded = f"sqlite:///{tmp_path}/registry.db", tmp_path / "recorded"
    registered = mlflow.MlflowClient(tracking_uri=registry, registry_uri=registry)
    registered.create_registered_model("churn")
    for number in (1, 2):
        save_answering(tmp_path / f"churn-{number}", number)
        registered.create_model_version("churn", str(tmp_path / f"churn-{number}"))
    registered.set_registered_model_alias("churn", "champion", "1")
    settings = {"track_s": 0.5, "record": str(recorded), "record_share": 1.0}
    variables = {"MLFLOW_TRACKING_URI": registry, "MLFLOW_GRPC_WATCH_CONFIG": "5"}
    arguments = {"model_uri": "models:/churn@champion", "settings": settings}
    cluster.deploy({"name": "churn", "args": arguments, "runtime_env": {"env_vars": variables}})
    pids = cluster.replicas("churn")
    with Client(cluster.address) as client:
        assert client.predict({"inputs": [1, 2]}) == [1, 1]
        registered.set_registered_model_alias("churn", "champion", "2")
        cluster.wait_until(lambda: client.predict({"inputs": [1]}) == [2], 60)
    assert cluster.replicas("churn") == pids
    logs = cluster.logs()
    assert "each replica follows models:/churn@champion on its own" in logs
    assert f"each replica records its calls in {recorded} on its own node" in logs
    assert "MLFLOW_GRPC_WATCH_CONFIG has no effect under Ray Serve: deploy the application again" in logs
    cluster.put()
    cluster.wait_until(lambda: cluster.status("churn") == ("", ""))
    cluster.wait_until(lambda: not list(recorded.glob(".*")), 30)
    calls = pd.read_parquet(recorded)
    assert calls.iloc[0].output == '{"predictions": [1, 1]}'
    assert set(calls.version) == {"1", "2"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of Ray and pydantic about each other.
def test_settings_that_have_no_effect(monkeypatch, tmp_path):
    """Variables of the environment get a line each, with what to do instead; those about TLS are refused."""
    from mlflow_grpc.ray.elsewhere import followed, notes

    flags = {"model_uri": "/none"}
    assert followed(Settings.load(flags))[1] == []
    monkeypatch.setenv("MLFLOW_GRPC_HTTP_PORT", "8080")
    monkeypatch.setenv("MLFLOW_GRPC_WEBHOOK_SECRET", str(tmp_path))
    settings, lines = followed(Settings.load(flags))
    assert (settings.http_port, settings.webhook_secret) == (None, None)
    assert [line.split(":")[0] for line in lines] == [
        "MLFLOW_GRPC_HTTP_PORT has no effect under Ray Serve",
        "MLFLOW_GRPC_WEBHOOK_SECRET has no effect under Ray Serve",
    ]
    assert list(notes(settings, Configuration(models=()))) == []
    (tmp_path / "file").touch()
    for name in ("CERT", "KEY"):
        monkeypatch.setenv(f"MLFLOW_GRPC_TLS_{name}", str(tmp_path / "file"))
    with pytest.raises(StartError, match="MLFLOW_GRPC_TLS_CERT has no effect under Ray Serve: Ray Serve has no TLS"):
        followed(Settings.load(flags))
