"""Metadata keys of calls and trailers."""

CONTENT_TYPE_KEY = "mlflow-content-type"
"""The format of a payload, in a call; JSON by default."""

MODEL_KEY = "mlflow-model"
"""The model of a call: `name` or `name/version`."""

CONTRACT_KEY = "mlflow-contract"
"""The fingerprint of the messages that a client knows, in a typed call."""

REQUEST_ID_KEY = "x-request-id"
"""The id of a call, in the call and in its trailers."""

SERVER_TIMING_KEY = "server-timing"
"""Asks for the times of a call if it is 1, and has them in trailers, as in W3C Server Timing."""

IGNORED_KEY = "mlflow-ignored-columns"
"""The columns and params that the model ignored, in trailers."""

AUTHORIZATION_KEY = "authorization"
"""The token of the caller, in a call: `Bearer TOKEN` (RFC 6750)."""

TOKEN_VARIABLE, TOKEN_FILE_VARIABLE = "MLFLOW_GRPC_TOKEN", "MLFLOW_GRPC_TOKEN_FILE"
"""Environment variables of clients with a token, and with the file of one."""

TOKEN_OVER_PLAINTEXT_VARIABLE = "MLFLOW_GRPC_TOKEN_OVER_PLAINTEXT"  # noqa: S105 - a name
"""Environment variable of clients that lets a token be sent without encryption, if it is 1."""

VERSION_KEY = "mlflow-model-version"
"""The version of the model that answered, in trailers, for models that have one."""
