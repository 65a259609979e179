"""Environment variables that look like a setting of this server and are none.

Rule of this module: it knows names alone. A value may be a secret and is not shown.
"""

import difflib
import re
from collections.abc import Collection, Mapping

PREFIX = "MLFLOW_GRPC_"
"""What this server's own environment names begin with."""

LIKE_A_SETTING = 0.9
"""How like a setting's name another name has to be (difflib's ratio) to be taken for it, if it has not the prefix."""

LEAST_LENGTH = 12
"""Shorter names, such as PORT, are like too many others."""

_OF_SERVICE = re.compile(r".+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""What Kubernetes sets in each pod for each Service of the namespace (one called mlflow-grpc-iris:
MLFLOW_GRPC_IRIS_SERVICE_HOST), and Docker for links; NAME_PORT, with a URL, besides.
"""

_URL = re.compile(r"(tcp|udp|sctp)://")


def misspelt(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """A line for each name that is meant for this server and that it does not know, with the nearest that it does.

    Args:
        environment: Names and values; empty values count as not set.
        known: The names of all settings.

    """
    lines = []
    # Without the prefix: with it, any two names would be alike.
    by_ending = {each.removeprefix(PREFIX): each for each in known}
    long_names = [each for each in known if len(each) >= LEAST_LENGTH]
    for name, value in sorted(environment.items()):
        if not value or name in known or _is_of_service(name, value):
            continue
        has_prefix = name.upper().startswith(PREFIX)
        if has_prefix:
            near = difflib.get_close_matches(name.upper().removeprefix(PREFIX), by_ending, n=1)
            nearest = [by_ending[each] for each in near]
        else:
            nearest = difflib.get_close_matches(name.upper(), long_names, n=1, cutoff=LIKE_A_SETTING)
        if nearest:
            lines.append(f"{name} is ignored: there is no such setting; did you mean {nearest[0]}?")
        elif has_prefix:
            lines.append(f"{name} is ignored: there is no such setting; `mlflow-grpc serve --help` lists them")
    return lines


def _is_of_service(name: str, value: str) -> bool:
    return _OF_SERVICE.fullmatch(name) is not None or (name.endswith("_PORT") and _URL.match(value) is not None)
