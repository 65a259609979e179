"""The servers of the trials: how each is started with a feature, by the settings that its documentation names."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers.contenders import PROGRAMS, Location
from benchmarks.peers.features.models import SECOND
from benchmarks.peers.features.torchserve import TorchServeTried
from benchmarks.peers.features.tried import TOKEN, WAITING_CALLS, Reloading, Tried, lines_of, post
from benchmarks.peers.protocols import MODEL, Predict, Rest


class OursTried(Tried, Reloading):
    """This server."""

    name = "mlflow-grpc"
    environment = ""
    packages = ("mlflow-grpc", "mlflow", "grpcio")
    how = "one command"
    settings: ClassVar[dict[str, str]] = {
        "batches": "`--batching on`",
        "limit": f"`--queue-calls {WAITING_CALLS}`",
        "certificate": "`--tls-cert`, `--tls-key`",
        "client_authority": "`--tls-client-ca`",
        "tokens": "`--auth-tokens`",
        "collector": "`--otlp-endpoint`",
        "second": "`--config`",
        "reloads": "`--watch-config 1`",
    }
    json_over_grpc = Predict()

    def command(self, location: Location) -> list[str]:
        """Returns the command that a user would run."""
        options = self.options
        command = [self.python, "-m", "mlflow_grpc", "serve", "-p", str(location.grpc_port)]
        command += ["--http-port", str(location.http_port)]
        if options.second or options.reloads:
            command += ["--config", str(_configuration(location))]
        else:
            command += ["-m", str(location.model), "--model-name", MODEL]
        command += ["--batching", "on"] * options.batches
        command += ["--queue-calls", str(WAITING_CALLS)] * options.limit
        command += ["--watch-config", "1"] * options.reloads
        if options.certificate:
            command += ["--tls-cert", str(options.certificate), "--tls-key", str(options.key)]
        if options.client_authority:
            command += ["--tls-client-ca", str(options.client_authority)]
        if options.tokens:
            command += ["--auth-tokens", str(location.folder / "tokens.txt")]
        if options.collector:
            command += ["--otlp-endpoint", options.collector]
        return command

    def prepare(self, location: Location) -> None:
        """Writes the configuration and the file of tokens."""
        _write_configuration(location, location.model, self.options.second)
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        (location.folder / "tokens.txt").write_text(f"trial {digest}\n", encoding="ascii")

    def load_second(self, location: Location, model: Path) -> None:
        """Adds the model to the watched configuration."""
        _write_configuration(location, location.model, model)


class MlflowTried(Tried):
    """MLflow's own server."""

    name = "`mlflow models serve`"
    environment = ""
    packages = ("mlflow", "uvicorn")
    how = "one command"
    settings: ClassVar[dict[str, str]] = {}
    has_grpc = False

    def command(self, location: Location) -> list[str]:
        """Returns the command from MLflow's documentation."""
        where = ["-m", str(location.model), "-p", str(location.http_port), "--env-manager", "local", "-w", "1"]
        return [str(self.scripts / "mlflow"), "models", "serve", *where]


class MLServerTried(Tried, Reloading):
    """Seldon's MLServer with its runtime for MLflow."""

    name = "MLServer"
    environment = "peer-mlserver"
    packages = ("mlserver", "mlserver-mlflow", "mlflow", "grpcio")
    how = "two files of settings, for its MLflow runtime"
    settings: ClassVar[dict[str, str]] = {
        "batches": "`max_batch_size` 32, `max_batch_time` 0.05",
        "collector": "`tracing_server`",
        "second": "a folder for each model",
        "reloads": "`POST /v2/repository/models/NAME/load`",
        "streams": "`parallel_workers` 0, `gzip_enabled` false, `metrics_endpoint` null",
    }

    def command(self, location: Location) -> list[str]:
        """Returns the command that serves the models of a folder."""
        return [str(self.scripts / "mlserver"), "start", str(location.folder)]

    def prepare(self, location: Location) -> None:
        """Writes settings.json, and model-settings.json of each model."""
        ports = {"http_port": location.http_port, "grpc_port": location.grpc_port, "metrics_port": location.third_port}
        settings: dict[str, Any] = {"host": "127.0.0.1", "debug": False, **ports}
        if self.options.streams:
            settings |= {"parallel_workers": 0, "gzip_enabled": False, "metrics_endpoint": None}
        if self.options.collector:
            settings |= {"tracing_server": self.options.collector.removeprefix("http://")}
        (location.folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        self._write_model(location, MODEL, location.model)
        if self.options.second:
            self._write_model(location, SECOND, self.options.second)

    def load_second(self, location: Location, model: Path) -> None:
        """Calls the model repository API."""
        self._write_model(location, SECOND, model)
        post(f"http://127.0.0.1:{location.http_port}/v2/repository/models/{SECOND}/load")

    def metrics_url(self, location: Location) -> str:
        """Returns the URL on the port of metrics."""
        return f"http://127.0.0.1:{location.third_port}/metrics"

    def _write_model(self, location: Location, name: str, model: Path) -> None:
        batches = {"max_batch_size": 32, "max_batch_time": 0.05} if self.options.batches else {}
        runtime = {"implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": str(model)}}
        folder = location.folder / "models" / name
        folder.mkdir(parents=True)
        (folder / "model-settings.json").write_text(json.dumps({"name": name, **runtime, **batches}), encoding="utf-8")


class KServeTried(Tried, Reloading):
    """KServe's SDK with a program."""

    name = "KServe SDK"
    environment = "peer-kserve"
    packages = ("kserve", "mlflow", "grpcio")
    program = PROGRAMS / "kserve_models.py"
    settings: ClassVar[dict[str, str]] = {
        "certificate": "`--ssl_certfile`, `--ssl_keyfile`",
        "second": "several models in the program",
        "reloads": "a `ModelRepository` in the program, `POST /v2/repository/models/NAME/load`",
    }
    json_over_http = Rest(f"/v1/models/{MODEL}:predict")

    @property
    def how(self) -> str:  # type: ignore[override] # It depends on the program.
        """What it takes to serve an MLflow model."""
        return f"a program of {lines_of(self.program)} lines"

    def command(self, location: Location) -> list[str]:
        """Returns the command of the program in this project."""
        ports = ["--http_port", str(location.http_port), "--grpc_port", str(location.grpc_port)]
        command = [self.python, str(self.program), str(location.folder / "models"), *ports]
        if self.options.certificate:
            command += ["--ssl_certfile", str(self.options.certificate), "--ssl_keyfile", str(self.options.key)]
        return command

    def prepare(self, location: Location) -> None:
        """Copies the models into a folder."""
        shutil.copytree(location.model, location.folder / "models" / MODEL)
        if self.options.second:
            shutil.copytree(self.options.second, location.folder / "models" / SECOND)

    def load_second(self, location: Location, model: Path) -> None:
        """Calls the model repository API."""
        shutil.copytree(model, location.folder / "models" / SECOND)
        post(f"http://127.0.0.1:{location.http_port}/v2/repository/models/{SECOND}/load")


TRIED: tuple[type[Tried], ...] = (OursTried, MlflowTried, MLServerTried, KServeTried, TorchServeTried)


def _configuration(location: Location) -> Path:
    return location.folder / "models.yaml"


def _write_configuration(location: Location, model: Path, second: Path | None) -> None:
    entries = {MODEL: model} | ({SECOND: second} if second else {})
    models = [{"name": name, "uri": str(path), "default": name == MODEL} for name, path in entries.items()]
    # JSON is YAML, too.
    _configuration(location).write_text(json.dumps({"models": models}), encoding="utf-8")
