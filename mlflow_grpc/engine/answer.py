"""Answers to single requests: decode, predict, encode.

Rule of this module: synchronous functions without shared state, which run in a model thread. They raise ServingErrors
and nothing else. Several requests at once are answered in `mlflow_grpc.engine.batching.run_batch`.
"""

import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from mlflow_grpc.engine.progress import PredictTimer, row_count
from mlflow_grpc.engine.requests import AnswerT, Request
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import ModelFailed, ServingError, UnserializableOutput
from mlflow_grpc.hosting.model import InputRejected
from mlflow_grpc.payload.codec import ModelInput

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock


def decode_rows(request: Request[AnswerT], model: ServableModel) -> "RowBlock | None":
    """Decodes a request on the fast path and notes its row count; None if the fast path does not apply."""
    progress = request.progress
    progress.start()
    started_at = time.monotonic()
    rows = request.decode_rows(model)
    progress.decoded(started_at)
    if rows is not None:
        progress.rows = rows.count
    return rows


def encode_rows(request: Request[AnswerT], model: ServableModel, predictions: object) -> AnswerT:
    """Encodes the answer of a request that `decode_rows` decoded, and notes the time."""
    started_at = time.monotonic()
    answer = request.encode_rows(model, predictions)
    request.progress.encoded(started_at)
    return answer


def _encode(request: Request[AnswerT], model: ServableModel, predictions: object, decoded: ModelInput) -> AnswerT:
    """Encodes the answer of a request that `_decode` decoded, and notes the time."""
    started_at = time.monotonic()
    answer = request.encode(model, predictions, decoded)
    request.progress.encoded(started_at)
    return answer


def answer(request: Request[AnswerT], model: ServableModel) -> AnswerT:
    """Answers a request on the fast path if there is one, otherwise with all of MLflow's checks.

    Raises:
        ServingError: The payload was refused, the model failed, or its output cannot be written.

    """
    rows, fast_path = decode_rows(request, model), model.fast_path
    if rows is None or fast_path is None:
        return answer_checked(request, model)
    if fast_path.runner is None:
        table = fast_path.decoder.table([rows])
        try:
            with PredictTimer((request.progress,)):
                predictions = model.model.predict(table, None)
            return encode_rows(request, model, predictions)
        except (ModelFailed, UnserializableOutput) as error:
            raise _with_clues(error, model, table) from error.__cause__
    try:
        with PredictTimer((request.progress,)):
            (predictions,) = fast_path.runner.predict([rows])
        return encode_rows(request, model, predictions)
    except BaseException:  # noqa: BLE001 - the checked way raises it again, in MLflow's words
        return answer_checked(request, model)


def answer_checked(request: Request[AnswerT], model: ServableModel) -> AnswerT:
    """Answers a request with all of MLflow's checks; raises the errors of `answer`."""
    decoded = None
    try:
        decoded = _decode(request, model)
        with PredictTimer((request.progress,)):
            predictions = model.model.predict(_preprocessed(request, model, decoded), decoded.params)
        return _encode(request, model, predictions, decoded)
    except InputRejected as refusal:
        raise request.explain(model, refusal.__cause__) from None
    except (ModelFailed, UnserializableOutput) as error:
        raise _with_clues(error, model, decoded and decoded.data) from error.__cause__


def answer_chunks(request: Request[AnswerT], model: ServableModel) -> Generator[AnswerT]:
    """Yields the chunks of an answer from a model that has `predict_stream`; raises the errors of `answer`."""
    decoded = None
    try:
        decoded = _decode(request, model)
        with PredictTimer((request.progress,)):
            data = _preprocessed(request, model, decoded)
        chunks = iter(model.model.predict_stream(data, decoded.params))
        try:
            while (chunk := _next(chunks, request)) is not _END:
                yield _encode(request, model, chunk, decoded)
        finally:
            # Closed here and in this context: a traceback that is kept would keep the model's iterator open.
            if (close := getattr(chunks, "close", None)) is not None:
                close()
    except InputRejected as refusal:
        raise request.explain(model, refusal.__cause__) from None
    except (ModelFailed, UnserializableOutput) as error:
        raise _with_clues(error, model, decoded and decoded.data) from error.__cause__


def _decode(request: Request[AnswerT], model: ServableModel) -> ModelInput:
    request.progress.start()
    started_at = time.monotonic()
    decoded = request.decode(model)
    request.progress.decoded(started_at)
    _report_ignored(request, decoded)
    if (rows := row_count(decoded.data)) is not None:
        request.progress.rows = rows
    return decoded


def _preprocessed(request: Request[AnswerT], model: ServableModel, decoded: ModelInput) -> object:
    """Returns what the model gets; the hook before it runs first, because only its result shows what is ignored."""
    if model.preprocess is None:
        return decoded.data
    preprocessed = model.preprocess(decoded.data)
    _report_ignored(request, preprocessed)
    return preprocessed.data


def _report_ignored(request: Request[AnswerT], parsed: ModelInput) -> None:
    if parsed.ignored:
        request.observer.columns_ignored(parsed.ignored)


_END = object()


def _next(chunks: Iterator[object], request: Request[AnswerT]) -> object:
    with PredictTimer((request.progress,)):
        return next(chunks, _END)


def _with_clues(error: ModelFailed | UnserializableOutput, model: ServableModel, data: object) -> ServingError:
    """The error for a failed model, with what in the parsed data may have caused it.

    Args:
        error: What the model or the encoder raised.
        model: The model.
        data: The parsed data; None if parsing did not get that far.

    """
    if error.__cause__ is None or data is None or not isinstance(error, ModelFailed):
        return error  # Without a cause the model raised nothing, so its data is not the reason.
    return model.codec.with_clues(error, data)
