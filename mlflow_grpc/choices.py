"""The values of settings that are one of a few words.

Rule of this module: an enumeration a setting, and nothing that reads or judges one.
"""

from enum import StrEnum


class EnvManager(StrEnum):
    """MLflow's environment managers."""

    LOCAL = "local"
    VIRTUALENV = "virtualenv"
    UV = "uv"
    CONDA = "conda"


class Payload(StrEnum):
    """What `Input.value` holds."""

    MLFLOW = "mlflow"
    TEXT = "text"


class Batching(StrEnum):
    """Whether calls that wait at the same time are put together."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class UnknownColumns(StrEnum):
    """What becomes of columns and params of a payload that the model does not have."""

    IGNORE = "ignore"
    REFUSE = "refuse"


class Requirements(StrEnum):
    """What happens when the environment does not meet the model's requirements."""

    CHECK = "check"
    STRICT = "strict"
    WARN = "warn"


class OnError(StrEnum):
    """What happens when one of several models cannot be loaded."""

    STOP = "stop"
    SKIP = "skip"


class LogFormat(StrEnum):
    """How log lines are written."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
