"""Loading: from a model of the configuration to a ServableModel.

Rule of this module: MLflow is imported inside of functions. It takes seconds, in which the server can already answer
health checks, and a server of MLModel packages alone does not need it.
"""

import contextlib
import contextvars
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_grpc import logs
from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.engine import trial
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.naming import name_from_uri
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.settings import Settings, spelling

if TYPE_CHECKING:
    from mlflow_grpc.hosting.pyfunc.fetching import FetchedModel

logger = get_logger(__name__)


def import_libraries(models: Iterable[ModelConfig]) -> None:
    """Imports the libraries for fetching and loading the models, before several are fetched at a time.

    Then puts the working directory at the head of `sys.path`, because a model's own module may be there. `mlflow models
    serve` has it there too (uvicorn's `--app-dir`).
    """
    models = list(models)
    if uris := [model.uri for model in models if model.uri]:
        from mlflow_grpc.hosting.pyfunc import (
            fetching,
            internals,
            load,  # noqa: F401
        )
        from mlflow_grpc.payload.fast_json import decoders  # noqa: F401
        from mlflow_grpc.payload.mlflow_json import codec  # noqa: F401

        logs.adopt()
        logs.quiet(internals.CHATTY_LOGGERS)
        if not sys.stderr.isatty():
            internals.disable_progress_bars()
        if len(uris) > 1 or any(model.track for model in models):
            fetching.import_clients(uris)
    if "" not in sys.path:
        sys.path.insert(0, "")


def own_directory(model: ModelConfig) -> Path:
    """Returns a new temporary directory for the files of one version of a model; its caller deletes it."""
    return Path(tempfile.mkdtemp(prefix=f"mlflow-grpc-{name_from_uri(model.uri or '')}-"))


def fetch(
    model: ModelConfig, versions: RegistryVersions | None = None, into: Path | None = None
) -> "FetchedModel | None":
    """Fetches an MLflow model; None for an MLModel class. Several models may be fetched at a time.

    Args:
        model: The model of the configuration.
        versions: Versions that aliases mean to the server; without them, the registry decides.
        into: Directory for the files; by default MLflow chooses one, which is never deleted.

    Raises:
        StartError: The model cannot be fetched.

    """
    if model.uri is None:
        return None
    from mlflow_grpc.hosting.pyfunc import fetching

    with fetching.warn_if_slow(model.uri, f"{spelling('load_timeout_s')} limits the wait"):
        return fetching.fetch(model.uri, versions, into)


def late_message(model: ModelConfig, limit: str) -> str:
    """Returns the message that a model was not fetched in time, with the registry or store that did not answer.

    Args:
        model: An MLflow model.
        limit: Phrase for the time limit, such as `within 5 s`.

    """
    from mlflow_grpc.hosting.pyfunc import fetching

    return f"it was not fetched {limit}: no answer yet from {fetching.model_source(model.uri or '')}"


def is_local(model: ModelConfig) -> bool:
    """Returns True if a model is on this machine already."""
    if model.uri is None:
        return True
    from mlflow_grpc.hosting.pyfunc import fetching

    return fetching.is_local(model.uri)


def load(
    model: ModelConfig, settings: Settings, fetched: "FetchedModel | None" = None, *, is_alone: bool = True
) -> ServableModel:
    """Loads one model, in the thread and the context of the caller.

    Args:
        model: The model of the configuration.
        settings: Settings for models that have none of their own.
        fetched: Result of `fetch`; the model is fetched here if it is None.
        is_alone: True if the model has the process to itself, and may change the working directory. Otherwise the
            directory is restored for the next model.

    Raises:
        StartError: The model cannot be served.

    """
    directory = None if is_alone else _working_directory()
    try:
        if model.class_path:
            return _load_class(model, settings)
        return _try_typed_rpcs(_load_mlflow(model, settings, fetched or fetch(model)), model, settings)
    except StartError:
        raise
    except PermissionError as error:
        raise StartError(
            f"{model.source} cannot be read: {error.strerror}: {error.filename}. Make it readable by the user that the "
            f"server runs as, {os.geteuid()}"
        ) from error
    except Exception as error:
        # Not foreseen, usually in the model's own code. Only this traceback shows where.
        logger.exception("%s: loading it raised", model.source)
        raise StartError(f"it cannot be loaded: {one_line(error)}") from error
    finally:
        logs.adopt()
        if directory is not None:
            with contextlib.suppress(OSError):  # The model has removed it.
                os.chdir(directory)


def load_all(configuration: Configuration, settings: Settings) -> Catalog:
    """Loads the models of a configuration one after the other, for commands that serve nothing.

    Raises:
        StartError: A model cannot be loaded.

    """
    catalog = Catalog(configuration.models, lambda: Engine.from_settings(settings))
    import_libraries(configuration.models)
    for entry in catalog.entries:
        catalog.register(entry, load(entry.config, settings))
    return catalog


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - Path.cwd() raises the same
    except OSError:  # It has been removed, so it cannot be restored.
        return None


def _try_typed_rpcs(loaded: ServableModel, config: ModelConfig, settings: Settings) -> ServableModel:
    """Refuses the typed RPCs that fail on the example that the model was logged with."""
    codec, example = loaded.record_codec, loaded.model.info.logged_example
    is_on = settings.try_example if config.try_example is None else config.try_example
    if codec is None or not example or not is_on or not config.endpoint:
        return loaded
    return replace(loaded, refused_rpcs=trial.refused(loaded, codec, example))


def _load_class(config: ModelConfig, settings: Settings) -> ServableModel:
    from mlflow_grpc.hosting.mlmodel import adapter
    from mlflow_grpc.payload.mlmodel_json import MLModelCodec

    model = adapter.load(
        config.class_path or "",
        name=config.name,
        configuration=config.configuration,
        decorators=config.decorators,
    )
    codec = MLModelCodec(model.schema, unknown_columns=config.unknown_columns or settings.unknown_columns)
    return ServableModel(
        model,
        codec,
        batching_reason="its interface takes the records of one call",
        context=contextvars.copy_context(),
        rest_records=model.rest_records(codec.ignored_fields),
    )


def _load_mlflow(config: ModelConfig, settings: Settings, fetched: "FetchedModel | None") -> ServableModel:
    from mlflow_grpc.engine.preparation import prepare
    from mlflow_grpc.hosting.pyfunc.load import load_pyfunc

    if fetched is None:
        raise ValueError(f"{config.source} is no MLflow model")
    model = load_pyfunc(fetched, name=config.name, config=config.configuration, requirements=settings.requirements)
    context = contextvars.copy_context()
    # In a copy, so that trying the model changes nothing for the calls.
    return replace(context.copy().run(prepare, model, config, settings), context=context)
