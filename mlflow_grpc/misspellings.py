"""Misspelt settings in the environment.

Rule of this module: it compares names. A value may be a secret and is never shown.
"""

import difflib
import re
from collections.abc import Iterable, Mapping

from _mlflow_grpc_protocol.metadata import TOKEN_FILE_VARIABLE, TOKEN_OVER_PLAINTEXT_VARIABLE, TOKEN_VARIABLE
from pydantic.fields import FieldInfo

from mlflow_grpc.addresses import is_service_variable
from mlflow_grpc.declarations import env_names, flag

PREFIX = "MLFLOW_GRPC_"
"""Prefix of this server's own environment variables."""

OF_CLIENTS = (TOKEN_VARIABLE, TOKEN_FILE_VARIABLE, TOKEN_OVER_PLAINTEXT_VARIABLE)
"""Variables with this prefix that clients read."""

MIN_SIMILARITY = 0.9
"""Minimum similarity (difflib's ratio) of a name without the prefix to a setting's name."""

MIN_LENGTH = 12
"""Minimum length of a name for the comparison; shorter names, such as PORT, resemble too many names."""

_OF_SERVICE = re.compile(r".+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""Variables that Kubernetes sets in each pod for each Service of the namespace, and Docker for links.

For a Service called mlflow-grpc-iris one of them is MLFLOW_GRPC_IRIS_SERVICE_HOST. They also set NAME_PORT to a URL.
"""


def flags_by_variable(fields: Iterable[tuple[str, FieldInfo]]) -> dict[str, str]:
    """Returns the long flag of each variable; without those of OpenTelemetry, whose SDK reads others too.

    Args:
        fields: The names and declarations of all settings.

    """
    flags = {name: flag(info).names[-1] for _, info in fields for name in env_names(info)}
    return {name: long_flag for name, long_flag in flags.items() if not name.startswith("OTEL_")}


def misspelt(environment: Mapping[str, str], settings: Mapping[str, str]) -> list[str]:
    """Returns a log line for each name that looks like a setting and is not one, with the nearest setting.

    Args:
        environment: Names and values; empty values count as unset.
        settings: The long flags of all settings, by the names of their variables.

    """
    lines = []
    # Without the prefix, which would make any two names similar.
    by_ending = {setting.removeprefix(PREFIX): setting for setting in settings}
    by_flag = {long_flag[2:].replace("-", "_").upper(): name for name, long_flag in reversed(list(settings.items()))}
    long_names = [setting for setting in settings if len(setting) >= MIN_LENGTH]
    for name, value in sorted(environment.items()):
        if not value or name in settings or name in OF_CLIENTS or _is_of_service(name, value):
            continue
        has_prefix = name.upper().startswith(PREFIX)
        if has_prefix:
            ending = name.upper().removeprefix(PREFIX)
            near = difflib.get_close_matches(ending, by_ending, n=1)
            nearest = [by_flag[ending]] if ending in by_flag else [by_ending[ending] for ending in near]
        else:
            nearest = difflib.get_close_matches(name.upper(), long_names, n=1, cutoff=MIN_SIMILARITY)
        if nearest:
            lines.append(f"{name} is ignored: there is no such setting; did you mean {nearest[0]}?")
        elif has_prefix:
            lines.append(f"{name} is ignored: there is no such setting; `mlflow-grpc serve --help` lists them")
    return lines


def _is_of_service(name: str, value: str) -> bool:
    return _OF_SERVICE.fullmatch(name) is not None or is_service_variable(name, value)
