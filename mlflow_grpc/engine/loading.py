"""Makes a model that is ready to be run out of what the configuration says of it.

Rule of this module: MLflow is imported in its functions. It takes seconds, in which the server can already answer
health checks; and a server of MLModel packages alone does without it.
"""

import contextlib
import contextvars
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mlflow_grpc import logs
from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.contract.shapes import RpcKind
from mlflow_grpc.contract.types import Contract, has_tensors
from mlflow_grpc.engine import trial
from mlflow_grpc.engine.requests import Hosted, Plain
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.classes import one_line
from mlflow_grpc.hosting.model import HostedModel
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.payload.codec import Codec, RecordCodec, TextCodec
from mlflow_grpc.settings import Batching, Payload, Settings, spelling

if TYPE_CHECKING:
    from mlflow_grpc.hosting.fetching import FetchedModel
    from mlflow_grpc.hosting.pyfunc import PyfuncModel
    from mlflow_grpc.payload.plain import PlainDecoder, PlainRows

logger = get_logger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model with all that is needed to answer calls to it."""

    model: HostedModel
    codec: Codec
    plain: Plain | None = None
    """How its plain rows are run, if there is a fast way for this model."""
    batched: bool = False
    """Whether rows of calls that wait at the same time are predicted together."""
    batching_reason: str = ""
    """Why, or why not."""
    context: contextvars.Context = field(default_factory=contextvars.Context, repr=False)
    """The context variables as loading the model left them, in copies of which it predicts."""
    refused: frozenset[RpcKind] = frozenset()
    """Typed RPCs that it is not to have, since they failed on its example."""

    @property
    def record_codec(self) -> RecordCodec | None:
        """Its codec, if it takes records and it is known of what."""
        is_known = self.model.about.contract.inputs is not None
        return self.codec if is_known and isinstance(self.codec, RecordCodec) else None


def import_libraries(models: Iterable[ModelConfig]) -> None:
    """Imports what fetching and loading the models needs, before several are fetched at a time.

    It then puts the working directory at the head of `sys.path`, where `mlflow models serve` has it too (uvicorn's
    `--app-dir`): a model's own module may be there.
    """
    if uris := [model.uri for model in models if model.uri]:
        from mlflow_grpc.hosting import fetching, mlflow_internals, pyfunc  # noqa: F401
        from mlflow_grpc.payload import plain, scoring  # noqa: F401

        logs.adopt()
        logs.quiet(mlflow_internals.CHATTY_LOGGERS)
        if not sys.stderr.isatty():
            mlflow_internals.disable_progress_bars()
        if len(uris) > 1:
            fetching.import_clients(uris)
    if "" not in sys.path:
        sys.path.insert(0, "")


def fetch(model: ModelConfig) -> "FetchedModel | None":
    """Fetches an MLflow model, or nothing for an MLModel class. Several models may be fetched at a time.

    Raises:
        StartError: It cannot be had.

    """
    if model.uri is None:
        return None
    from mlflow_grpc.hosting import fetching

    with fetching.told_if_slow(model.uri, f"{spelling('load_timeout_s')} says for how long"):
        return fetching.fetch(model.uri)


def not_fetched(model: ModelConfig, late: str) -> str:
    """Says that a model was not fetched in time, and who was asked for it.

    Args:
        model: An MLflow model.
        late: Within which time.

    """
    from mlflow_grpc.hosting import fetching

    return f"it was not fetched {late}: no answer yet from {fetching.asked(model.uri or '')}"


def is_fetched(model: ModelConfig) -> bool:
    """Whether a model is on this machine anyway."""
    if model.uri is None:
        return True
    from mlflow_grpc.hosting import fetching

    return fetching.is_local(model.uri)


def load(
    model: ModelConfig, settings: Settings, fetched: "FetchedModel | None" = None, *, is_alone: bool = True
) -> Loaded:
    """Loads one model, in the thread and the context of the caller.

    Args:
        model: What it is.
        settings: What holds for all models that do not say otherwise.
        fetched: What `fetch` gave for it; it is fetched here if that has not been done.
        is_alone: Whether it has the process to itself, and may change the working directory for good. If not, the
            directory is put back for the next model.

    Raises:
        StartError: The model cannot be served.

    """
    directory = None if is_alone else _working_directory()
    try:
        if model.class_path:
            return _load_class(model, settings)
        return _tried(_load_mlflow(model, settings, fetched or fetch(model)), model, settings)
    except StartError:
        raise
    except Exception as error:
        # Code of the model that no other place foresaw; where it is can be seen nowhere else.
        logger.exception("%s: loading it raised", model.source)
        raise StartError(f"it cannot be loaded: {one_line(error)}") from error
    finally:
        logs.adopt()
        if directory is not None:
            with contextlib.suppress(OSError):  # The model has removed it.
                os.chdir(directory)


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a path, for it may be one that is gone
    except OSError:  # It has been removed; there is no way back to it.
        return None


def _tried(loaded: Loaded, config: ModelConfig, settings: Settings) -> Loaded:
    """A model without the typed RPCs that fail on the example that it was logged with."""
    codec, example = loaded.record_codec, loaded.model.about.logged_example
    is_on = settings.try_example if config.try_example is None else config.try_example
    if codec is None or not example or not is_on or not config.endpoint:
        return loaded
    hosted = Hosted(loaded.model, loaded.codec, loaded.plain)
    return replace(loaded, refused=trial.refused(hosted, codec, example))


def _load_class(config: ModelConfig, settings: Settings) -> Loaded:
    from mlflow_grpc.hosting import mlmodel
    from mlflow_grpc.payload.records import RecordsCodec

    model = mlmodel.load(
        config.class_path or "",
        name=config.name,
        configuration=config.configuration,
        decorators=config.decorators,
    )
    return Loaded(
        model,
        RecordsCodec(model.schema, unknown_columns=_unknown_columns(config, settings)),
        batching_reason="its interface takes the records of one call",
        context=contextvars.copy_context(),
    )


def _load_mlflow(config: ModelConfig, settings: Settings, fetched: "FetchedModel | None") -> Loaded:
    from mlflow_grpc.hosting import pyfunc

    if fetched is None:
        raise ValueError(f"{config.source} is no MLflow model")
    model = pyfunc.load(fetched, name=config.name, config=config.configuration, requirements=settings.requirements)
    context = contextvars.copy_context()
    # What the model changes when it is tried is not for the calls.
    return replace(context.copy().run(_prepare, model, config, settings), context=context)


def _prepare(model: "PyfuncModel", config: ModelConfig, settings: Settings) -> Loaded:
    """A loaded MLflow model with its codec and, if there is one for it, the fast way."""
    from mlflow_grpc.engine import rows
    from mlflow_grpc.payload.plain import decoder_for
    from mlflow_grpc.payload.scoring import ScoringCodec

    if config.decorators:
        return _decorated(model, config, settings)
    if (config.payload or settings.payload) is Payload.TEXT:
        if config.has_hooks:
            raise StartError("preprocess and postprocess take tables, and --payload text hands the model a text")
        return Loaded(model, TextCodec(), batching_reason="its payload is text")
    codec = ScoringCodec(
        model.metadata,
        model.loader_module,
        model.item_hint,
        unknown_columns=_unknown_columns(config, settings),
        csv_dates=settings.csv_dates,
    )
    decoder = decoder_for(model.metadata)
    if config.has_hooks:
        return _hooked(model, codec, decoder, config, settings)
    if decoder is None:
        reason = "the signature is not one of plain columns or a plain tensor"
        logger.info("%s: batching off: %s", model.name, reason)
        return Loaded(model, codec, batching_reason=reason)
    samples = _samples(model, decoder)
    if samples and model.try_arrays(decoder.table(samples)):
        logger.info("%s: scikit-learn is given arrays: it answers as it does to frames", model.name)
    runner = rows.RowRunner(model, decoder, codec)
    batched, reason = rows.decide(config.batching or settings.batching, model, runner, samples)
    logger.info("%s: batching %s: %s", model.name, "on" if batched else "off", reason)
    plain = Plain(decoder)
    if batched or model.rows_are_independent:
        most_rows = settings.batch_rows if batched else 1
        inline = batched and rows.is_quick(model, runner, samples, most_rows)
        plain = Plain(decoder, runner, most_rows, settings.batch_wait_s, inline)
    return Loaded(model, codec, plain, batched, reason)


def _hooked(
    model: "PyfuncModel", codec: Codec, decoder: "PlainDecoder | None", config: ModelConfig, settings: Settings
) -> Loaded:
    """An MLflow model with functions before and after it. Its calls are put together only if its owner says so."""
    from mlflow_grpc.engine import rows
    from mlflow_grpc.hosting.hooks import HookedModel

    hooked = HookedModel(model, preprocess=config.preprocess, postprocess=config.postprocess)
    mode = config.batching or settings.batching
    batched = decoder is not None and mode is Batching.ON
    reason = "its owner says on" if batched else "preprocess and postprocess may look at several rows at once"
    logger.info("%s: batching %s: %s", hooked.name, "on" if batched else "off", reason)
    plain = Plain(decoder) if decoder is not None else None
    if decoder is not None and batched:
        plain = Plain(decoder, rows.RowRunner(hooked, decoder, codec), settings.batch_rows, settings.batch_wait_s)
    return Loaded(hooked, codec, plain, batched, reason)


def _samples(model: "PyfuncModel", decoder: "PlainDecoder") -> "list[PlainRows]":
    """Single rows to try a model with: of as many values as can be, if the model takes them."""
    varied = decoder.samples(model.example, varied=True)
    if not varied:
        return []
    try:
        model.predict_table(decoder.table(varied))
    except Exception:  # noqa: BLE001 - a code of a category, say, that it has not been trained on
        return decoder.samples(model.example)
    return varied


def _decorated(model: "PyfuncModel", config: ModelConfig, settings: Settings) -> Loaded:
    """An MLflow model with decorators around it, which see records."""
    from mlflow_grpc.hosting import mlmodel
    from mlflow_grpc.payload.records import RecordsCodec

    try:
        from mlflow_grpc.hosting.mlflow_as_mlmodel import MlflowModel
    except ModuleNotFoundError as error:
        raise StartError("decorators need the package ml-base: pip install ml-base") from error
    inside = MlflowModel(loaded=model.loaded, qualified_name=model.name, version=model.version)
    shown = mlmodel.decorate(inside, config.decorators)
    around = mlmodel.MLModel(shown, mlmodel.NEWER, name=model.name)
    if shown.version == inside.version:
        around.version = model.version
    # What decorators leave alone is said in MLflow's words: a decorator that does nothing changes no message.
    about, own = around.about, model.about
    same_inputs = shown.input_schema is inside.input_schema and not has_tensors(own.contract.inputs)
    same_outputs = shown.output_schema is inside.output_schema
    around.about = replace(
        about,
        flavors=own.flavors,
        run_id=own.run_id,
        model_id=own.model_id,
        lock=own.lock,
        contract=Contract(
            own.contract.inputs if same_inputs else about.contract.inputs,
            own.contract.outputs if same_outputs else about.contract.outputs,
        ),
        input=own.input if same_inputs else about.input,
        output=own.output if same_outputs else about.output,
    )
    codec = RecordsCodec(around.schema, unknown_columns=_unknown_columns(config, settings))
    return Loaded(around, codec, batching_reason="its decorators take the rows of one call")


def _unknown_columns(config: ModelConfig, settings: Settings) -> UnknownColumns:
    return config.unknown_columns or settings.unknown_columns
