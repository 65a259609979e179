"""Settings of the server that a replica of Ray Serve cannot follow, and notes about those that it follows.

Arguments of an application may not contain such settings. Variables of the environment may be there for other reasons,
so they get a log line, except for those about TLS: who sets them relies on it.

Rule of this module: it imports no MLflow, because proxies import it.
"""

from collections.abc import Iterator

from mlflow_grpc.config import Configuration
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings

NO_TLS = "Ray Serve has no TLS for gRPC"
OTHER_PORT = "Ray Serve listens, and has no HTTP port for models"

ELSEWHERE = {
    "host": "Ray Serve listens; set grpc_options",
    "port": "Ray Serve listens; set grpc_options",
    "workers": "set num_replicas or autoscaling_config under deployment",
    "env_manager": "set runtime_env of the application",
    "http_port": f"{OTHER_PORT}; for metrics, set metrics beside settings",
    "http_host": OTHER_PORT,
    "http_cors_origin": OTHER_PORT,
    "page": OTHER_PORT,
    "max_message_bytes": "set RAY_SERVE_GRPC_MAX_MESSAGE_SIZE in the environment of Ray",
    "max_connection_age_s": "the connections are those of Ray Serve",
    "tls_cert": NO_TLS,
    "tls_key": NO_TLS,
    "tls_client_ca": NO_TLS,
    "auth_tls_san": f"{NO_TLS}, so there are no certificates of clients; use tokens or JWTs",
    "lame_duck_s": "set RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S in the environment of Ray",
    "end_with_stdin": "Ray ends its replicas",
    "watch_config_s": "deploy the application again",
    "webhook_secret": f"{OTHER_PORT}; set a short track_s",
}
"""Settings that have no effect here, each with what to do instead."""

RELIED_ON = ("tls_cert", "tls_key", "tls_client_ca", "auth_tls_san")
"""Those that no server should ignore."""


def followed(settings: Settings) -> tuple[Settings, list[str]]:
    """Returns the settings with those of ELSEWHERE at their defaults, and a log line for each that was not.

    Args:
        settings: Settings of the arguments and the environment.

    Raises:
        StartError: The environment asks for TLS.

    """
    defaults = {name: Settings.model_fields[name].get_default(call_default_factory=True) for name in ELSEWHERE}
    set_elsewhere = [name for name, default in defaults.items() if getattr(settings, name) != default]
    lines = {
        name: f"{settings.source(name)} has no effect under Ray Serve: {ELSEWHERE[name]}" for name in set_elsewhere
    }
    if relied_on := [lines[name] for name in set_elsewhere if name in RELIED_ON]:
        raise StartError("; ".join(relied_on))
    return settings.model_copy(update=defaults), list(lines.values())


def notes(settings: Settings, configuration: Configuration) -> Iterator[str]:
    """Yields a log line for what a replica does in another way than a single server.

    Args:
        settings: Settings of the replica.
        configuration: Its models.

    """
    if settings.recognizes_callers:
        yield (
            f"{NO_TLS}: tokens reach this replica without encryption. Keep its network closed, and put a proxy with "
            "TLS in front"
        )
    if tracked := [model.source for model in configuration.models if model.track]:
        yield (
            f"each replica follows {', '.join(tracked)} on its own, so replicas serve different versions for a moment; "
            "a version with other Python code of its own needs new replicas"
        )
    if settings.record is not None:
        yield f"each replica records its calls in {settings.record} on its own node"
