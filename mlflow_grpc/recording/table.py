"""Recorded calls as a table for MLflow's evaluation, with a row for each row of their inputs.

Rule of this module: a file with a row for each call is for everybody; this table is for models of tables.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_grpc.errors import StartError

if TYPE_CHECKING:
    import pandas as pd

PREDICTION, CALL_COLUMNS = "prediction", ("request_id", "started_at", "version")
"""Column of the predictions, and columns of the call in each of its rows."""


def evaluation_table(directory: str | os.PathLike[str], model: str | None = None) -> "pd.DataFrame":
    """Returns the rows of all recorded calls that were answered, with the columns of the model's input.

    The other columns are `prediction`, and `request_id`, `started_at` and `version` of the call. Calls whose input is
    no table, such as chats, are left out, and those whose answer does not have a value for each row.

        table = evaluation_table("recorded")
        mlflow.data.from_pandas(table, predictions="prediction")

    Args:
        directory: The directory of the files, or one of them.
        model: Name of the model; not needed if there is only one.

    Raises:
        StartError: There are no recorded calls, or those of several models.
        ValueError: A column of the input is called like one of the other columns.

    """
    import pandas as pd

    from mlflow_grpc.payload.recorded_text import table_of
    from mlflow_grpc.recording.reading import calls_of

    tables = []
    for call in calls_of(Path(directory), model):
        if call.status != "OK" or call.input is None or call.output is None:
            continue
        table = table_of(call.input, call.content_type)
        predictions = _predictions(call.output)
        if table is None or predictions is None or len(predictions) != len(table):
            continue
        if clash := {PREDICTION, *CALL_COLUMNS} & set(table.columns):
            raise ValueError(
                f"the model has a column {min(map(str, clash))}, and so has the table of recorded calls: read the "
                "files with pandas.read_parquet instead"
            )
        table[PREDICTION] = predictions
        for name in CALL_COLUMNS:
            table[name] = getattr(call, name)
        tables.append(table)
    if not tables:
        raise StartError(f"{directory} has no recorded calls with tables and their predictions")
    return pd.concat(tables, ignore_index=True)


def _predictions(output: str) -> list[Any] | None:
    """Returns the predictions of an answer; None if it is not a list of them."""
    try:
        answer = json.loads(output)
    except ValueError:
        return None
    predictions = answer.get("predictions") if isinstance(answer, dict) else answer
    return predictions if isinstance(predictions, list) else None
