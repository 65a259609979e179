"""The synchronous client."""

from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from mlflow_grpc_client.base import BaseClient, Call
from mlflow_grpc_client.options import TLS, CallOptions
from mlflow_grpc_client.payloads import to_json


class Client(BaseClient):
    """A connection to one server, for any number of calls from any number of threads.

    Connects at the first call. Calls that end in UNAVAILABLE are tried again up to four times, with
    growing pauses, within their deadline.
    """

    def __init__(
    ...
