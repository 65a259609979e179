"""Every knob of the server, in one frozen and validated class.

Rule of this module: it is the only reader of the environment. A setting is declared once, as a field:
its flags, its environment names in order of precedence, its default, unit, legal range and its words.
The command line (`mlflow_grpc.cli`) and the table in docs/settings.md are made from these declarations.

Precedence: flag over environment over default.
"""

import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mlflow_grpc import choices
from mlflow_grpc.addresses import MAX_PORT, SHARED_NAMES, first_usable, host_alone
from mlflow_grpc.choices import Batching, EnvManager, LogFormat, LogLevel, OnError, Payload, Requirements
from mlflow_grpc.declarations import Flag, env_names, flag, json_object, setting
from mlflow_grpc.errors import StartError
from mlflow_grpc.misspellings import misspelt
from mlflow_grpc.naming import Name, Uri

__all__ = ["Batching", "EnvManager", "LogFormat", "LogLevel", "OnError", "Payload", "Requirements", "Settings"]


def default_threads() -> int:
    """As many threads as MLflow's server has: asyncio's default executor, min(32, cores + 4)."""
    return min(32, (os.cpu_count() or 1) + 4)


class Settings(BaseSettings):
    """How one server is to run. Inert: making one opens nothing and loads nothing."""

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

    model_uri: Annotated[Uri | None, Flag(("-m", "--model-uri"), metavar="URI")] = setting(
        None,
        "MODEL_PATH",
        text="The model: a directory or any MLflow model URI (models:/name/1, runs:/..., s3://...), or an MLModel "
        "class (mlmodel:package.module.Class).",
    )
    config: Annotated[Path | None, Flag(("--config",), metavar="FILE")] = setting(
        None,
        "MLFLOW_GRPC_CONFIG",
        text="A YAML file that lists the models to serve; in place of MODEL_PATH.",
    )
    model_name: Annotated[Name | None, Flag(("--model-name",), metavar="NAME")] = setting(
        None,
        "MLFLOW_GRPC_MODEL_NAME",
        text="The model's name for callers, in logs, answers and health; made from the URI if not given.",
    )
    lock: Annotated[Path | None, Flag(("--lock",), metavar="FILE")] = setting(
        None,
        "MLFLOW_GRPC_LOCK",
        text="A file with the field numbers of typed messages, which `mlflow-grpc proto` writes.",
    )
    allow_incompatible: Annotated[bool, Flag(("--allow-incompatible",), off="--no-allow-incompatible")] = setting(
        False, "MLFLOW_GRPC_ALLOW_INCOMPATIBLE", text="Serves a model too that its lock says breaks old clients."
    )
    host: Annotated[str, Flag(("-h", "--host"), metavar="HOST")] = setting(
        "127.0.0.1",
        "MLFLOW_GRPC_HOST",
        "HOST",
        "MLFLOW_HOST",
        text="The address to listen on; 0.0.0.0 for all of IPv4, :: for all. A HOST that is no address of this machine "
        "is ignored.",
        min_length=1,
    )
    port: Annotated[int, Flag(("-p", "--port"), metavar="PORT")] = setting(
        50051,
        "MLFLOW_GRPC_PORT",
        "PORT",
        "MLFLOW_PORT",
        text="The port to listen on; 0 takes a free one, which the ready line names. A PORT that is none is ignored.",
        ge=0,
        le=MAX_PORT,
    )
    workers: Annotated[int, Flag(("-w", "--workers"), metavar="N")] = setting(
        1,
        "MLFLOW_MODELS_WORKERS",
        text="The number of processes that share the port, each with the model loaded.",
        ge=1,
        le=1024,
    )
    timeout_s: Annotated[float, Flag(("-t", "--timeout"), metavar="SECONDS")] = setting(
        60.0,
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT",
        text="The time limit of a call in seconds, waiting included; past it DEADLINE_EXCEEDED.",
        gt=0,
        le=86_400,
        allow_inf_nan=False,
    )
    env_manager: Annotated[EnvManager, Flag(("--env-manager",))] = setting(
        EnvManager.LOCAL,
        "MLFLOW_GRPC_ENV_MANAGER",
        text="Where the server runs. local: in the environment that it is installed in. virtualenv, uv: in one that "
        "is built of what the model carries along. conda: refused.",
    )
    pyfunc_config: Annotated[dict[str, Any] | None, NoDecode, Flag(("--model-config",), metavar="JSON")] = setting(
        None, "SERVING_MODEL_CONFIG", text="MLflow's model_config for the model, a JSON object."
    )
    payload: Annotated[Payload, Flag(("--payload",))] = setting(
        Payload.MLFLOW,
        "MLFLOW_GRPC_PAYLOAD",
        text="mlflow: the formats of `mlflow models serve`. text: the string goes to the model as it is "
        "and str(answer) comes back.",
    )
    unknown_columns: Annotated[choices.UnknownColumns, Flag(("--unknown-columns",))] = setting(
        choices.UnknownColumns.IGNORE,
        "MLFLOW_GRPC_UNKNOWN_COLUMNS",
        text="ignore: columns and params that the model does not have are ignored, as in MLflow, and named in the "
        "trailer mlflow-ignored-columns. refuse: they are INVALID_ARGUMENT.",
    )
    csv_dates: Annotated[bool, Flag(("--csv-dates",), off="--no-csv-dates")] = setting(
        False, "MLFLOW_GRPC_CSV_DATES", text="Parses columns of dates in CSV, which MLflow refuses, as those in JSON."
    )
    show_exceptions: Annotated[bool, Flag(("--show-exceptions",), off="--no-show-exceptions")] = setting(
        False, "MLFLOW_GRPC_SHOW_EXCEPTIONS", text="Sends callers what the model raised, for development."
    )
    requirements: Annotated[Requirements, Flag(("--requirements",))] = setting(
        Requirements.CHECK,
        "MLFLOW_GRPC_REQUIREMENTS",
        text="check: other versions than the model's requirements name are one warning line, as in MLflow; a package "
        "that is missing refuses the model, with the command that installs it. strict: other versions refuse it too. "
        "warn: nothing does.",
    )
    load_timeout_s: Annotated[float, Flag(("--load-timeout",), metavar="SECONDS")] = setting(
        0.0,
        "MLFLOW_GRPC_LOAD_TIMEOUT",
        text="How long fetching a model may take, and loading it, in seconds each; past it the model cannot be served "
        "(on_error). 0 is no limit.",
        ge=0,
        le=86_400,
        allow_inf_nan=False,
    )
    try_example: Annotated[bool, Flag(("--try-example",), off="--no-try-example")] = setting(
        True,
        "MLFLOW_GRPC_TRY_EXAMPLE",
        text="Tries the typed RPCs of a model on its input example when it is loaded, and offers none that fails where "
        "JSON is answered.",
    )
    batching: Annotated[Batching, Flag(("--batching",))] = setting(
        Batching.AUTO,
        "MLFLOW_GRPC_BATCHING",
        text="auto: calls that wait at the same time are predicted together if the model's flavor is known to treat "
        "rows independently and a check at load agrees. on: the owner says that it does. off: each call is predicted "
        "by itself.",
    )
    batch_rows: Annotated[int, Flag(("--batch-rows",), metavar="N")] = setting(
        128, "MLFLOW_GRPC_BATCH_ROWS", text="The most rows that are predicted together.", ge=1, le=1_000_000
    )
    batch_wait_s: Annotated[float, Flag(("--batch-wait",), metavar="SECONDS")] = setting(
        0.05,
        "MLFLOW_GRPC_BATCH_WAIT",
        text="The longest that a call waits for others, or for a batch that runs, before its own batch is started, in "
        "seconds. A call that is alone does not wait.",
        ge=0,
        le=60,
        allow_inf_nan=False,
    )
    queue_calls: Annotated[int, Flag(("--queue-calls",), metavar="N")] = setting(
        1024,
        "MLFLOW_GRPC_QUEUE_CALLS",
        text="The most calls that a model has at a time, waiting or running; one more is RESOURCE_EXHAUSTED at once.",
        ge=1,
        le=1_000_000,
    )
    queue_bytes: Annotated[int, Flag(("--queue-bytes",), metavar="BYTES")] = setting(
        512 * 1024 * 1024,
        "MLFLOW_GRPC_QUEUE_BYTES",
        text="The most bytes of their payloads, and as many of answers that nobody reads; one alone may be larger.",
        ge=1024,
        le=2**40,
    )
    threads: Annotated[int, Flag(("--threads",), metavar="N")] = Field(
        default_factory=default_threads,
        validation_alias=AliasChoices("MLFLOW_GRPC_THREADS"),
        description="The number of threads that run the model; by default as many as MLflow's server has.",
        ge=1,
        le=1024,
    )
    max_message_bytes: Annotated[int, Flag(("--max-message-bytes",), metavar="BYTES")] = setting(
        100 * 1024 * 1024,
        "MLFLOW_GRPC_MAX_MESSAGE_BYTES",
        text="The largest request in bytes, after decompression; a larger one is RESOURCE_EXHAUSTED.",
        ge=1024,
        le=2**31 - 1,
    )
    max_connection_age_s: Annotated[float | None, Flag(("--max-connection-age",), metavar="SECONDS")] = setting(
        None,
        "MLFLOW_GRPC_MAX_CONNECTION_AGE",
        text="After how many seconds a connection is closed, once its calls have ended, so that the client connects "
        "anew and maybe to another worker; 0 is never. Not given: 300 with several workers, never with one.",
        ge=0,
        le=31_536_000,
        allow_inf_nan=False,
    )
    reflection: Annotated[bool, Flag(("--reflection",), off="--no-reflection")] = setting(
        True,
        "MLFLOW_GRPC_REFLECTION",
        text="Server reflection, so that grpcurl and buf curl can list, describe and call the services.",
    )
    tls_cert: Annotated[Path | None, Flag(("--tls-cert",), metavar="FILE")] = setting(
        None, "MLFLOW_GRPC_TLS_CERT", text="The server's certificate chain (PEM); with --tls-key turns TLS on."
    )
    tls_key: Annotated[Path | None, Flag(("--tls-key",), metavar="FILE")] = setting(
        None, "MLFLOW_GRPC_TLS_KEY", text="The private key of --tls-cert (PEM)."
    )
    tls_client_ca: Annotated[Path | None, Flag(("--tls-client-ca",), metavar="FILE")] = setting(
        None,
        "MLFLOW_GRPC_TLS_CLIENT_CA",
        text="The authorities (PEM) that must have signed a client's certificate: mutual TLS.",
    )
    lame_duck_s: Annotated[float, Flag(("--lame-duck",), metavar="SECONDS")] = setting(
        5.0,
        "MLFLOW_GRPC_LAME_DUCK",
        text="How long calls are answered as before after SIGTERM, in seconds, while health says NOT_SERVING: the time "
        "that balancers and Kubernetes need to send no more of them. 0 after other signals.",
        ge=0,
        le=600,
        allow_inf_nan=False,
    )
    drain_timeout_s: Annotated[float, Flag(("--drain-timeout",), metavar="SECONDS")] = setting(
        30.0,
        "MLFLOW_GRPC_DRAIN_TIMEOUT",
        text="How long calls in flight may take to finish once a signal ends the server, in seconds.",
        ge=0,
        le=86_400,
        allow_inf_nan=False,
    )
    end_with_stdin: Annotated[bool, Flag(("--end-with-stdin",), off="--no-end-with-stdin")] = setting(
        False,
        "MLFLOW_GRPC_END_WITH_STDIN",
        text="Ends the server, as SIGTERM does, when its standard input ends: with the process at the other end.",
    )
    log_format: Annotated[LogFormat, Flag(("--log-format",))] = setting(
        LogFormat.AUTO,
        "MLFLOW_GRPC_LOG_FORMAT",
        text="text for people, json for collectors; auto is text on a terminal and json otherwise.",
    )
    log_level: Annotated[LogLevel, Flag(("--log-level",))] = setting(
        LogLevel.INFO, "MLFLOW_GRPC_LOG_LEVEL", text="The least severe level of the server's own log lines."
    )
    log_level_libraries: Annotated[LogLevel, Flag(("--log-level-libraries",))] = setting(
        LogLevel.WARNING,
        "MLFLOW_GRPC_LOG_LEVEL_LIBRARIES",
        text="The least severe level of the lines of models and libraries, which may write URLs with keys and payloads "
        "at info and debug.",
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
            given, missing = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise ValueError(f"{spelling(given)} needs {spelling(missing)} too")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(f"{spelling('tls_client_ca')} needs {spelling('tls_cert')} and {spelling('tls_key')}")
        return self

    def source(self, field: str) -> str:
        """What a person has set a setting by, for errors: its flag or the name of an environment variable."""
        return _source(field, self._flags)

    @classmethod
    def load(cls, flags: dict[str, Any]) -> Self:
        """The settings from `flags` (by field name, only those given), the environment and the defaults.

        Raises:
            StartError: A value is missing or not legal; one line that names flag and environment name.

        """
        # A file beats MODEL_PATH, which an image may have set, and -m a file of the environment; two flags contradict.
        if flags.get("config") is None:
            flags = {**flags, "config": None} if "model_uri" in flags else flags
        elif clash := [name for name in ("model_uri", "model_name", "pyfunc_config") if name in flags]:
            raise StartError(f"{spelling(clash[0])} is for one model; with {spelling('config')} it goes into the file")
        try:
            shared: dict[str, Any] = {
                field: cls.model_fields[field].default if value is None else value
                for field, value, _ in _of_other_programs(flags)
            }
            loaded = cls(**shared, **flags)
        except ValidationError as error:
            raise StartError("; ".join(_explain(dict(problem), flags) for problem in error.errors())) from None
        loaded._flags = frozenset(flags)
        return loaded


def _source(field: str, flags: Container[str]) -> str:
    """The flag of a setting, or the environment variable that it comes from."""
    info = Settings.model_fields[field]
    is_usable = SHARED_NAMES.get(field, bool)
    names = [] if field in flags else env_names(info)
    found = (name for name in names if first_usable(field, [name], os.environ, is_usable)[0] is not None)
    return next(found, flag(info).names[-1])


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
    """For each setting whose environment names other programs use too, unless it comes from a flag: its name, the first
    value that can be meant for this server, and a line for each value before it.
    """
    for field, is_usable in SHARED_NAMES.items():
        if field not in flags:
            yield field, *first_usable(field, env_names(Settings.model_fields[field]), os.environ, is_usable)


def ignored_environment(flags: dict[str, Any]) -> list[str]:
    """A line for each environment variable that is ignored: it can only be another program's, or it is misspelt.

    Args:
        flags: The settings that come from flags, for which the environment does not count.

    """
    known = [name for _, info in fields() for name in env_names(info)]
    return [*(line for _, _, lines in _of_other_programs(flags) for line in lines), *misspelt(os.environ, known)]


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """The settings in the order in which they are declared: name and declaration."""
    yield from Settings.model_fields.items()


def spelling(field: str) -> str:
    """The long flag of the setting that is called `field` in the class."""
    return flag(Settings.model_fields[field]).names[-1]


def activated(directory: Path) -> dict[str, str]:
    """The environment variables of a process in a virtual environment, as its `bin/activate` sets them."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    path = os.pathsep.join((str(directory / "bin"), *os.get_exec_path()))
    return {**variables, "VIRTUAL_ENV": str(directory), "PATH": path}


def prepare_grpc_core() -> None:
    """Tells gRPC's core, before `grpc` is imported, to write nothing to stderr and to leave alone what a model forks.

    Its words reach the operator as lines of our log; its handlers crash one forked process in four. Both can be set.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
