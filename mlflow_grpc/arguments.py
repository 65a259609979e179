"""Settings as the command line that gives them."""

import json
from typing import Any

from mlflow_grpc import declarations
from mlflow_grpc.settings import Settings


def arguments_of(flags: dict[str, Any]) -> list[str]:
    """The arguments of `mlflow-grpc serve` that give these values, by field name."""
    made = []
    for name, value in flags.items():
        flag = declarations.flag(Settings.model_fields[name])
        if flag.off and value in (True, False):
            made.append(flag.names[0] if value else flag.off)
        else:
            made.append(f"{flag.names[-1]}={json.dumps(value) if isinstance(value, dict) else value}")
    return made
