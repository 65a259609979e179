"""The targets `grpc` and `grpcs` of `mlflow deployments`: predictions by models of a running server.

    mlflow deployments predict -t grpc://localhost:50051 --name iris -I input.json

MLflow imports this module for a target URI of these schemes; the client itself never does, because it needs no MLflow.
Rule of this module: it has one subclass of `BaseDeploymentClient`, as MLflow requires of a plugin, and every failure is
an `MlflowException`.
"""

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NoReturn

import grpc
from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.environment_variables import MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from mlflow_grpc_client._client import Client
from mlflow_grpc_client._models import Model
from mlflow_grpc_client._payloads import to_json
from mlflow_grpc_client.errors import PredictError

_HELP = """\
Calls the models of a running mlflow-grpc server.

Target URI: grpc://host:port, or grpcs://host:port for TLS. Several servers have commas between their URIs. The
certificates of grpcs:// are checked against the authorities in the file that GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names,
by default those that come with gRPC. A server that asks for a token gets that of MLFLOW_GRPC_TOKEN, or of the file that
MLFLOW_GRPC_TOKEN_FILE names.

A deployment is a model of the server: its name, or name/version.

  predict    The input is a DataFrame. In Python it may be any payload of `mlflow models serve`.
             MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT limits a call, in seconds.
  list, get  The models of the server, with their states, signatures and examples.
  run-local  Serves a model on this machine until Ctrl-C. -C has the flags of `mlflow-grpc serve`, such as
             -C port=50051 -C no-page=true. The target is grpc, without an address.

create, update and delete are not supported: the server's own command or configuration lists its models."""

_ELSEWHERE = (
    "A gRPC target does not {verb} deployments. The models of a server are those of its command (`mlflow-grpc serve "
    "--model-uri URI --model-name NAME`) or of its configuration file (`--config models.yaml`): change them there, and "
    "start the server again."
)

_NO_EXPLANATIONS = (
    "A gRPC target computes no explanations. Serve an explainer that mlflow.shap.log_explainer has logged as a model "
    "of its own, and call predict with its name."
)

_NO_ENDPOINTS = "A gRPC target has no endpoints: give the name of a model as the deployment (--name)."

_ERROR_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_PARAMETER_VALUE",
    grpc.StatusCode.NOT_FOUND: "RESOURCE_DOES_NOT_EXIST",
    grpc.StatusCode.UNIMPLEMENTED: "NOT_IMPLEMENTED",
    grpc.StatusCode.UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
}
"""MLflow's names of error codes, for statuses that have another name there."""


def target_help() -> str:
    """Returns the text of `mlflow deployments help -t grpc`."""
    return _HELP


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, Any] | None = None) -> None:
    """Serves a model on this machine, until Ctrl-C or until the server ends.

    Args:
        name: The name of the model for callers.
        model_uri: A directory, or a URI such as models:/name/1.
        flavor: Not supported, because the server calls a model by its Python function, as `mlflow models serve` does.
        config: Flags of `mlflow-grpc serve` without their dashes. True stands for a flag without a value.

    Raises:
        MlflowException: The server is not installed, does not start, or fails.

    """
    if flavor not in (None, "python_function"):
        raise MlflowException.invalid_parameter_value(
            f"mlflow-grpc serves the flavor python_function of a model, not {flavor!r}: leave the flavor out"
        )
    if importlib.util.find_spec("mlflow_grpc") is None:
        raise MlflowException("run-local needs the server, and mlflow-grpc is not installed here: install it")
    # The server ends with this process, even if it is killed, because its stdin closes then.
    flags: dict[str, Any] = {"model-uri": model_uri, "model-name": name, "end-with-stdin": True, **(config or {})}
    arguments = [
        f"--{flag.replace('_', '-')}" + ("" if value in (True, "true") else f"={value}")
        for flag, value in flags.items()
    ]
    command = [sys.executable, "-m", "mlflow_grpc", "serve", *arguments]
    # A session of its own, because Ctrl-C would otherwise reach the server twice.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as server:  # noqa: S603
        try:
            exit_code = server.wait()
        except KeyboardInterrupt:
            server.send_signal(signal.SIGINT)
            exit_code = server.wait()
        finally:
            server.kill()
    if exit_code:
        raise MlflowException(f"The server ended with exit code {exit_code}; its last lines say why.")


class GrpcDeploymentClient(BaseDeploymentClient):
    """The models of a running server. Created by `mlflow.deployments.get_deploy_client("grpc://host:port")`."""

    def __init__(self, target_uri: str) -> None:
        """Checks the URI; the first call connects.

        Raises:
            MlflowException: The URI is invalid.

        """
        super().__init__(target_uri)  # type: ignore[no-untyped-call]
        if "://" not in target_uri:
            raise MlflowException.invalid_parameter_value(
                f"the target has an address, grpc://host:port or grpcs://host:port; not {target_uri!r}"
            )
        with _mlflow_errors():
            self._client = Client(target_uri, timeout_s=MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT.get())

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Returns a model's predictions for a payload.

        Args:
            deployment_name: `name` or `name/version`. None with a single or a default model.
            inputs: A DataFrame, or whatever `Client.predict` takes.
            endpoint: Not supported.

        Returns:
            The server's answer: `predictions`, or the keys of the answer to an LLM payload.

        Raises:
            MlflowException: The call failed. Its `__cause__` is the `PredictError` with all details.

        """
        _refuse_endpoint(endpoint)
        with _mlflow_errors():
            answer = json.loads(self._client.predict_text(to_json(inputs), model=deployment_name))
        return PredictionsResponse(answer if isinstance(answer, dict) else {"predictions": answer})

    def predict_stream(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> Iterator[Any]:
        """Yields chunks of the answer of a model with `predict_stream`, as they arrive. Arguments are as in `predict`.

        Raises:
            MlflowException: The call failed.

        """
        _refuse_endpoint(endpoint)
        with _mlflow_errors(), self._client.predict_stream(inputs, model=deployment_name) as chunks:
            yield from chunks

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Returns the models of the server in any state: name, version, state, flavors and URI of each.

        Raises:
            MlflowException: No server answers.

        """
        facts = ("name", "version", "state", "flavors", "uri")
        return [{fact: getattr(model, fact) for fact in facts} for model in self._models(endpoint)]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Returns everything that the server publishes about a model: the fields of `mlflow_grpc_client.Model`.

        Args:
            name: `name`, or `name/version`.
            endpoint: Not supported.

        Raises:
            MlflowException: There is no such model, or no server answers.

        """
        models = self._models(endpoint)
        for model in models:
            if name in (model.label, model.name):
                return asdict(model)
        labels = ", ".join(model.label for model in models)
        raise MlflowException(f"There is no model {name}. There are: {labels}.", codes.RESOURCE_DOES_NOT_EXIST)

    def _models(self, endpoint: str | None) -> list[Model]:
        _refuse_endpoint(endpoint)
        with _mlflow_errors():
            return self._client.models()

    def explain(
        self,
        deployment_name: str | None = None,
        df: Any = None,
        endpoint: str | None = None,
    ) -> NoReturn:
        """Raises an MlflowException that says where explanations are computed instead."""
        raise MlflowException(_NO_EXPLANATIONS, codes.NOT_IMPLEMENTED)

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: dict[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> NoReturn:
        """Raises an MlflowException that says where this is done instead."""
        raise MlflowException(_ELSEWHERE.format(verb="create"), codes.NOT_IMPLEMENTED)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: dict[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> NoReturn:
        """Raises an MlflowException that says where this is done instead."""
        raise MlflowException(_ELSEWHERE.format(verb="update"), codes.NOT_IMPLEMENTED)

    def delete_deployment(
        self, name: str, config: dict[str, Any] | None = None, endpoint: str | None = None
    ) -> NoReturn:
        """Raises an MlflowException that says where this is done instead."""
        raise MlflowException(_ELSEWHERE.format(verb="delete"), codes.NOT_IMPLEMENTED)


@contextlib.contextmanager
def _mlflow_errors() -> Iterator[None]:
    """Raises an MlflowException for each error of the client."""
    try:
        yield
    except PredictError as error:
        mlflow_codes = codes.ErrorCode.keys()
        names = (error.reason, _ERROR_CODES.get(error.code, error.code.name), "INTERNAL_ERROR")
        name = next(name for name in names if name in mlflow_codes)
        raise MlflowException(str(error), codes.ErrorCode.Value(name)) from error
    except (TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error


def _refuse_endpoint(endpoint: str | None) -> None:
    if endpoint is not None:
        raise MlflowException.invalid_parameter_value(_NO_ENDPOINTS)
