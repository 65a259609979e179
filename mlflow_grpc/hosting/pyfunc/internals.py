"""All uses of MLflow's private and undocumented names.

Rule of this module: no other module uses such names. They are necessary, because parity with `mlflow models serve`
means running MLflow's own code. `tests/unit/hosting/test_mlflow_internals.py` checks every name and its form, so that a
release of MLflow that changes one fails there with a clear message. Differences between the supported versions (2.22
and later) are hidden here too, with the version that introduced them.

It has more than 300 lines, because splitting it would scatter these names over several modules.
"""

import importlib
from contextlib import AbstractContextManager, nullcontext, suppress
from enum import StrEnum
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow.models.model
import mlflow.pyfunc
import mlflow.tracing.provider
from mlflow import environment_variables
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.model import MODEL_CODE_PATH
from mlflow.models.utils import _enforce_type
from mlflow.pyfunc import CODE, FLAVOR_NAME, PyFuncModel, _validate_prediction_input, scoring_server
from mlflow.pyfunc.scoring_server import SUPPORTED_FORMATS, _parse_json_data, invocations
from mlflow.pyfunc.utils.serving_data_parser import is_unified_llm_input
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracing.utils.otlp import should_use_otlp_exporter
from mlflow.tracking._tracking_service.utils import is_tracking_uri_set
from mlflow.types import responses, type_hints
from mlflow.utils.proto_json_utils import NumpyEncoder, cast_df_types_according_to_schema
from mlflow.utils.requirements_utils import _check_requirement_satisfied, _parse_requirements
from mlflow.utils.virtualenv import _get_python_env

from mlflow_grpc.yaml_file import LibyamlFirst

__all__ = [
    "CHATTY_LOGGERS",
    "CODE",
    "CONTENT_TYPE_PARQUET",
    "FLAVOR_NAME",
    "INPUT_CHECKS",
    "SUPPORTED_FORMATS",
    "ChatApi",
    "ResponsesAgentRequest",
    "ResponsesAgentStreamEvent",
    "cast_columns",
    "check_requirement",
    "default_store",
    "disable_progress_bars",
    "enforce_schema",
    "enforce_type",
    "enter_serving_environment",
    "error_class",
    "exports_otlp",
    "forget_model_from_code",
    "has_own_code",
    "hides_schema_details",
    "import_database_stores",
    "input_was_refused",
    "is_signature_from_type_hint",
    "is_tracking_uri_set",
    "is_unified_llm_input",
    "json_default",
    "parse_csv_input",
    "parse_json",
    "parse_parquet_input",
    "parse_payload",
    "parse_requirements",
    "predict_function",
    "predictions_to_json",
    "python_environment",
    "read_mlmodel_files_by_libyaml",
    "refuses_content_type",
    "refusing_chat_api",
    "registered_names",
    "registered_version",
    "streams",
    "unwrapped_predictions_to_json",
    "validate_model",
    "validate_type_hint",
    "versions_of",
]

# MLflow has no type annotations for these functions.
parse_json: Any = _parse_json_data
parse_csv_input: Any = scoring_server.parse_csv_input
parse_payload: Any = scoring_server.infer_and_parse_data
"""Returns the data of a parsed payload without params: a DataFrame, an array, or a dict of arrays."""
cast_columns: Any = cast_df_types_according_to_schema
"""Casts the columns of a DataFrame that a schema names, as in `dataframe_split`; returns the frame."""
# MLflow reads Parquet since 3.10. Before, this is None, and `refuses_content_type` refuses Parquet.
CONTENT_TYPE_PARQUET: str | None = getattr(scoring_server, "CONTENT_TYPE_PARQUET", None)
parse_parquet_input: Any = getattr(scoring_server, "parse_parquet_input", None)

# Before MLflow 3.0, these classes have the second name.
_responses: Any = responses
ResponsesAgentStreamEvent = getattr(_responses, "ResponsesAgentStreamEvent", None) or _responses.ResponsesStreamEvent
ResponsesAgentRequest = getattr(_responses, "ResponsesAgentRequest", None) or _responses.ResponsesRequest
predictions_to_json: Any = scoring_server.predictions_to_json
unwrapped_predictions_to_json: Any = scoring_server.unwrapped_predictions_to_json
parse_requirements: Any = _parse_requirements
json_default: Any = NumpyEncoder().default
"""Returns the form that MLflow's server writes for a value without a JSON form; raises TypeError if it has none."""
enforce_type: Any = _enforce_type
validate_type_hint: Any = type_hints._validate_data_against_type_hint
validate_model: Any = type_hints.model_validate
check_requirement = _check_requirement_satisfied
python_environment: Any = _get_python_env

INPUT_CHECKS = frozenset(
    {
        "_validate_prediction_input",
        "_enforce_params_schema",
        "_convert_dataframe_to_example_format",
        "_convert_input",
        "_validate_model_input",
    }
)
"""Functions of MLflow that check the input between `PyFuncModel.predict` and the model's own code."""

MAX_NAMES = 1000
"""Maximum number of registered models that MLflow returns (`SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD`)."""

_PYTHON_BASES = (
    mlflow.pyfunc.PythonModel,
    mlflow.pyfunc.ChatModel,
    mlflow.pyfunc.ChatAgent,
    mlflow.pyfunc.ResponsesAgent,
)
"""Base classes of models in MLflow; their `predict_stream` raises NotImplementedError."""

CHATTY_LOGGERS = ("mlflow.models.utils", "mlflow.pyfunc.scoring_server", "mlflow.pyfunc.model")
"""Loggers of MLflow that write names and values of a payload at level WARNING, once per call."""


def default_store() -> Path | None:
    """Returns the file or directory in which MLflow keeps runs and models if no server is set; None if one is set.

    MLflow creates it on first use. Source: `mlflow.get_tracking_uri`.
    """
    uri: str = mlflow.get_tracking_uri()
    if is_tracking_uri_set() or mlflow.get_registry_uri() != uri:
        return None
    parsed = urlsplit(uri, allow_fragments=False)
    return Path(unquote(parsed.path[1:] if parsed.scheme == "sqlite" else parsed.path))


def disable_progress_bars() -> None:
    """Disables MLflow's progress bars for downloads, because a log would contain them as unstructured lines."""
    environment_variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)


def import_database_stores() -> None:
    """Imports the stores that MLflow imports on the first query of a registry or tracking server in a database."""
    if urlsplit(mlflow.get_tracking_uri()).scheme.partition("+")[0] in DATABASE_ENGINES:
        importlib.import_module("mlflow.store.model_registry.sqlalchemy_store")
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def registered_version(uri: str) -> tuple[str, str] | None:
    """Returns the name and current version of a `models:/` URI; None for other URIs and for the id of a logged model.

    The registry resolves an alias, a stage or `latest`. MLflow itself resolves a URI that names a registry
    (`models://profile@databricks/...`).
    """
    if not uri.startswith("models:/") or uri.startswith("models://"):
        return None
    client = mlflow.MlflowClient()
    registered = get_model_name_and_version(client, uri)
    if len(registered) != 2:  # noqa: PLR2004 - an id alone is 1
        return None
    # The registry has the canonical form of the version: 01 means 1.
    version = client.get_model_version(*registered)
    return version.name, str(version.version)


def versions_of(name: str) -> tuple[list[str], dict[str, str]]:
    """Returns the versions of a registered model, and the version of every alias; both empty for an unknown model."""
    client = mlflow.MlflowClient()
    quoted = name.replace("'", "''")
    versions = [str(version.version) for version in client.search_model_versions(f"name='{quoted}'")]
    aliases = client.get_registered_model(name).aliases if versions else {}
    return versions, {alias: str(version) for alias, version in aliases.items()}


def registered_names() -> list[str]:
    """Returns the names of the registry's models, but no more than MAX_NAMES."""
    return [model.name for model in mlflow.MlflowClient().search_registered_models(max_results=MAX_NAMES)]


def enter_serving_environment() -> None:
    """Sets the environment variable that MLflow's server sets after it has loaded a model.

    Without it, models with type hints do not parse base64 and ISO strings. Source:
    `mlflow.pyfunc.scoring_server.init`.
    """
    _MLFLOW_IS_IN_SERVING_ENVIRONMENT.set("true")


def read_mlmodel_files_by_libyaml() -> None:
    """Makes MLflow parse MLmodel files by libyaml.

    MLflow reads the file three times for a load, while calls wait for the interpreter. PyYAML's own parser takes
    70 ms for 1,000 columns, and libyaml 2 ms. Source: `mlflow.models.Model.load`.
    """
    setattr(mlflow.models.model, "yaml", LibyamlFirst())  # noqa: B010 - mypy forbids the assignment to a module


def hides_schema_details() -> bool:
    """Returns True if MLFLOW_DISABLE_SCHEMA_DETAILS keeps columns and types out of errors.

    MLflow supports the variable since 3.2. This server supports it with older versions too.
    """
    name = "MLFLOW_DISABLE_SCHEMA_DETAILS"
    variable = getattr(environment_variables, name, None)
    return bool((variable or environment_variables._BooleanEnvironmentVariable(name, False)).get())


def error_class(error: MlflowException) -> str | None:
    """Returns MLflow's detailed class of an exception, such as SCHEMA_ENFORCEMENT_FAILED; None before MLflow 3.12."""
    return getattr(error, "error_class", None)


def has_own_code(flavors: dict[str, Any]) -> bool:
    """Returns True if a model with these flavors brings code along (`code_paths`) or is code (a model from code)."""
    return any(flavor.get(key) for flavor in flavors.values() for key in (CODE, MODEL_CODE_PATH))


def forget_model_from_code() -> None:
    """Clears the model that the last file of a model from code has set.

    Otherwise MLflow takes it for the model of the next file, if that file sets none. Source:
    `mlflow.models.utils._load_model_code_path`.
    """
    mlflow.models.model.__mlflow_model__ = None


def is_signature_from_type_hint(metadata: Model) -> bool:
    """Returns True if the payload's `inputs` are passed on unconverted and checked against the model's type hint."""
    return bool(metadata._is_signature_from_type_hint())


def enforce_schema(data: Any, input_schema: Any, flavor: str | None) -> None:
    """Raises MlflowException if parsed data does not fit an input schema."""
    _validate_prediction_input(data, None, input_schema, None, flavor)


def predict_function(model: PyFuncModel) -> Any:
    """Returns the function that `PyFuncModel.predict` calls after its checks, with the data as the only argument.

    It does not take params, so it is only for models without a params schema, to which MLflow passes None.
    """
    return model._predict_fn


def streams(model: PyFuncModel) -> bool:
    """Returns True if a model has its own `predict_stream`.

    MLflow reports that a model streams if its class has another `predict_stream` than PythonModel. This is true of
    every ChatModel, ChatAgent and ResponsesAgent, because these classes have one that raises NotImplementedError.
    """
    if model._predict_stream_fn is None:
        return False
    try:
        raw = model.get_raw_model()
    except Exception:  # noqa: BLE001 - most models have no raw model, and raise different exceptions
        return True
    if not isinstance(raw, mlflow.pyfunc.PythonModel):
        return True
    function = getattr(raw.predict_stream, "__func__", raw.predict_stream)
    return all(function is not base.predict_stream for base in _PYTHON_BASES)


class _ModelReached(Exception):
    """MLflow accepted the content type and went on to the model."""


class _ProbeModel:
    """A fake model for a check of only the content type."""

    @property
    def metadata(self) -> Any:
        raise _ModelReached

    def predict(self, data: Any, params: Any = None) -> Any:
        raise _ModelReached


@lru_cache(maxsize=256)
def refuses_content_type(content_type: str) -> bool:
    """Returns True if MLflow's server answers 415 to a request with this Content-Type.

    The cache is bounded because callers choose the values.
    """
    try:
        return bool(
            invocations(b"a\n1\n", content_type, _ProbeModel(), None).status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        )
    except Exception:  # noqa: BLE001 - raised after the content type was accepted
        return False


def input_was_refused(error: BaseException) -> bool:
    """Returns True if an exception of `PyFuncModel.predict` reports an invalid input.

    MLflow checks and converts the input before it calls the model's own code. A model may raise the same exception
    types and codes as these checks, so the traceback decides: the exception of a check passed through one of
    INPUT_CHECKS before any code outside of MLflow. If MLflow translates the exception of a check (`raise
    MlflowException` in an `except` block), the traceback is that of its `__context__`.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        verdict = _input_check_comes_first(current.__traceback__)
        if verdict is not None:
            return verdict
        current = current.__context__
    return False


def tracer_provider() -> Any:
    """Returns the tracer provider of MLflow's traces; None until there is one.

    MLflow makes it with its first span. It is made here too if there is a tracking URI. Without one, that takes seconds
    and creates a database, also for a model without traces.
    """
    module: Any = mlflow.tracing.provider
    if is_tracking_uri_set():
        module._get_tracer(__name__)
    # MLflow before 3.9 keeps it in a variable.
    provider = module.provider.get() if hasattr(module, "provider") else module._MLFLOW_TRACER_PROVIDER
    return provider if hasattr(provider, "add_span_processor") else None


def exports_otlp() -> bool:
    """Returns True if MLflow sends the spans of its traces to a collector by itself."""
    return bool(should_use_otlp_exporter())


def trace_continued(traceparent: str) -> AbstractContextManager[None]:
    """Returns a context manager in which MLflow's traces continue another one; MLflow before 3.9 begins its own.

    Args:
        traceparent: Trace and span to continue, as in W3C Trace Context.

    """
    with suppress(ImportError):
        from mlflow.tracing.distributed import set_tracing_context_from_http_request_headers

        continued: AbstractContextManager[None] = set_tracing_context_from_http_request_headers(
            {"traceparent": traceparent}
        )
        return continued
    return nullcontext()


class ChatApi(StrEnum):
    """MLflow's chat APIs; the value is the module that loads the models of an API."""

    CHAT_MODEL = "mlflow.pyfunc.loaders.chat_model"
    CHAT_AGENT = "mlflow.pyfunc.loaders.chat_agent"
    RESPONSES_AGENT = "mlflow.pyfunc.loaders.responses_agent"


def refusing_chat_api(error: BaseException | None) -> ChatApi | None:
    """Returns the chat API whose classes refused a request that fits the signature; None if none did.

    MLflow creates instances of these classes from a request in `_convert_input` of the API's wrapper.
    """
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if trace.tb_frame.f_code.co_name == "_convert_input" and module in list(ChatApi):
            return ChatApi(module)
        trace = trace.tb_next
    return None


def _input_check_comes_first(trace: TracebackType | None) -> bool | None:
    """Returns True if an input check comes first, False if code outside of MLflow does, None if there is neither."""
    entered = False
    while trace is not None:
        frame = trace.tb_frame
        is_mlflow = str(frame.f_globals.get("__name__", "")).startswith("mlflow.")
        if is_mlflow and frame.f_code.co_name in INPUT_CHECKS:
            return True
        if entered and not is_mlflow:
            return False
        entered = entered or is_mlflow
        trace = trace.tb_next
    return None
