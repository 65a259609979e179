"""Preparation of an MLflow model for calls: its codec, and its fast path if the signature allows one.

Rule of this module: it tries the model and decides, and logs what it decided. It is imported once MLflow is needed.
"""

from mlflow_grpc.choices import Batching, Payload
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.batching import qualification
from mlflow_grpc.engine.decorated import decorated
from mlflow_grpc.engine.row_runner import RowRunner
from mlflow_grpc.engine.servable import FastPath, ServableModel
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.pyfunc.hooks import HookedModel
from mlflow_grpc.hosting.pyfunc.model import PyfuncModel
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.payload.codec import ModelInput, TextCodec
from mlflow_grpc.payload.fast_json.decoders import NotPlain, decoder_for
from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder, RowBlock, Table
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from mlflow_grpc.settings import Settings

logger = get_logger(__name__)


def prepare(model: PyfuncModel, config: ModelConfig, settings: Settings) -> ServableModel:
    """Makes what the calls of a loaded MLflow model need.

    Args:
        model: The model.
        config: Its configuration.
        settings: Settings for models that have none of their own.

    Raises:
        StartError: Settings contradict each other, or a hook or decorator cannot be used.

    """
    unknown_columns = config.unknown_columns or settings.unknown_columns
    if config.decorators:
        return decorated(model, config, unknown_columns)
    if (config.payload or settings.payload) is Payload.TEXT:
        if config.has_hooks:
            raise StartError("preprocess and postprocess take tables, and --payload text hands the model a text")
        return ServableModel(model, TextCodec(), batching_reason="its payload is text")
    codec = ScoringCodec(
        model.metadata,
        model.loader_module,
        model.item_hint,
        unknown_columns=unknown_columns,
        csv_dates=settings.csv_dates,
        judges_columns=config.preprocess is None,
    )
    decoder, why_none = _decoder_of(model)
    if config.has_hooks:
        return _hooked(model, codec, decoder, config, settings)
    if decoder is None:
        _log_batching(model.name, is_on=False, reason=why_none)
        return ServableModel(model, codec, batching_reason=why_none)
    decoder, samples = _try_samples(model, decoder)
    if samples and model.try_arrays(decoder.table(samples)):
        logger.info("%s: the model gets numpy arrays instead of DataFrames: its answers are the same", model.name)
    runner = RowRunner(model, decoder, codec)
    batched, reason = qualification.decide(config.batching or settings.batching, model, runner, samples)
    _log_batching(model.name, is_on=batched, reason=reason)
    fast_path = FastPath(decoder)
    if batched or model.rows_are_independent:
        max_rows = settings.batch_rows if batched else 1
        inline = batched and qualification.fits_event_loop(model, runner, samples, max_rows)
        fast_path = FastPath(decoder, runner, max_rows, settings.batch_wait_s, inline)
    return ServableModel(model, codec, fast_path, batched, reason)


def _decoder_of(model: PyfuncModel) -> tuple[FastDecoder | None, str]:
    """The fast decoder for a model; else None, and why its signature has none."""
    try:
        return decoder_for(model.metadata), ""
    except NotPlain as not_plain:
        return None, str(not_plain)


def _hooked(
    model: PyfuncModel, codec: ScoringCodec, decoder: FastDecoder | None, config: ModelConfig, settings: Settings
) -> ServableModel:
    """Wraps an MLflow model in its hooks; it is batched only if its owner says so."""
    hooked = HookedModel(model, preprocess=config.preprocess, postprocess=config.postprocess)
    batched = decoder is not None and (config.batching or settings.batching) is Batching.ON
    reason = "its owner says on" if batched else "preprocess and postprocess may look at several rows at once"
    _log_batching(hooked.name, is_on=batched, reason=reason)
    fast_path = FastPath(decoder) if decoder is not None else None
    if decoder is not None and batched:
        fast_path = FastPath(decoder, RowRunner(hooked, decoder, codec), settings.batch_rows, settings.batch_wait_s)

    def preprocess(data: object) -> ModelInput:
        preprocessed = hooked.preprocess(data)
        return ModelInput(preprocessed, ignored=codec.unknown.check(preprocessed.left_over))

    runs_first = preprocess if config.preprocess is not None else None
    return ServableModel(hooked, codec, fast_path, batched, reason, preprocess=runs_first)


def _try_samples(model: PyfuncModel, decoder: FastDecoder) -> tuple[FastDecoder, list[RowBlock]]:
    """Makes single rows to try a model with; their values vary as much as the model accepts.

    Only models of flavors that predict each row by itself are tried. A call of another model may cost money.

    Returns:
        The decoder, which leaves missing values to MLflow's parser if the model does not predict them; and the rows.

    """
    if not model.rows_are_independent:
        return decoder, []
    complete = decoder.without_missing()
    for candidate in dict.fromkeys((decoder, complete)):
        varied = candidate.samples(model.sample_example, varied=True)
        if not varied:
            return decoder, []
        if _predicts(model, candidate.table(varied)):
            return candidate, varied
    return complete, complete.samples(model.sample_example)


def _predicts(model: PyfuncModel, table: Table) -> bool:
    try:
        model.predict_table(table)
    except Exception:  # noqa: BLE001 - such as a category that it was not trained on
        return False
    return True


def _log_batching(name: str, *, is_on: bool, reason: str) -> None:
    logger.info("%s: batching %s: %s", name, "on" if is_on else "off", reason)
