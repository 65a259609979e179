"""What all servers of the trials have in common: their options, and what the trials need to know about them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import requests

from benchmarks.peers import contenders
from benchmarks.peers.contenders import Contender, Location
from benchmarks.peers.protocols import Protocol, Rest

WAITING_CALLS = 20
"""The limit of waiting calls, for servers that have such a setting."""
TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - A token of the trial.
MANAGEMENT_LIMIT_S = 60.0


@dataclass(frozen=True)
class Options:
    """Features that a server is started with."""

    batches: bool = False
    second: Path | None = None
    """A second model, served from the start."""
    expiry: bool = False
    """Calls that wait for longer than a limit are dropped, whatever deadlines their callers have."""
    limit: bool = False
    """At most `WAITING_CALLS` calls wait."""
    certificate: Path | None = None
    """A certificate; its key is beside it, in a file that ends in .key."""
    client_authority: Path | None = None
    """The authority of clients' certificates."""
    tokens: bool = False
    collector: str = ""
    """The URL of a collector of traces."""
    streams: bool = False
    reloads: bool = False
    """Models can be loaded while the server runs."""

    @property
    def key(self) -> Path | None:
        """The key of the certificate."""
        return self.certificate and self.certificate.with_suffix(".key")


class Reloading(ABC):
    """A server that loads further models while it runs."""

    @abstractmethod
    def load_second(self, location: Location, model: Path) -> None:
        """Loads the second model into the running server.

        Raises:
            requests.HTTPError: The server refuses it.

        """


class Tried(Contender):
    """A server that is tried."""

    protocols: ClassVar[contenders.Protocols] = {}
    how: str
    """What it takes to serve an MLflow model."""
    settings: ClassVar[dict[str, str]]
    """The documented setting of a feature, by the name of the option; what is not there has none."""
    json_over_grpc: Protocol | None = None
    json_over_http: Protocol = Rest()
    has_grpc = True
    inference_service = "inference.GRPCInferenceService"
    """The service of the Open Inference Protocol, if its name is another one than tritonclient's."""
    stream: Protocol | None = None
    """A streaming RPC of the server's own; ModelStreamInfer is tried on all servers."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def setup(self, location: Location) -> str:
        """Returns what it takes to serve a model."""
        return self.how

    def variables(self, location: Location) -> dict[str, str]:
        """Names the log of the model and, if the server has no setting of its own for traces, the usual collector."""
        traces = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.options.collector,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }
        return {"PROBE_LOG": str(location.folder / "probe.log"), **(traces if self.options.collector else {})}

    def path_of(self, name: str) -> str:
        """Returns the HTTP path of a model."""
        return f"/v2/models/{name}/infer"

    def token(self, location: Location) -> str:
        """Returns the token that callers send."""
        return TOKEN

    def metrics_url(self, location: Location) -> str:
        """Returns where Prometheus would read metrics."""
        return f"http://127.0.0.1:{location.http_port}/metrics"

    def ending_pid(self, location: Location, pid: int) -> int:
        """Returns the pid that gets SIGTERM when the server is stopped as its documentation says."""
        return pid

    @abstractmethod
    def command(self, location: Location) -> list[str]:
        """Returns the command line."""


def post(url: str) -> None:
    """Sends an empty request to a management API; raises requests.HTTPError if it is refused."""
    requests.post(url, timeout=MANAGEMENT_LIMIT_S).raise_for_status()


def lines_of(path: Path) -> int:
    """Returns the number of lines of a program."""
    return len(path.read_text(encoding="utf-8").splitlines())
