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
from typing import TYPE_CHECKING, Any

from mlflow_grpc import logs
from mlflow_grpc.choices import Batching, Payload, UnknownColumns
from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.engine import trial
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.engine.decorated import decorated
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.servable import FastPath, ServableModel
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.naming import name_from_uri
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.payload.codec import ModelInput, TextCodec
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.settings import Settings, spelling

if TYPE_CHECKING:
    from mlflow_grpc.hosting.pyfunc.fetching import FetchedModel
    from mlflow_grpc.hosting.pyfunc.model import PyfuncModel
    from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder, RowBlock
    from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec

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

    with fetching.warn_if_slow(model.uri, f"{spelling('load_timeout_s')} says for how long"):
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
    codec = MLModelCodec(model.schema, unknown_columns=_unknown_columns(config, settings))
    return ServableModel(
        model,
        codec,
        batching_reason="its interface takes the records of one call",
        context=contextvars.copy_context(),
        rest_records=model.rest_records(codec.ignored_fields),
    )


def _load_mlflow(config: ModelConfig, settings: Settings, fetched: "FetchedModel | None") -> ServableModel:
    from mlflow_grpc.hosting.pyfunc.load import load_pyfunc

    if fetched is None:
        raise ValueError(f"{config.source} is no MLflow model")
    model = load_pyfunc(fetched, name=config.name, config=config.configuration, requirements=settings.requirements)
    context = contextvars.copy_context()
    # In a copy, so that trying the model changes nothing for the calls.
    return replace(context.copy().run(_prepare, model, config, settings), context=context)


def _prepare(model: "PyfuncModel", config: ModelConfig, settings: Settings) -> ServableModel:
    """Makes the codec of an MLflow model, and its fast path if its signature allows one."""
    from mlflow_grpc.engine.batching import qualification, row_runner
    from mlflow_grpc.payload.fast_json.decoders import decoder_for
    from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec

    if config.decorators:
        return decorated(model, config, _unknown_columns(config, settings))
    if (config.payload or settings.payload) is Payload.TEXT:
        if config.has_hooks:
            raise StartError("preprocess and postprocess take tables, and --payload text hands the model a text")
        return ServableModel(model, TextCodec(), batching_reason="its payload is text")
    codec = ScoringCodec(
        model.metadata,
        model.loader_module,
        model.item_hint,
        unknown_columns=_unknown_columns(config, settings),
        csv_dates=settings.csv_dates,
        judges_columns=config.preprocess is None,
    )
    decoder = decoder_for(model.metadata)
    if config.has_hooks:
        return _hooked(model, codec, decoder, config, settings)
    if decoder is None:
        reason = "the signature is not one of plain columns or a plain tensor"
        logger.info("%s: batching off: %s", model.name, reason)
        return ServableModel(model, codec, batching_reason=reason)
    samples = _samples(model, decoder)
    if samples and model.try_arrays(decoder.table(samples)):
        logger.info("%s: scikit-learn is given arrays: it answers as it does to frames", model.name)
    runner = row_runner.RowRunner(model, decoder, codec)
    batched, reason = qualification.decide(config.batching or settings.batching, model, runner, samples)
    logger.info("%s: batching %s: %s", model.name, "on" if batched else "off", reason)
    fast_path = FastPath(decoder)
    if batched or model.rows_are_independent:
        max_rows = settings.batch_rows if batched else 1
        inline = batched and qualification.fits_event_loop(model, runner, samples, max_rows)
        fast_path = FastPath(decoder, runner, max_rows, settings.batch_wait_s, inline)
    return ServableModel(model, codec, fast_path, batched, reason)


def _hooked(
    model: "PyfuncModel", codec: "ScoringCodec", decoder: "FastDecoder | None", config: ModelConfig, settings: Settings
) -> ServableModel:
    """Wraps an MLflow model in its hooks; it is batched only if its owner says so."""
    from mlflow_grpc.engine.batching import row_runner
    from mlflow_grpc.hosting.pyfunc.hooks import HookedModel

    hooked = HookedModel(model, preprocess=config.preprocess, postprocess=config.postprocess)
    mode = config.batching or settings.batching
    batched = decoder is not None and mode is Batching.ON
    reason = "its owner says on" if batched else "preprocess and postprocess may look at several rows at once"
    logger.info("%s: batching %s: %s", hooked.name, "on" if batched else "off", reason)
    fast_path = FastPath(decoder) if decoder is not None else None
    if decoder is not None and batched:
        fast_path = FastPath(
            decoder, row_runner.RowRunner(hooked, decoder, codec), settings.batch_rows, settings.batch_wait_s
        )

    def preprocess(data: Any) -> ModelInput:
        preprocessed = hooked.preprocess(data)
        return ModelInput(preprocessed, ignored=codec.unknown.check(preprocessed.left_over))

    runs_first = preprocess if config.preprocess is not None else None
    return ServableModel(hooked, codec, fast_path, batched, reason, preprocess=runs_first)


def _samples(model: "PyfuncModel", decoder: "FastDecoder") -> "list[RowBlock]":
    """Makes single rows to try a model with; their values vary as much as the model accepts.

    Only models of flavors that predict each row by itself are tried. A call of another model may cost money.
    """
    if not model.rows_are_independent:
        return []
    varied = decoder.samples(model.example, varied=True)
    if not varied:
        return []
    try:
        model.predict_table(decoder.table(varied))
    except Exception:  # noqa: BLE001 - such as a category that it was not trained on
        return decoder.samples(model.example)
    return varied


def _unknown_columns(config: ModelConfig, settings: Settings) -> UnknownColumns:
    return config.unknown_columns or settings.unknown_columns
