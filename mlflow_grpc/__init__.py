"""A gRPC server for MLflow models, with the answers that `mlflow models serve` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from mlflow_grpc_client import Client

__version__ = "0.1.0"


def serving(
    model: Any = None,
    *,
    client_options: Mapping[str, Any] | None = None,
    start_timeout_s: float = 300.0,
    **settings: Any,
) -> AbstractContextManager[Client]:
    """Serves a model for as long as a `with` block runs, and gives a client that is connected to the server.

        with mlflow_grpc.serving("models/iris") as client:
            client.predict({"inputs": [[5.1, 3.5, 1.4, 0.2]]})

    The server is a process of its own, at a free port of 127.0.0.1. It ends with the block, and with this process
    however that ends. Warnings and errors of its log go to stderr.

    Args:
        model: A directory, a URI such as models:/name/1, or what MLflow's `log_model` gives. None with `config`.
        client_options: Arguments of the client, such as `{"timeout_s": 5}`.
        start_timeout_s: How long the server may take until it is ready, in seconds.
        settings: Of the server, by the names of its flags: `threads=2`, `batching="off"`, `payload="text"`.

    Raises:
        StartError: The server cannot be started; with the lines of its log.
        TypeError: There is no such setting.
        ModuleNotFoundError: The client is not installed.

    """
    # Imported late, so that importing this package stays cheap.
    from mlflow_grpc import child_server

    return child_server.serving(model, client_options, start_timeout_s, settings)
