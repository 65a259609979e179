"""Client libraries with which MLflow fetches models from object stores; extras of the server install them.

MLflow imports them when a URI needs them, but does not depend on them.
"""

import re

from mlflow_grpc.distribution import install_source
from mlflow_grpc.hosting.error_text import chain, text_of

_EXTRA_BY_PACKAGE = {"boto3": "s3", "botocore": "s3", "google": "gs", "azure": "azure"}
"""Extra of the server, by the top-level package that MLflow's artifact repository imports."""

_AZURE = ("azure.identity", "azure.storage.blob", "azure.storage.filedatalake")
CLIENTS = {"s3": ("boto3",), "gs": ("google.cloud.storage",), "abfss": _AZURE, "wasbs": _AZURE}
"""Modules that MLflow's artifact repository imports when it is used, by the scheme of the URI."""

_FAILED_IMPORT = re.compile(r"No module named '([\w.]+)'|cannot import name '\w+' from '([\w.]+)'")


def missing_library(error: BaseException) -> str | None:
    """Returns a message with the library that a download lacks and how to install it; None for other failures.

    Args:
        error: The exception that MLflow raised, which may wrap the failed import or quote its text.

    """
    for cause in chain(error):
        for match in _FAILED_IMPORT.finditer(text_of(cause)):
            module = match[1] or match[2]
            extra = _EXTRA_BY_PACKAGE.get(module.partition(".")[0])
            if extra is not None:
                return (
                    f"MLflow needs the Python module {module} for it, which is not installed here and comes with the "
                    f"extra {extra}: pip install {install_source(extra)}"
                )
    return None
