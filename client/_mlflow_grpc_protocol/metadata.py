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

VERSION_KEY = "mlflow-model-version"
"""The version of the model that answered, in trailers, for models that have one."""
