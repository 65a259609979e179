"""Settings that take one of a few fixed values.

Rule of this module: one enum per setting or key of the configuration file, and no logic.
"""

from enum import StrEnum


class EnvManager(StrEnum):
    """MLflow's environment managers."""

    LOCAL = "local"
    VIRTUALENV = "virtualenv"
    UV = "uv"
    CONDA = "conda"


class Payload(StrEnum):
    """Content of `Input.value`."""

    MLFLOW = "mlflow"
    TEXT = "text"


class Batching(StrEnum):
    """Prediction of several waiting calls in one call of the model."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class UnknownColumns(StrEnum):
    """Treatment of columns and params in a payload that the model does not have."""

    IGNORE = "ignore"
    REFUSE = "refuse"


class Requirements(StrEnum):
    """Reaction to an environment that does not meet the model's requirements."""

    CHECK = "check"
    STRICT = "strict"
    WARN = "warn"


class OnError(StrEnum):
    """Reaction to a model that cannot be loaded, if there are several."""

    STOP = "stop"
    SKIP = "skip"


class OtlpProtocol(StrEnum):
    """Protocols of OTLP that exporters of OpenTelemetry have."""

    GRPC = "grpc"
    HTTP = "http/protobuf"


class LogFormat(StrEnum):
    """Format of log lines."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Service(StrEnum):
    """What a caller may be allowed to use, by the key `access` of a configuration file."""

    PREDICT = "predict"
    """Every RPC and route that calls a model."""
    MODELS = "models"
    """The descriptions of models: mlflow_grpc.v1.Models, GET /models, /openapi.json and /docs."""
    RELOAD = "reload"
    """RepositoryModelLoad of the Open Inference Protocol, which reloads a model."""
    REFLECTION = "reflection"
    """Server reflection."""
    METRICS = "metrics"
    """GET /metrics."""
    PAGE = "page"
    """What the page shows of the server besides its models."""
    HEALTH = "health"
    """The health of models. That of the server as a whole needs no permission."""
