"""Settings as arguments of the command line."""

import json
from typing import Any

from mlflow_grpc import declarations
from mlflow_grpc.settings import Settings


def arguments_of(flags: dict[str, Any]) -> list[str]:
    """Returns the arguments of `mlflow-grpc serve` for values by field name."""
    arguments = []
    for name, value in flags.items():
        flag = declarations.flag(Settings.model_fields[name])
        if flag.off and value in (True, False):
            arguments.append(flag.names[0] if value else flag.off)
        else:
            arguments.append(f"{flag.names[-1]}={json.dumps(value) if isinstance(value, dict) else value}")
    return arguments
