"""All settings of the server, in one frozen and validated class.

Rule of this module: no other module reads settings from the environment. Each setting is declared once, as a field
with its flags, its environment names in order of precedence, its default, unit, legal range and description. The
command line (`mlflow_grpc.cli`) and the table in docs/settings.md are generated from it. Precedence: flag, environment,
default.

It has more than 300 lines, because it is the list of all settings.
"""

import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode, SettingsConfigDict

from mlflow_grpc.access_settings import AccessSettings
from mlflow_grpc.addresses import MAX_PORT, SHARED_NAMES, first_usable, host_alone, may_be_of_service
from mlflow_grpc.choices import Batching, EnvManager, LogFormat, LogLevel, Payload, Requirements, UnknownColumns
from mlflow_grpc.declarations import Flag, default_threads, env_names, flag, json_object, setting
from mlflow_grpc.errors import StartError
from mlflow_grpc.http_settings import HttpSettings
from mlflow_grpc.misspellings import flags_by_variable, misspelt
from mlflow_grpc.naming import Name, Uri
from mlflow_grpc.recording_settings import RecordingSettings
from mlflow_grpc.rollout_settings import RolloutSettings
from mlflow_grpc.setting_sources import SourcedSettings
from mlflow_grpc.telemetry_settings import TelemetrySettings, diverted_traces, unsupported_protocol


class Settings(HttpSettings, AccessSettings, TelemetrySettings, RolloutSettings, RecordingSettings, SourcedSettings):
    """Settings of one server. Creating an instance opens nothing and loads nothing."""

    model_config = SettingsConfigDict(
        frozen=True,
        case_sensitive=True,
        populate_by_name=True,
        env_ignore_empty=True,
        extra="forbid",
        protected_namespaces=(),
        arbitrary_types_allowed=True,
    )

    _flags: frozenset[str] = PrivateAttr(frozenset())
    _unsupported_protocol: str = PrivateAttr("")

    model_uri: Annotated[Uri | None, Flag(("-m", "--model-uri"), metavar="URI")] = setting(
        None,
        "MODEL_PATH",
        text="The model to serve: a directory, an MLflow model URI (models:/name/1, runs:/..., s3://...), or an "
        "MLModel class (mlmodel:package.module.Class).",
    )
    config: Annotated[Path | None, Flag(("--config",), metavar="FILE")] = setting(
        None,
        "MLFLOW_GRPC_CONFIG",
        text="A YAML file that lists the models to serve. Replaces MODEL_PATH.",
    )
    model_name: Annotated[Name | None, Flag(("--model-name",), metavar="NAME")] = setting(
        None,
        "MLFLOW_GRPC_MODEL_NAME",
        text="The model's name for callers, logs, answers and health. Derived from the URI if not set.",
    )
    lock: Annotated[Path | None, Flag(("--lock",), metavar="FILE")] = setting(
        None,
        "MLFLOW_GRPC_LOCK",
        text="A lock file with the field numbers of typed messages, written by `mlflow-grpc proto`.",
    )
    allow_incompatible: Annotated[bool, Flag(("--allow-incompatible",), off="--no-allow-incompatible")] = setting(
        False, "MLFLOW_GRPC_ALLOW_INCOMPATIBLE", text="Serves a model even if its lock says it breaks old clients."
    )
    host: Annotated[str, Flag(("-h", "--host"), metavar="HOST")] = setting(
        "127.0.0.1",
        "MLFLOW_GRPC_HOST",
        "HOST",
        "MLFLOW_HOST",
        text="The address to listen on: 0.0.0.0 for all of IPv4, :: for all. A HOST that is not an address of this "
        "machine is ignored.",
        min_length=1,
    )
    port: Annotated[int, Flag(("-p", "--port"), metavar="PORT")] = setting(
        50051,
        "MLFLOW_GRPC_PORT",
        "PORT",
        "MLFLOW_PORT",
        text="The port to listen on. 0 selects a free port, shown in the ready line. An invalid PORT is ignored.",
        ge=0,
        le=MAX_PORT,
    )
    workers: Annotated[int, Flag(("-w", "--workers"), metavar="N")] = setting(
        1,
        "MLFLOW_MODELS_WORKERS",
        text="The number of processes that share the port. Each of them loads the model.",
        ge=1,
        le=1024,
    )
    timeout_s: Annotated[float, Flag(("-t", "--timeout"), metavar="SECONDS")] = setting(
        60.0,
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT",
        text="The time limit of a call in seconds, including the time in the queue. A longer call gets "
        "DEADLINE_EXCEEDED.",
        gt=0,
        le=86_400,
        allow_inf_nan=False,
    )
    env_manager: Annotated[EnvManager, Flag(("--env-manager",))] = setting(
        EnvManager.LOCAL,
        "MLFLOW_GRPC_ENV_MANAGER",
        text="The environment of the server. local: the one it is installed in. virtualenv, uv: one built from the "
        "files that the model brings along. conda: not supported.",
    )
    pyfunc_config: Annotated[dict[str, Any] | None, NoDecode, Flag(("--model-config",), metavar="JSON")] = setting(
        None, "SERVING_MODEL_CONFIG", text="MLflow's model_config for the model, as a JSON object."
    )
    payload: Annotated[Payload, Flag(("--payload",))] = setting(
        Payload.MLFLOW,
        "MLFLOW_GRPC_PAYLOAD",
        text="mlflow: the formats of `mlflow models serve`. text: the model gets the string unchanged, and the caller "
        "gets str(answer).",
    )
    unknown_columns: Annotated[UnknownColumns, Flag(("--unknown-columns",))] = setting(
        UnknownColumns.IGNORE,
        "MLFLOW_GRPC_UNKNOWN_COLUMNS",
        text="Columns and params that the model does not have. ignore: ignored as in MLflow, and named in the trailer "
        "mlflow-ignored-columns. refuse: INVALID_ARGUMENT.",
    )
    csv_dates: Annotated[bool, Flag(("--csv-dates",), off="--no-csv-dates")] = setting(
        False, "MLFLOW_GRPC_CSV_DATES", text="Parses columns of dates in CSV like those in JSON. MLflow refuses them."
    )
    show_exceptions: Annotated[bool, Flag(("--show-exceptions",), off="--no-show-exceptions")] = setting(
        False, "MLFLOW_GRPC_SHOW_EXCEPTIONS", text="Sends the model's exceptions to callers, for development."
    )
    requirements: Annotated[Requirements, Flag(("--requirements",))] = setting(
        Requirements.CHECK,
        "MLFLOW_GRPC_REQUIREMENTS",
        text="What to do if packages differ from the model's requirements. check: log one warning for different "
        "versions, as in MLflow; refuse the model if a package is missing, and show the command that installs it. "
        "strict: refuse the model in both cases. warn: log a warning in both cases.",
    )
    load_timeout_s: Annotated[float, Flag(("--load-timeout",), metavar="SECONDS")] = setting(
        0.0,
        "MLFLOW_GRPC_LOAD_TIMEOUT",
        text="The time limit for fetching a model, and for loading it, in seconds each. A model that exceeds it counts "
        "as failed (on_error). 0 means no limit.",
        ge=0,
        le=86_400,
        allow_inf_nan=False,
    )
    try_example: Annotated[bool, Flag(("--try-example",), off="--no-try-example")] = setting(
        True,
        "MLFLOW_GRPC_TRY_EXAMPLE",
        text="Tries the typed RPCs of a model on its input example at load. An RPC that fails is not offered if the "
        "same example works as JSON.",
    )
    batching: Annotated[Batching, Flag(("--batching",))] = setting(
        Batching.AUTO,
        "MLFLOW_GRPC_BATCHING",
        text="Whether calls that wait at the same time are predicted together. auto: yes, if the model's flavor is "
        "known to treat rows independently and a check at load confirms it. on: yes, without that check. off: each "
        "call is predicted by itself.",
    )
    batch_rows: Annotated[int, Flag(("--batch-rows",), metavar="N")] = setting(
        128, "MLFLOW_GRPC_BATCH_ROWS", text="The maximum number of rows in a batch.", ge=1, le=1_000_000
    )
    batch_wait_s: Annotated[float, Flag(("--batch-wait",), metavar="SECONDS")] = setting(
        0.05,
        "MLFLOW_GRPC_BATCH_WAIT",
        text="The maximum time in seconds that a call waits for other calls, or for a running batch, before its own "
        "batch starts. A call that is alone does not wait.",
        ge=0,
        le=60,
        allow_inf_nan=False,
    )
    queue_calls: Annotated[int, Flag(("--queue-calls",), metavar="N")] = setting(
        1024,
        "MLFLOW_GRPC_QUEUE_CALLS",
        text="The maximum number of calls per model, waiting or running. Further calls get RESOURCE_EXHAUSTED at once.",
        ge=1,
        le=1_000_000,
    )
    queue_bytes: Annotated[int, Flag(("--queue-bytes",), metavar="BYTES")] = setting(
        512 * 1024 * 1024,
        "MLFLOW_GRPC_QUEUE_BYTES",
        text="The maximum size in bytes of the payloads of these calls, and separately of unread answers. A single "
        "payload or answer may be larger.",
        ge=1024,
        le=2**40,
    )
    threads: Annotated[int, Flag(("--threads",), metavar="N")] = Field(
        default_factory=default_threads,
        validation_alias=AliasChoices("MLFLOW_GRPC_THREADS"),
        description="The number of threads that run each model. The default is the same as in MLflow's server.",
        ge=1,
        le=1024,
    )
    max_message_bytes: Annotated[int, Flag(("--max-message-bytes",), metavar="BYTES")] = setting(
        100 * 1024 * 1024,
        "MLFLOW_GRPC_MAX_MESSAGE_BYTES",
        text="The maximum size of a request in bytes, after decompression. Larger requests get RESOURCE_EXHAUSTED.",
        ge=1024,
        le=2**31 - 1,
    )
    max_connection_age_s: Annotated[float | None, Flag(("--max-connection-age",), metavar="SECONDS")] = setting(
        None,
        "MLFLOW_GRPC_MAX_CONNECTION_AGE",
        text="The maximum age of a connection in seconds. The server closes an older one as soon as its calls have "
        "ended, so that the client reconnects, possibly to another worker. 0 means no limit. If not set: 300 with "
        "several workers, no limit with one.",
        ge=0,
        le=31_536_000,
        allow_inf_nan=False,
    )
    reflection: Annotated[bool, Flag(("--reflection",), off="--no-reflection")] = setting(
        True,
        "MLFLOW_GRPC_REFLECTION",
        text="Offers server reflection, so that grpcurl and buf curl can list, describe and call the services.",
    )
    tls_cert: Annotated[Path | None, Flag(("--tls-cert",), metavar="FILE")] = setting(
        None, "MLFLOW_GRPC_TLS_CERT", text="The server's certificate chain (PEM). Needs --tls-key. Turns on TLS."
    )
    tls_key: Annotated[Path | None, Flag(("--tls-key",), metavar="FILE")] = setting(
        None, "MLFLOW_GRPC_TLS_KEY", text="The private key of --tls-cert (PEM)."
    )
    tls_client_ca: Annotated[Path | None, Flag(("--tls-client-ca",), metavar="FILE")] = setting(
        None,
        "MLFLOW_GRPC_TLS_CLIENT_CA",
        text="The authorities (PEM) that sign the certificates of clients. Turns on mutual TLS.",
    )
    lame_duck_s: Annotated[float, Flag(("--lame-duck",), metavar="SECONDS")] = setting(
        5.0,
        "MLFLOW_GRPC_LAME_DUCK",
        text="The time in seconds after SIGTERM in which the server still answers calls, while health is NOT_SERVING. "
        "Balancers and Kubernetes need it to stop sending calls. After other signals, it is 0.",
        ge=0,
        le=600,
        allow_inf_nan=False,
    )
    drain_timeout_s: Annotated[float, Flag(("--drain-timeout",), metavar="SECONDS")] = setting(
        30.0,
        "MLFLOW_GRPC_DRAIN_TIMEOUT",
        text="The time limit in seconds for calls in flight to finish when a signal ends the server.",
        ge=0,
        le=86_400,
        allow_inf_nan=False,
    )
    end_with_stdin: Annotated[bool, Flag(("--end-with-stdin",), off="--no-end-with-stdin")] = setting(
        False,
        "MLFLOW_GRPC_END_WITH_STDIN",
        text="Ends the server, as SIGTERM does, when its standard input closes, such as when the parent process ends.",
    )
    log_format: Annotated[LogFormat, Flag(("--log-format",))] = setting(
        LogFormat.AUTO,
        "MLFLOW_GRPC_LOG_FORMAT",
        text="text: for people. json: for log collectors. auto: text on a terminal, json otherwise.",
    )
    log_level: Annotated[LogLevel, Flag(("--log-level",))] = setting(
        LogLevel.INFO, "MLFLOW_GRPC_LOG_LEVEL", text="The server logs its own lines at this level and above."
    )
    log_level_libraries: Annotated[LogLevel, Flag(("--log-level-libraries",))] = setting(
        LogLevel.WARNING,
        "MLFLOW_GRPC_LOG_LEVEL_LIBRARIES",
        text="The server logs lines of models and libraries at this level and above. At info and debug, they may "
        "contain payloads and URLs with keys.",
    )

    @field_validator("pyfunc_config", mode="before")
    @classmethod
    def _json_object(cls, value: Any) -> Any:
        return json_object(value) if isinstance(value, str) else value

    @field_validator("config", "lock", "tls_cert", "tls_key", "tls_client_ca")
    @classmethod
    def _path_with_home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator("host")
    @classmethod
    def _is_host(cls, value: str) -> str:
        return host_alone(value)

    @field_validator("tls_cert", "tls_key", "tls_client_ca")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                value.read_bytes()
            except OSError as error:
                raise ValueError(f"cannot read {value}: {error.strerror}") from None
        return value

    @model_validator(mode="after")
    def _names_models(self) -> Self:
        if self.config is None and not self.model_uri:
            raise ValueError(
                "no model given: set MODEL_PATH or -m / --model-uri to an MLflow model (a directory with an MLmodel "
                "file, or a URI such as models:/name/1), or MLFLOW_GRPC_CONFIG or --config to a file that lists models"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            present, missing = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise ValueError(f"{spelling(present)} needs {spelling(missing)} too")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(f"{spelling('tls_client_ca')} needs {spelling('tls_cert')} and {spelling('tls_key')}")
        if self.auth_tls_san is not None and self.tls_client_ca is None:
            raise ValueError(f"{spelling('auth_tls_san')} needs {spelling('tls_client_ca')}, which signs certificates")
        return self

    def source(self, field: str) -> str:
        """Returns the source of a setting for errors: its flag, or the name of an environment variable."""
        return _source(field, self._flags)

    @property
    def unsupported_protocol(self) -> str:
        """Variable of OpenTelemetry with a protocol that this server lacks; empty if there is none.

        An example is `OTEL_EXPORTER_OTLP_PROTOCOL=http/json`. It matters only if calls are traced.
        """
        return self._unsupported_protocol

    @classmethod
    def load(cls, flags: dict[str, Any]) -> Self:
        """Loads the settings from `flags` (the flags that the user has set, by field name), environment and defaults.

        Raises:
            StartError: A value is missing or invalid. The text is one line with the flag or environment name.

        """
        # --config overrides MODEL_PATH, which an image may have set. -m overrides MLFLOW_GRPC_CONFIG. Never use both.
        if flags.get("config") is None:
            flags = {**flags, "config": None} if "model_uri" in flags else flags
        elif clash := [name for name in ("model_uri", "model_name", "pyfunc_config") if name in flags]:
            raise StartError(
                f"{spelling(clash[0])} does not work with {spelling('config')}: set it in that file instead"
            )
        try:
            shared: dict[str, Any] = {
                field: cls.model_fields[field].default if value is None else value
                for field, value, _ in _of_other_programs(flags)
            }
            unsupported = "" if "otlp_protocol" in flags else unsupported_protocol(os.environ)
            if unsupported:
                shared["otlp_protocol"] = cls.model_fields["otlp_protocol"].default
            loaded = cls(**shared, **flags)
        except ValidationError as error:
            raise StartError("; ".join(_explain(dict(problem), flags) for problem in error.errors())) from None
        loaded._flags = frozenset(flags)
        loaded._unsupported_protocol = unsupported
        return loaded


def _source(field: str, flags: Container[str]) -> str:
    """Returns the flag of a setting, or the environment variable that it comes from."""
    info = Settings.model_fields[field]
    is_usable = SHARED_NAMES.get(field, bool)
    names = [] if field in flags else env_names(info)
    set_names = (name for name in names if first_usable(field, [name], os.environ, is_usable)[0] is not None)
    return next(set_names, flag(info).names[-1])


def _explain(problem: dict[str, Any], flags: dict[str, Any]) -> str:
    where = str(problem["loc"][0]) if problem["loc"] else ""
    field = next((name for name, info in fields() if where == name or where in env_names(info)), None)
    text = str(problem["msg"]).removeprefix("Value error, ")
    if field is None:
        return text
    source = _source(field, flags)
    shown = f" {problem['input']!r}" if isinstance(problem["input"], str) and field != "pyfunc_config" else ""
    return f"{source}{shown}: {text[:1].lower()}{text[1:]}"


def _of_other_programs(flags: dict[str, Any]) -> Iterator[tuple[str, str | None, list[str]]]:
    """Yields name, usable value and log lines of each setting shared with other programs, unless a flag sets it."""
    for field, info in Settings.model_fields.items():
        if field not in flags and any(map(may_be_of_service, env_names(info))):
            yield field, *first_usable(field, env_names(info), os.environ, SHARED_NAMES.get(field, bool))


def ignored_environment(flags: dict[str, Any]) -> list[str]:
    """Returns a log line for each variable that is misspelt, another program's, or diverts MLflow's own traces."""
    of_others = (line for _, _, lines in _of_other_programs(flags) for line in lines)
    return [*of_others, *misspelt(os.environ, flags_by_variable(fields())), *diverted_traces(os.environ)]


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yields the name and the declaration of each setting, in the order of declaration, inherited ones last."""
    groups = (HttpSettings, AccessSettings, TelemetrySettings, RolloutSettings, RecordingSettings)
    inherited = {name: info for group in groups for name, info in group.model_fields.items()}
    yield from ((name, info) for name, info in Settings.model_fields.items() if name not in inherited)
    yield from inherited.items()


def spelling(field: str) -> str:
    """Returns the long flag of the setting with the field name `field`."""
    return flag(Settings.model_fields[field]).names[-1]
