"""The application builder: from the arguments in a configuration of Ray Serve to a deployment.

Rule of this module: it checks all arguments before a replica starts, and loads no model.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator
from ray import serve
from ray.serve import Application

from mlflow_grpc import config
from mlflow_grpc.errors import StartError
from mlflow_grpc.ray.autoscaling import ByUtilization
from mlflow_grpc.ray.elsewhere import ELSEWHERE, followed
from mlflow_grpc.settings import Settings

NAME = "mlflow-grpc"
"""Name of the deployment, unless the arguments set another."""

DEREGISTRATION_S = 35.0
"""Time for which Ray Serve keeps a replica that it stops reachable by default, and its reserve, in seconds."""


class Arguments(BaseModel):
    """Arguments of an application: one model or a file of models, settings, metrics, options of the deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_uri: str | None = None
    """The model, as for `mlflow-grpc serve --model-uri`."""
    config: str | None = None
    """Path of a file of models, as for `mlflow-grpc serve --config`. Each node needs the file."""
    settings: dict[str, Any] = {}
    """Other settings of the server by the names of their fields, such as `model_name` or `queue_calls`."""
    metrics: bool = False
    """True to offer the metrics of the server to Prometheus, by Ray's agent on each node."""
    deployment: dict[str, Any] = {}
    """Options of Ray Serve's deployment, such as `num_replicas`, `ray_actor_options` or `autoscaling_config`."""

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        for name in self.settings:
            if name in ELSEWHERE:
                raise ValueError(f"settings: {name} has no effect under Ray Serve: {ELSEWHERE[name]}")
            if name in ("model_uri", "config"):
                raise ValueError(f"settings: {name} belongs beside settings")
            if name not in Settings.model_fields:
                raise ValueError(f"settings: there is no setting {name}; docs/settings.md lists their fields")
        if "user_config" in self.deployment:
            raise ValueError("deployment: user_config has no effect here: put settings under settings")
        if (self.deployment.get("autoscaling_config") or {}).get("min_replicas") == 0:
            raise ValueError(
                "deployment: min_replicas has to be at least 1, because no replica reports a load that could start one"
            )
        return self

    @property
    def flags(self) -> dict[str, Any]:
        """Settings that differ from their defaults, for `Settings.load`."""
        named = {"model_uri": self.model_uri, "config": self.config}
        return {**{name: value for name, value in named.items() if value is not None}, **self.settings}


def app(args: Arguments) -> Application:
    """Builds the application that serves the models; `import_path` of a configuration is `mlflow_grpc.ray:app`.

    Args:
        args: The arguments, from `args` of the configuration.

    Raises:
        StartError: A setting or the file of models is invalid.
        ValueError: An option of the deployment is invalid.

    """
    settings, _ = followed(Settings.load(args.flags))
    config.load(settings)
    # Imported late, because proxies import this module, and a replica imports MLflow.
    from mlflow_grpc.ray.replica import ModelReplica

    options = {
        "name": NAME,
        # The limits of this server apply; Ray Serve's own one of 5 would refuse calls before they reach it.
        "max_ongoing_requests": settings.queue_calls + settings.threads,
        "graceful_shutdown_timeout_s": DEREGISTRATION_S + settings.drain_timeout_s,
        # Ray Serve calls `reconfigure`, which loads the models, only if there is one.
        "user_config": {},
        **args.deployment,
    }
    if isinstance(scaling := options.get("autoscaling_config"), dict):
        policy = {"policy_function": f"{ByUtilization.__module__}:{ByUtilization.__name__}"}
        options["autoscaling_config"] = {"policy": policy, **scaling}
    try:
        deployment = serve.deployment(**options)(ModelReplica)
    except TypeError as error:
        raise StartError(f"deployment: {error}") from error
    return deployment.bind(args.flags, has_metrics=args.metrics)
