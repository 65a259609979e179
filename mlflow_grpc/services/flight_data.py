"""FlightData messages of the server, from its own descriptors.

Rule of this module: `_mlflow_grpc_protocol.flight_data` reads and writes them.
"""

from typing import ClassVar

from _mlflow_grpc_protocol import flight_data as protocol
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from mlflow_grpc import protos

_MESSAGE = protos.message_named("arrow.flight.protocol.FlightData")


class FlightData(protocol.FlightData):
    """A message of an exchange."""

    MESSAGE: ClassVar[type[Message]] = _MESSAGE
    DESCRIPTOR: ClassVar[Descriptor] = _MESSAGE.DESCRIPTOR

    __slots__ = ()


def flight_data(header: bytes, body: bytes | memoryview, app_metadata: bytes) -> FlightData:
    """Makes a message of an answer."""
    return FlightData(_MESSAGE(data_header=header, app_metadata=app_metadata), body)
