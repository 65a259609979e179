"""The OpenAPI document of a configuration's models, for `mlflow-grpc openapi`.

Rule of this module: it makes the document in the same way as a server, and serves nothing.
"""

import json

from mlflow_grpc.config import Configuration
from mlflow_grpc.engine import loading
from mlflow_grpc.http.openapi.document import document_of
from mlflow_grpc.settings import Settings


def openapi_text(settings: Settings, configuration: Configuration) -> str:
    """Loads the models and returns their document as JSON; raises StartError if a model cannot be loaded."""
    catalog = loading.load_all(configuration, settings)
    return json.dumps(document_of(catalog, configuration.service), indent=2) + "\n"
