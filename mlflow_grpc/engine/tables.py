"""Arrow tables for a loaded model.

Rule of this module: pyarrow is imported at the first call with a table, in a thread, because that takes a while.
"""

import importlib
import sys
from functools import partial
from typing import TYPE_CHECKING

from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine.servable import ServableModel

if TYPE_CHECKING:
    from mlflow_grpc.payload.arrow.model import TableModel

_MODULE = "mlflow_grpc.payload.arrow.model"


async def table_model(servable: ServableModel, max_message_bytes: int) -> "TableModel":
    """Returns what tables need to know about a model.

    Args:
        servable: The model.
        max_message_bytes: Maximum size of a message, in bytes.

    """
    if _MODULE not in sys.modules:
        await in_daemon_thread(partial(importlib.import_module, _MODULE), "import-arrow")
    from mlflow_grpc.payload.arrow.model import TableModel

    return TableModel(
        servable.codec,
        servable.model.info.contract,
        max_message_bytes,
        has_hook=servable.preprocess is not None,
    )
