"""A gRPC server for MLflow models, with the answers that `mlflow models serve` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from mlflow_grpc_client import Client

__version__ = "0.2.0"


def serving(
    model: Any = None,
    *,
    client_options: Mapping[str, Any] | None = None,
    start_timeout_s: float = 300.0,
    **settings: Any,
) -> AbstractContextManager[Client]:
    """Serves a model while a `with` block runs, and yields a client that is connected to the server.

        with mlflow_grpc.serving("models/iris") as client:
            client.predict({"inputs": [[5.1, 3.5, 1.4, 0.2]]})

    The server is a separate process on a free port of 127.0.0.1. It ends with the block, and also if this process
    is killed. Warnings and errors from its log go to stderr.

    Args:
        model: A directory, a URI such as models:/name/1, or the result of MLflow's `log_model`. None with `config`.
        client_options: Arguments of the client, such as `{"timeout_s": 5}`.
        start_timeout_s: Maximum time until the server is ready, in seconds.
        settings: Settings of the server by the names of its flags, such as `threads=2` or `payload="text"`.

    Raises:
        StartError: The server cannot be started. The message has the last lines of its log.
        TypeError: There is no such setting.
        ModuleNotFoundError: The client is not installed.

    """
    # Imported late, so that importing this package stays cheap.
    from mlflow_grpc import child_server

    return child_server.serving(model, client_options, start_timeout_s, settings)
