"""Loads an MLflow model and runs it as `mlflow models serve` does.

Rule of this module: every way in which a model cannot be loaded becomes a StartError of one line, and
every way in which a call to it ends becomes one of the three outcomes of `HostedModel.predict`.
"""

import base64
import json
import platform
import traceback
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, MlflowException
from mlflow.models import Model
from mlflow.models.utils import SERVING_INPUT_FILENAME
from mlflow.pyfunc import PyFuncModel

from mlflow_grpc.contract.lockfile import io as lock_io
from mlflow_grpc.contract.lockfile.format import FILE_NAME
from mlflow_grpc.errors import InvalidPayload, ModelFailed, StartError, Status, Unsupported
from mlflow_grpc.hosting import arrays, own_code, rounding, type_hints
from mlflow_grpc.hosting import mlflow_internals as internals
from mlflow_grpc.hosting.about import about_of
from mlflow_grpc.hosting.classes import chain, one_line, place_in_model
from mlflow_grpc.hosting.fetching import WHAT_A_MODEL_IS, FetchedModel
from mlflow_grpc.hosting.model import InputRefused
from mlflow_grpc.hosting.parts import each_part
from mlflow_grpc.hosting.requirements import FILE, UnmetRequirement, install_command, listed, unmet_requirements
from mlflow_grpc.naming import name_from_uri
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.settings import Requirements

logger = get_logger(__name__)

# MLflow's error codes that have a natural gRPC status, where the HTTP status says less.
_STATUS_BY_ERROR_CODE = {
    "ABORTED": Status.ABORTED,
    "ALREADY_EXISTS": Status.ALREADY_EXISTS,
    "CANCELLED": Status.CANCELLED,
    "DATA_LOSS": Status.DATA_LOSS,
    "DEADLINE_EXCEEDED": Status.DEADLINE_EXCEEDED,
    "FEATURE_DISABLED": Status.FAILED_PRECONDITION,
    "INVALID_STATE": Status.FAILED_PRECONDITION,
    "INVALID_STATE_TRANSITION": Status.FAILED_PRECONDITION,
    "MALFORMED_REQUEST": Status.INVALID_ARGUMENT,
    "QUOTA_EXCEEDED": Status.RESOURCE_EXHAUSTED,
    "RESOURCE_ALREADY_EXISTS": Status.ALREADY_EXISTS,
    "RESOURCE_LIMIT_EXCEEDED": Status.RESOURCE_EXHAUSTED,
    "SERVICE_UNDER_MAINTENANCE": Status.UNAVAILABLE,
    "WORKSPACE_TEMPORARILY_UNAVAILABLE": Status.UNAVAILABLE,
}
_STATUS_BY_HTTP = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    409: Status.ABORTED,
    429: Status.RESOURCE_EXHAUSTED,
    499: Status.CANCELLED,
    501: Status.UNIMPLEMENTED,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}


def status_of_error_code(error_code: str) -> Status:
    """The gRPC status that an MLflow error code such as RESOURCE_DOES_NOT_EXIST naturally has.

    Codes without an entry of their own go by MLflow's HTTP status for them
    (`mlflow.exceptions.ERROR_CODE_TO_HTTP_STATUS`); those that MLflow answers 500 to are INTERNAL.
    """
    by_http = _STATUS_BY_HTTP.get(ERROR_CODE_TO_HTTP_STATUS.get(error_code, 500), Status.INTERNAL)
    return _STATUS_BY_ERROR_CODE.get(error_code, by_http)


ROW_WISE_LOADERS = frozenset({"mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"})
"""The loader modules of flavors whose models predict each row by itself and take a frame as it is."""

_END = object()


class PyfuncModel:
    """An MLflow model of any flavor, loaded by `mlflow.pyfunc.load_model`."""

    def __init__(self, name: str, model: PyFuncModel, *, version: str = "", payload: str = "") -> None:
        """Args:
        name: What to call it.
        model: What MLflow loaded.
        version: Its version in the registry.
        payload: The example payload that was logged with it.
        """
        self.name = name
        self.version = version
        self.loaded = self._model = model
        self.metadata: Model = model.metadata
        self.loader_module: str | None = model.loader_module
        self._direct_on_array: Any = None
        self._scores: rounding.Scores | None = None
        self._direct = internals.predict_function(model)
        flavors = [str(flavor) for flavor in self.metadata.flavors if flavor != internals.FLAVOR_NAME]
        self.description = ", ".join(flavors) or str(self.loader_module)
        self.item_hint = type_hints.item_hint(model)
        self.about = about_of(model, tuple(flavors), payload or self.example or "", self.item_hint)

    @property
    def rows_are_independent(self) -> bool:
        """Whether the flavor is one whose models predict each row by itself."""
        return self.loader_module in ROW_WISE_LOADERS

    @property
    def example(self) -> str | None:
        """The model's input example as a payload, if it is a table or an array."""
        example = self._model.input_example
        if isinstance(example, np.ndarray):
            return json.dumps({"inputs": example.tolist()}, default=_as_text)
        if not isinstance(example, pd.DataFrame):
            return None
        split = example.to_dict(orient="split")
        return json.dumps({"dataframe_split": {"columns": split["columns"], "data": split["data"]}}, default=_as_text)

    def try_arrays(self, table: pd.DataFrame | np.ndarray[Any, Any]) -> bool:
        """Finds out on a sample whether the model gives the same for the bare array in a frame, and if so uses it.

        scikit-learn takes a frame apart at every call, which costs more than many an estimator. It is tried only
        for estimators that are scikit-learn's own through and through and do not choose columns by name.
        """
        function = arrays.predict_function(self._model)
        if function is not None and isinstance(table, pd.DataFrame) and arrays.agrees(function, self._direct, table):
            self._direct_on_array = function
        return self.takes_arrays

    def examine(self, table: Any) -> rounding.Exactness:
        """Finds out how exact the model is for rows together; from then on one that is but for ties has scores.

        Args:
            table: Sample rows.

        """
        exactness, self._scores = rounding.examine(self._model, table)
        return exactness

    def predict_by_scores(self, table: Any) -> tuple[Any, list[int]]:
        """The predictions, and the places of the rows for which they may depend on the other rows.

        Raises:
            ValueError: It was not found to be exact but for ties.

        """
        if self._scores is None:
            raise ValueError("this model is not known to go by scores")
        return self._scores.predict(table)

    @property
    def is_bounded(self) -> bool:
        """Whether it is scikit-learn's own code alone, given arrays, in one thread."""
        return self.takes_arrays and arrays.is_bounded(self._model)

    @property
    def takes_arrays(self) -> bool:
        """Whether `predict_table` is to be given arrays in place of frames."""
        return self._direct_on_array is not None

    def predict_table(self, table: Any) -> Any:
        """Runs the model on a table that MLflow's checks would hand on as it is.

        For the flavors of ROW_WISE_LOADERS the checks, the tracing context and the look for params, which have
        nothing to find, are passed by: they cost more than many a model. Raises whatever the model raises.
        """
        if self._direct_on_array is not None:
            return self._direct_on_array(table)
        if self.rows_are_independent:
            return self._direct(table)
        return self._model.predict(table)

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """Runs `PyFuncModel.predict`: MLflow enforces the schema, then the model runs.

        Raises:
            InputRefused: MLflow's checks refused data or params.
            ModelFailed: The model raised, whatever it raised; SystemExit and its like included, since a
                model must not be able to end the server.

        """
        with _errors_told():
            return self._model.predict(data, params=params)

    @property
    def streams(self) -> bool:
        """Whether it has a `predict_stream` of its own."""
        return internals.streams(self._model)

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Generator[Any]:
        """Runs `PyFuncModel.predict_stream`, which enforces the schema before the first part.

        Raises:
            InvalidPayload: There are several rows.
            InputRefused: MLflow's checks refused data or params.
            Unsupported: Its `predict_stream` itself raises NotImplementedError before the first part.
            ModelFailed: The model raised.

        """
        if isinstance(data, pd.DataFrame | pd.Series | np.ndarray | list) and len(data) != 1:
            raise InvalidPayload(f"predict_stream takes one row, and these are {len(data)}.")
        with closing(each_part(lambda: self._model.predict_stream(data, params=params), _errors_told)) as parts:
            try:
                first = next(parts, _END)
            except ModelFailed as error:
                if _is_of_predict_stream(error.__cause__):
                    raise Unsupported(
                        "The model does not stream: its predict_stream is not implemented. Call predict."
                    ) from error.__cause__
                raise
            if first is not _END:
                yield first
                yield from parts


def _is_of_predict_stream(error: BaseException | None) -> bool:
    """Whether `predict_stream` itself says that it is not implemented; what it calls may mean something else."""
    if not isinstance(error, NotImplementedError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_code.co_name == "predict_stream"


def _as_text(value: Any) -> str:
    """A cell of an example that JSON has no word for, as MLflow reads it."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


@contextmanager
def _errors_told() -> Iterator[None]:
    """Turns whatever comes out of MLflow and the model into InputRefused or ModelFailed."""
    try:
        yield
    except BaseException as error:
        if internals.input_was_refused(error):
            raise InputRefused from error
        raise failure_of(
            error, "The model", "Check that the payload has the columns and types the model was trained on."
        ) from error


def failure_of(error: BaseException, whose: str, advice: str = "") -> ModelFailed:
    """The failure that an exception of the model's own code, or of a hook's, is to the caller.

    Args:
        error: The exception. An MlflowException has the status of its error code; its text is for the log only.
        whose: Who raised it, at the beginning of a sentence.
        advice: What the caller may do about another exception.

    """
    if isinstance(error, MlflowException):
        return ModelFailed(
            f"{whose} answered {error.error_code}. Its message is in the server's log, "
            "under the request id of this answer.",
            status=status_of_error_code(error.error_code),
            reason=error.error_code,
            error_class=internals.error_class(error),
        )
    told = f"{whose} raised an exception. It is in the server's log, under the request id of this answer."
    return ModelFailed(f"{told} {advice}".rstrip(), error_class=type(error).__name__)


def load(
    fetched: FetchedModel,
    *,
    name: str | None = None,
    config: dict[str, Any] | None = None,
    requirements: Requirements = Requirements.CHECK,
) -> PyfuncModel:
    """Loads an MLflow model. Models are loaded one after the other: Python cannot unpickle two at a time.

    Args:
        fetched: The model's files.
        name: The model's name; made from the URI if not given.
        config: MLflow's `model_config`.
        requirements: Which unmet requirements of the model refuse it.

    Raises:
        StartError: The model is broken, no MLflow model, its requirements are not met, or its lock is none.

    """
    directory, uri = fetched.directory, fetched.uri
    _check(directory, uri)
    unmet = _unmet(directory, uri, requirements)
    _check_requirements(unmet, requirements, directory)
    differences = [*map(str, unmet), *_other_python(directory)]
    if differences:
        logger.warning(
            "%s: its requirements differ from what is installed: %s", name or name_from_uri(uri), ", ".join(differences)
        )
    try:
        # MLflow's own warnings repeat the line above.
        model = own_code.load_model(uri, directory=directory, config=config, suppress_warnings=True)
    except StartError as error:
        raise StartError(f"the model at {uri} cannot be loaded: {error}") from error
    except BaseException as error:
        raise StartError(_why_not(uri, error, directory, unmet)) from error
    internals.enter_serving_environment()
    payload = directory / SERVING_INPUT_FILENAME
    hosted = PyfuncModel(
        name or name_from_uri(uri),
        model,
        version=fetched.version,
        payload=payload.read_text(encoding="utf-8", errors="replace") if payload.is_file() else "",
    )
    if (directory / FILE_NAME).is_file():
        hosted.about = replace(hosted.about, lock=lock_io.read(directory / FILE_NAME))
    return hosted


def _unmet(directory: Path, uri: str, requirements: Requirements) -> list[UnmetRequirement]:
    """What of its requirements is not met; requirements that cannot be read are a warning if they refuse nothing."""
    try:
        return unmet_requirements(directory)
    except StartError as error:
        if requirements is not Requirements.WARN:
            raise StartError(f"{error}. Or serve the model all the same with --requirements warn") from error
        logger.warning("%s: %s", uri, error)
        return []


def _check_requirements(unmet: list[UnmetRequirement], requirements: Requirements, directory: Path) -> None:
    missing = [item for item in unmet if item.installed is None]
    refused = {Requirements.STRICT: unmet, Requirements.CHECK: missing, Requirements.WARN: []}[requirements]
    if refused:
        raise StartError(
            f"the model's requirements are not met by this environment: {listed(unmet)}. Install them with "
            f"`{install_command(unmet, directory)}`, or serve it all the same with --requirements warn"
        )


def _other_python(directory: Path) -> list[str]:
    """The version of Python that the model was logged with, if its minor version is another one than here."""
    flavor = Model.load(str(directory)).flavors[internals.FLAVOR_NAME]
    logged = str(flavor.get("python_version") or "") if isinstance(flavor, dict) else ""
    running = platform.python_version()
    if not logged or logged.split(".")[:2] == running.split(".")[:2]:
        return []
    return [f"Python {logged} (this is {running})"]


def _why_not(uri: str, error: BaseException, directory: Path, unmet: list[UnmetRequirement]) -> str:
    missing = next((each for each in chain(error) if isinstance(each, ModuleNotFoundError)), None)
    if missing is not None:
        reason = (
            f"the model needs the Python module {missing.name!r}, which is not installed here. Install the package "
            f"that it is in, which the model's requirements should name ({directory / FILE})"
        )
    else:
        reason = f"the model at {uri} cannot be loaded: {one_line(error)}{place_in_model(error, directory)}"
    if not unmet:
        return reason
    return (
        f"{reason}. Its requirements differ from what is installed, which may be why: {listed(unmet)}. Install them "
        f"with `{install_command(unmet, directory)}`"
    )


def _check(directory: Path, uri: str) -> None:
    if not (directory / "MLmodel").is_file():
        raise StartError(f"{uri} is not an MLflow model: it has no MLmodel file ({WHAT_A_MODEL_IS})")
    try:
        metadata = Model.load(str(directory))
    except Exception as error:
        raise StartError(f"the MLmodel file of {uri} is broken: {one_line(error)}") from error
    if not isinstance(metadata.flavors, dict):
        raise StartError(f"the MLmodel file of {uri} is broken: flavors has to be a mapping")
    if internals.FLAVOR_NAME not in metadata.flavors:
        raise StartError(
            f"{uri} has no {internals.FLAVOR_NAME} flavor, only {', '.join(metadata.flavors) or 'none at all'}: "
            "log it with a flavor that Python can serve"
        )
