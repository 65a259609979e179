"""The servers in the comparison: how each is started, as its own docs advise, and by which protocols it is called."""

import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import grpc

from benchmarks.contenders import ANY_SIZE, ROOT, SCRIPTS
from benchmarks.peers.protocols import MODEL, Flight, Predict, Protocol, Rest, Rows, Tensors, TensorsRest, Typed
from benchmarks.typed_messages import TypedMessages

ENVIRONMENTS = ROOT / ".venvs"
PROGRAMS = Path(__file__).parent / "programs"
MAX_BATCH_SIZE = 32
PREPARE_LIMIT_S = 300.0


@dataclass(frozen=True)
class Location:
    """Where a server is started."""

    model: Path
    folder: Path
    """An empty folder for the files of the server."""
    http_port: int
    grpc_port: int
    third_port: int
    """A port for what is not called, such as metrics."""
    batch_wait_s: float
    """How long a batch waits for more calls, in seconds, for servers that have such a setting; 0 for no batches."""

    @property
    def max_batch_size(self) -> int:
        """The maximum number of calls in a batch."""
        return MAX_BATCH_SIZE if self.batch_wait_s else 1


Protocols = dict[str, Callable[[Location], Protocol]]
"""Protocols by their names in the report; they are made when the server runs."""


class Contender(ABC):
    """A server with its environment."""

    name: str
    environment: str
    """Folder of the environment in .venvs; empty for the one that runs the benchmark."""
    packages: tuple[str, ...]
    """Distributions whose versions the report states."""
    protocols: ClassVar[Protocols]

    @abstractmethod
    def setup(self, location: Location) -> str:
        """Returns the settings for the report."""

    @abstractmethod
    def command(self, location: Location) -> list[str]:
        """Returns the command line."""

    def variables(self, location: Location) -> dict[str, str]:
        """Returns further environment variables."""
        return {}

    def prepare(self, location: Location) -> None:  # noqa: B027 - most servers need nothing
        """Writes files that the server needs."""

    def working_folder(self, location: Location) -> Path:
        """Returns the folder in which the server runs."""
        return location.folder

    @property
    def scripts(self) -> Path:
        """The folder with the commands of the environment."""
        return ENVIRONMENTS / self.environment / "bin" if self.environment else SCRIPTS

    @property
    def python(self) -> str:
        """The Python of the environment."""
        return str(self.scripts / "python") if self.environment else sys.executable

    def process_environment(self, location: Location) -> dict[str, str]:
        """Returns all environment variables of the server."""
        # Servers start programs of their environments by name.
        path = f"{self.scripts}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, **self.variables(location)}
        if self.environment:
            environment.pop("PYTHONPATH", None)
        return environment


class Ours(Contender):
    """This server."""

    name = "mlflow-grpc"
    environment = ""
    packages = ("mlflow-grpc", "mlflow", "grpcio", "uvloop", "uvicorn")
    protocols: ClassVar[Protocols] = {
        "gRPC, JSON": lambda _: Predict(),
        "gRPC, typed": lambda location: Typed(TypedMessages(channel_to(location.grpc_port))),
        "gRPC, Open Inference": lambda _: Tensors(),
        "Arrow Flight": lambda _: Flight(),
        "HTTP, JSON": lambda _: Rest(),
    }

    def setup(self, location: Location) -> str:
        """Returns the settings for the report."""
        return "`mlflow-grpc serve`, defaults, HTTP port open; all rows from one process"

    def command(self, location: Location) -> list[str]:
        """Returns the command that a user would run."""
        where = ["-m", str(location.model), "-p", str(location.grpc_port), "--http-port", str(location.http_port)]
        return [sys.executable, "-m", "mlflow_grpc", "serve", *where, "--model-name", MODEL]


class Mlflow(Contender):
    """MLflow's own server."""

    name = "mlflow models serve"
    environment = ""
    packages = ("mlflow", "uvicorn")
    protocols: ClassVar[Protocols] = {"HTTP, JSON": lambda _: Rest()}

    def setup(self, location: Location) -> str:
        """Returns the settings for the report."""
        return "`--env-manager local -w 1`; it has no batches"

    def command(self, location: Location) -> list[str]:
        """Returns the command from MLflow's documentation."""
        where = ["-m", str(location.model), "-p", str(location.http_port), "--env-manager", "local", "-w", "1"]
        return [str(SCRIPTS / "mlflow"), "models", "serve", *where]


class MLServer(Contender):
    """Seldon's MLServer with its runtime for MLflow."""

    name = "MLServer"
    environment = "peer-mlserver"
    packages = ("mlserver", "mlserver-mlflow", "mlflow", "grpcio", "uvicorn")
    protocols: ClassVar[Protocols] = {
        "gRPC, Open Inference": lambda _: Tensors(),
        "HTTP, Open Inference": lambda _: TensorsRest(),
    }

    def setup(self, location: Location) -> str:
        """Returns the settings for the report."""
        return (
            f"`mlserver_mlflow.MLflowRuntime`, one worker process (the default), {_batches(location, 'max_batch_time')}"
        )

    def command(self, location: Location) -> list[str]:
        """Returns the command that serves the files of a folder."""
        return [str(self.scripts / "mlserver"), "start", str(location.folder)]

    def prepare(self, location: Location) -> None:
        """Writes settings.json and model-settings.json."""
        ports = {"http_port": location.http_port, "grpc_port": location.grpc_port, "metrics_port": location.third_port}
        _write_json(location.folder / "settings.json", {"host": "127.0.0.1", "debug": False, **ports})
        batches = {"max_batch_size": location.max_batch_size, "max_batch_time": location.batch_wait_s}
        runtime = {"implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": str(location.model)}}
        _write_json(location.folder / "model-settings.json", {"name": MODEL, **runtime, **batches})


class KServe(Contender):
    """KServe's SDK."""

    name = "KServe SDK"
    environment = "peer-kserve"
    packages = ("kserve", "mlflow", "grpcio", "uvicorn")
    protocols: ClassVar[Protocols] = {
        "gRPC, Open Inference": lambda _: Tensors(),
        "HTTP, Open Inference": lambda _: TensorsRest(),
    }

    def setup(self, location: Location) -> str:
        """Returns the settings for the report."""
        return "a `kserve.Model` around the pyfunc, one worker (the default); it has no batches of its own"

    def command(self, location: Location) -> list[str]:
        """Returns the command of the program in this project."""
        ports = ["--http_port", str(location.http_port), "--grpc_port", str(location.grpc_port)]
        return [self.python, str(PROGRAMS / "kserve_server.py"), str(location.model), *ports, "--model_name", MODEL]


class RayServe(Contender):
    """Ray Serve with FastAPI."""

    name = "Ray Serve"
    environment = "peer-ray"
    packages = ("ray", "mlflow", "fastapi", "uvicorn")
    protocols: ClassVar[Protocols] = {"HTTP, JSON": lambda _: Rest("/predict")}

    def setup(self, location: Location) -> str:
        """Returns the settings for the report."""
        return (
            "a FastAPI deployment around the pyfunc, one replica (the default), `max_ongoing_requests` 256, "
            f"`serve.batch`: {_batches(location, 'batch_wait_timeout_s')}"
        )

    def command(self, location: Location) -> list[str]:
        """Returns the command of the program in this project."""
        batches = [str(location.max_batch_size), str(location.batch_wait_s)]
        program = str(PROGRAMS / "ray_serve_server.py")
        return [self.python, program, str(location.model), str(location.http_port), *batches, str(location.folder)]

    def variables(self, location: Location) -> dict[str, str]:
        """Keeps Ray from reporting its use, and from writing a token into the user's home."""
        return {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class BentoML(Contender):
    """BentoML with a model from its store."""

    name = "BentoML"
    environment = "peer-bentoml"
    packages = ("bentoml", "mlflow", "uvicorn")
    protocols: ClassVar[Protocols] = {"HTTP, rows as JSON": lambda _: Rows()}

    def setup(self, location: Location) -> str:
        """Returns the settings for the report."""
        batches = "`batchable`, with the defaults of its adaptive batching" if location.batch_wait_s else "no batches"
        return f"`bentoml.mlflow` in a service with an array as its argument, one worker (the default), {batches}"

    def command(self, location: Location) -> list[str]:
        """Returns the command that serves the service of this project."""
        where = ["--host", "127.0.0.1", "--port", str(location.http_port)]
        return [str(self.scripts / "bentoml"), "serve", "bentoml_service:ModelService", *where]

    def working_folder(self, location: Location) -> Path:
        """Returns the folder of the service."""
        return PROGRAMS

    def variables(self, location: Location) -> dict[str, str]:
        """Chooses a store for this run, and keeps BentoML from reporting its use."""
        batches = {"BENCH_BATCHABLE": str(int(location.batch_wait_s > 0))}
        return {"BENTOML_HOME": str(location.folder), "BENTOML_DO_NOT_TRACK": "True", **batches}

    def prepare(self, location: Location) -> None:
        """Puts the model into the store."""
        code = f"import sys, bentoml; bentoml.mlflow.import_model({MODEL!r}, sys.argv[1])"
        command = [self.python, "-c", code, str(location.model)]
        environment = self.process_environment(location)
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=PREPARE_LIMIT_S)


class LitServe(Contender):
    """LitServe."""

    name = "LitServe"
    environment = "peer-litserve"
    packages = ("litserve", "mlflow", "fastapi", "uvicorn")
    protocols: ClassVar[Protocols] = {"HTTP, JSON": lambda _: Rest("/predict")}

    def setup(self, location: Location) -> str:
        """Returns the settings for the report."""
        return f"a `LitAPI` around the pyfunc, one worker (the default), {_batches(location, 'batch_timeout')}"

    def command(self, location: Location) -> list[str]:
        """Returns the command of the program in this project."""
        batches = [str(location.max_batch_size), str(location.batch_wait_s)]
        return [
            self.python,
            str(PROGRAMS / "litserve_server.py"),
            str(location.model),
            str(location.http_port),
            *batches,
        ]


CONTENDERS: tuple[Contender, ...] = (Ours(), Mlflow(), MLServer(), KServe(), RayServe(), BentoML(), LitServe())


def channel_to(port: int) -> grpc.Channel:
    """Returns a channel that does not pause between attempts while a server starts."""
    options = [*ANY_SIZE, ("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50)]
    return grpc.insecure_channel(f"127.0.0.1:{port}", options)


def _batches(location: Location, setting: str) -> str:
    if not location.batch_wait_s:
        return "no batches"
    return f"batches of up to {location.max_batch_size} calls, `{setting}` {location.batch_wait_s * 1000:g} ms"


def _write_json(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")
