"""Terms of a model's typed messages and RPCs."""

from enum import Enum, auto


class Cardinality(Enum):
    """How many values a field holds, in protobuf's terms."""

    SINGULAR = auto()
    REPEATED = auto()
    MAP = auto()


class RpcKind(str, Enum):
    """What an RPC does for a model. The value is the last part of the RPC's name."""

    ONE = "predict"
    BATCH = "predict_batch"
    MANY = "predict_many"
    STREAM = "predict_stream"

    def __str__(self) -> str:
        """Returns the last part of the RPC's name, in every version of Python."""
        return self.value
