"""TorchServe: how it is started with a feature, and the messages of its own gRPC service."""

import json
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers.contenders import PREPARE_LIMIT_S, PROGRAMS, Location
from benchmarks.peers.faces import free_ports
from benchmarks.peers.features.models import SECOND
from benchmarks.peers.features.tried import WAITING_CALLS, Options, Reloading, Tried, lines_of, post
from benchmarks.peers.protocols import MODEL, Protocol, Rest

EXPIRY_MS = 500
SERVICE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"


class TorchServePredictions(Protocol):
    """The RPC Predictions of its inference.proto, whose body the handler reads."""

    path = f"/{SERVICE}/Predictions"

    def request(self, text: str) -> list[bytes]:
        """Returns a PredictionsRequest: the model's name in field 1, and the entry `body` of the map in field 3."""
        entry = _field(1, b"body") + _field(2, text.encode())
        return [_field(1, MODEL.encode()) + _field(3, entry)]

    def predictions(self, answer: list[bytes]) -> list[Any]:
        """Returns the predictions in the JSON of all messages, which is in field 1."""
        return [value for message in answer for value in json.loads(message[message.index(b"{") :])["predictions"]]


class StreamPredictions(TorchServePredictions):
    """The RPC StreamPredictions: one request, and a message for each row."""

    path = f"/{SERVICE}/StreamPredictions"

    def request(self, text: str) -> list[bytes]:
        """Returns the request, with the flag that the handler reads."""
        return super().request(json.dumps({**json.loads(text), "in_turn": True}))


class TorchServeTried(Tried, Reloading):
    """TorchServe with a handler for MLflow models."""

    name = "TorchServe"
    environment = "peer-torchserve"
    packages = ("torchserve", "torch", "mlflow")
    handler = PROGRAMS / "torchserve_handler.py"
    settings: ClassVar[dict[str, str]] = {
        "batches": "`batchSize` 32, `maxBatchDelay` 50",
        "expiry": f"`clientTimeoutInMills` {EXPIRY_MS}",
        "limit": f"`job_queue_size={WAITING_CALLS}`",
        "certificate": "`enable_grpc_ssl=true`, `certificate_file`, `private_key_file`",
        "tokens": "on by default",
        "second": "`load_models`",
        "reloads": "`POST /models` of the management API",
    }
    json_over_grpc = TorchServePredictions()
    json_over_http = Rest(f"/predictions/{MODEL}")
    inference_service = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"
    stream = StreamPredictions()

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._management_port, self._grpc_management_port = free_ports(2)

    @property
    def how(self) -> str:  # type: ignore[override] # It depends on the handler.
        """What it takes to serve an MLflow model."""
        return f"an archive with a handler of {lines_of(self.handler)} lines"

    def command(self, location: Location) -> list[str]:
        """Returns the command that serves the archives of a folder."""
        where = ["--model-store", "store", "--ts-config", "config.properties"]
        return [str(self.scripts / "torchserve"), "--start", "--foreground", "--ncs", *where]

    def variables(self, location: Location) -> dict[str, str]:
        """Turns the Open Inference Protocol on, and keeps the files of TorchServe in the folder."""
        # It puts a socket and its pid into the folder of temporary files.
        more = {"TS_OPEN_INFERENCE_PROTOCOL": "oip", "TMPDIR": str(location.folder)}
        return {**super().variables(location), **more}

    def prepare(self, location: Location) -> None:
        """Writes the archives and config.properties."""
        (location.folder / "store").mkdir()
        names = {MODEL: location.model} | ({SECOND: self.options.second} if self.options.second else {})
        for name, model in names.items():
            self._archive(location, name, model)
        sizes = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 50, "responseTimeout": 120}
        sizes["batchSize"] = 32 if self.options.batches else 1
        models = {name: {"1.0": {"defaultVersion": True, "marName": f"{name}.mar", **sizes}} for name in names}
        lines = {
            "inference_address": f"http://127.0.0.1:{location.http_port}",
            "management_address": f"http://127.0.0.1:{self._management_port}",
            "metrics_address": f"http://127.0.0.1:{location.third_port}",
            "grpc_inference_port": location.grpc_port,
            "grpc_management_port": self._grpc_management_port,
            "metrics_mode": "prometheus",
            "enable_model_api": "true",
            "disable_token_authorization": str(not self.options.tokens).lower(),
            "load_models": "all",
            "models": json.dumps(models),
        }
        if self.options.limit:
            lines["job_queue_size"] = WAITING_CALLS
        if self.options.certificate:
            files = {"certificate_file": self.options.certificate, "private_key_file": self.options.key}
            lines |= {"enable_grpc_ssl": "true", **files}
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        (location.folder / "config.properties").write_text(text, encoding="utf-8")

    def path_of(self, name: str) -> str:
        """Returns the HTTP path of a model."""
        return f"/predictions/{name}"

    def load_second(self, location: Location, model: Path) -> None:
        """Calls the management API."""
        self._archive(location, SECOND, model)
        query = f"url={SECOND}.mar&initial_workers=1&synchronous=true"
        post(f"http://127.0.0.1:{self._management_port}/models?{query}")

    def token(self, location: Location) -> str:
        """Returns the token for predictions that the server has written into its folder."""
        keys = json.loads((location.folder / "key_file.json").read_text(encoding="utf-8"))
        return str(keys["inference"]["key"])

    def metrics_url(self, location: Location) -> str:
        """Returns the URL on the port of metrics."""
        return f"http://127.0.0.1:{location.third_port}/metrics"

    def ending_pid(self, location: Location, pid: int) -> int:
        """Returns the pid in the file from which `torchserve --stop` takes it."""
        return int((location.folder / ".model_server.pid").read_text(encoding="ascii"))

    def _archive(self, location: Location, name: str, model: Path) -> None:
        command = [str(self.scripts / "torch-model-archiver"), "--model-name", name, "--version", "1.0", "--handler"]
        if self.options.expiry:
            configuration = location.folder / f"{name}.yaml"
            text = f"minWorkers: 1\nmaxWorkers: 1\nclientTimeoutInMills: {EXPIRY_MS}\n"
            configuration.write_text(text, encoding="ascii")
            options = ["--config-file", str(configuration)]
        else:
            options = []
        command += [
            str(self.handler),
            *options,
            "--extra-files",
            str(model),
            "--export-path",
            str(location.folder / "store"),
        ]
        environment = self.process_environment(location)
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=PREPARE_LIMIT_S)


def _field(number: int, data: bytes) -> bytes:
    """Returns a length-delimited field of protobuf."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    head = b""
    while number > 127:  # noqa: PLR2004 - seven bits in a byte
        head += bytes([number & 127 | 128])
        number >>= 7
    return head + bytes([number])
