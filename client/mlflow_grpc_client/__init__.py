"""Calls MLflow models that are served over gRPC.

    from mlflow_grpc_client import Client

    with Client("localhost:50051") as client:
        client.predict({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2.5]]}})

`AsyncClient` is the same for asyncio. Errors are `PredictError`s that carry the server's details.
"""

from mlflow_grpc_client._aio import AsyncClient
from mlflow_grpc_client._client import Client
from mlflow_grpc_client._ignored import IgnoredColumns
from mlflow_grpc_client._models import Model
from mlflow_grpc_client._options import TLS, CallOptions
from mlflow_grpc_client._reflection import ProtoFile
from mlflow_grpc_client._streams import Answers, AsyncAnswers
from mlflow_grpc_client._token import TokenFile
from mlflow_grpc_client._typed.model import AsyncTypedModel, TypedModel
from mlflow_grpc_client.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidInput,
    ModelError,
    PermissionDenied,
    PredictError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

__version__ = "0.2.0"

__all__ = [
    "TLS",
    "Answers",
    "AsyncAnswers",
    "AsyncClient",
    "AsyncTypedModel",
    "CallOptions",
    "Client",
    "DeadlineExceeded",
    "FieldViolation",
    "IgnoredColumns",
    "InvalidInput",
    "Model",
    "ModelError",
    "PermissionDenied",
    "PredictError",
    "ProtoFile",
    "ResourceExhausted",
    "TokenFile",
    "TypedModel",
    "Unauthenticated",
    "Unavailable",
]
