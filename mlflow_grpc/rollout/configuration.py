"""Which models of a configuration follow their registry, and at which interval; whether workers may be replaced.

Rule of this module: it checks settings, and queries nothing.
"""

from pathlib import Path

from mlflow_grpc.choices import EnvManager
from mlflow_grpc.config import Configuration
from mlflow_grpc.errors import StartError
from mlflow_grpc.naming import always_same, can_move, name_from_uri
from mlflow_grpc.settings import Settings, spelling


def _check_webhook(settings: Settings, secret: Path, *, has_tracked: bool) -> None:
    """Raises StartError if events would have no effect, or cannot be checked."""
    source = settings.source("webhook_secret")
    if not has_tracked:
        raise StartError(f"{source} has no effect: no model is tracked; add {spelling('track_s')}")
    if settings.http_port is None:
        raise StartError(f"{source} has no effect without an HTTP port, which takes the events: add --http-port")
    try:
        is_empty = not secret.read_bytes().strip()
    except OSError as error:
        raise StartError(f"{source} {secret}: {error.strerror}") from None
    if is_empty:
        raise StartError(f"{source} {secret}: the file is empty; write the secret of the webhook into it")


def tracked(configuration: Configuration, settings: Settings) -> Configuration:
    """Returns the configuration with the interval of the settings at models that can be tracked and have none.

    Raises:
        StartError: No model can be tracked, a tracked model shares its environment or its name, there is no file to
            watch, or webhook events would have no effect.

    """
    models = configuration.models
    if settings.watch_config_s is not None:
        _check_watch(settings)
    if settings.track_s is not None:
        flag = f"{settings.source('track_s')} has no effect"
        if len(models) == 1 and not can_move(models[0].uri or ""):
            raise StartError(f"{flag}: {always_same(models[0].source)}")
        if not any(can_move(model.uri or "") for model in models):
            raise StartError(f"{flag}: no model of {settings.config} has an alias, latest or a stage in its uri")
        models = tuple(
            model.model_copy(update={"track": settings.track_s})
            if model.track is None and can_move(model.uri or "")
            else model
            for model in models
        )
    tracked = [model for model in models if model.track]
    if tracked and settings.env_manager is not EnvManager.LOCAL:
        raise StartError(
            f"{settings.source('env_manager')} builds the environment of one version, and a tracked model may get "
            f"another: turn off {spelling('track_s')}, or use {spelling('env_manager')} local"
        )
    if settings.webhook_secret is not None:
        _check_webhook(settings, settings.webhook_secret, has_tracked=bool(tracked))
    names = [model.name or name_from_uri(model.uri) for model in models if model.uri]
    for model in tracked:
        if names.count(name := model.name or name_from_uri(model.uri or "")) > 1:
            raise StartError(
                f"several models are called {name}, and {model.source} is tracked: callers would not know its version. "
                "Give each a name in the configuration"
            )
    return configuration.model_copy(update={"models": models})


def may_replace_workers(configuration: Configuration, settings: Settings) -> bool:
    """Returns True if worker processes may have to be replaced, so that even a single one needs a supervisor.

    Versions of a tracked model may bring different code along, and a process can hold only one module of a name.
    """
    return settings.watch_config_s is not None or any(model.track for model in configuration.models)


def _check_watch(settings: Settings) -> None:
    """Raises StartError if there is no file to watch, or its models need environments of their own."""
    watched = settings.source("watch_config_s")
    if settings.config is None:
        raise StartError(f"{watched} has no effect without a file: name it with {spelling('config')}")
    if settings.env_manager is not EnvManager.LOCAL:
        raise StartError(
            f"{settings.source('env_manager')} builds the environment of one model, and a watched file may get others: "
            f"turn off {spelling('watch_config_s')}, or use {spelling('env_manager')} local"
        )
