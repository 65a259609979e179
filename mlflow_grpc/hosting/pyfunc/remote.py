"""The libraries that MLflow fetches models from object stores with, which come with extras of the server.

MLflow imports them when a URI wants them, and installs none of them itself.
"""

import re

from mlflow_grpc.distribution import install_source
from mlflow_grpc.hosting.error_text import chain, text_of

_EXTRA_BY_PACKAGE = {"boto3": "s3", "botocore": "s3", "google": "gs", "azure": "azure"}
"""By the top-level package that MLflow's artifact repositories for s3, gs, abfss and wasbs import."""

_AZURE = ("azure.identity", "azure.storage.blob", "azure.storage.filedatalake")
CLIENTS = {"s3": ("boto3",), "gs": ("google.cloud.storage",), "abfss": _AZURE, "wasbs": _AZURE}
"""By the scheme of a URI: the modules that MLflow's artifact repositories import when they are used."""

_FAILED_IMPORT = re.compile(r"No module named '([\w.]+)'|cannot import name '\w+' from '([\w.]+)'")


def missing_library(error: BaseException) -> str | None:
    """Which library a download failed for want of, and how to install it; None if it failed for another reason.

    Args:
        error: What MLflow raised; it may have wrapped the failed import, or have put its text into its own.

    """
    for each in chain(error):
        for match in _FAILED_IMPORT.finditer(text_of(each)):
            module = match[1] or match[2]
            extra = _EXTRA_BY_PACKAGE.get(module.partition(".")[0])
            if extra is not None:
                return (
                    f"MLflow needs the Python module {module} for it, which is not installed here and comes with the "
                    f"extra {extra}: pip install {install_source(extra)}"
                )
    return None
