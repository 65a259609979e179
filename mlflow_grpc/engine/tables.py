"""Arrow tables for a loaded model.

Rule of this module: pyarrow is imported at the first call with a table, in a thread, because that takes a while. What
takes long in proportion to a payload runs in a thread, too.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine.servable import ServableModel

if TYPE_CHECKING:
    from mlflow_grpc.payload.arrow.model import TableModel

MAX_INLINE_BYTES = 8_192
"""Size of a payload above which a thread reads it, in bytes. A header of this size has some 170 columns, which take the
event loop 1 to 2 ms."""

ResultT = TypeVar("ResultT")


async def table_model(servable: ServableModel, max_message_bytes: int) -> "TableModel":
    """Returns what tables need to know about a model, which is made at the first call.

    Args:
        servable: The model.
        max_message_bytes: Maximum size of a message, in bytes.

    """
    known = servable.table_models
    if max_message_bytes not in known:
        known[max_message_bytes] = await in_daemon_thread(partial(_made, servable, max_message_bytes), "prepare-arrow")
    return known[max_message_bytes]


def _made(servable: ServableModel, max_message_bytes: int) -> "TableModel":
    from mlflow_grpc.payload.arrow.model import TableModel

    return TableModel(
        servable.codec,
        servable.model.info.contract,
        max_message_bytes,
        has_hook=servable.preprocess is not None,
    )


async def read(function: Callable[[], ResultT], size: int) -> ResultT:
    """Returns the result of a function that reads a payload; a thread runs it if the payload is large.

    Args:
        function: Reads the payload.
        size: Size of the payload, in bytes.

    """
    return function() if size <= MAX_INLINE_BYTES else await in_daemon_thread(function, "read-arrow")
