"""Predictions in a Ray Dataset, from a model of a served fleet.

    from mlflow_grpc_client.ray_data import Predictor

    dataset.map_batches(Predictor, fn_constructor_args=("grpc://models.example:50051", "iris"), concurrency=4)

The actors need this package, and neither MLflow nor the model with its environment. An actor has one call in flight, so
that `concurrency` limits those of a job. Rule of this module: it imports no Ray; calls of a model are in `_bulk`.
"""

from collections.abc import Mapping
from typing import Any

try:
    import numpy as np
    import pandas as pd
except ModuleNotFoundError as error:
    from _mlflow_grpc_protocol.install_sources import CLIENT, install_argument

    missing = str(error.name).partition(".")[0]
    raise ModuleNotFoundError(
        f"mlflow_grpc_client.ray_data needs {missing}: pip install {install_argument(CLIENT, 'ray-data')}", name=missing
    ) from None

from mlflow_grpc_client._bulk import (
    RETRY_FOR_S,
    ROWS_PER_CALL,
    BulkModel,
    BulkOptions,
    input_fields,
    is_plain,
    values_of,
)
from mlflow_grpc_client._connection.targets import Addresses


class Predictor:
    """Adds columns of predictions to batches. Given to `map_batches` as a class, for Ray to create it in each actor."""

    def __init__(
        self,
        address: Addresses,
        model: str = "",
        *,
        output: str = "prediction",
        params: Mapping[str, Any] | None = None,
        rows_per_call: int = ROWS_PER_CALL,
        retry_for_s: float = RETRY_FOR_S,
        **client_options: Any,
    ) -> None:
        """Takes a fleet and a model; the first batch connects.

        Args:
            address: The fleet, as in `Client`.
            model: `name` or `name/version`; empty for the default model.
            output: The column of the predictions of a model with one output. Several outputs have their own names.
            params: Params of the model.
            rows_per_call: Maximum number of rows of a call.
            retry_for_s: The time for which a call is repeated while servers are overloaded, away or restarting, in
                seconds.
            client_options: Further options of `Client`, such as `timeout_s`, `tls` and `token`.

        Raises:
            ValueError: An option is invalid.
            TypeError: An option is invalid.

        """
        self._served = BulkModel(BulkOptions(address, model, params, rows_per_call, retry_for_s, client_options))
        self._output = output

    def __call__(self, batch: Any) -> Any:
        """Returns a batch with its predictions in further columns.

        Args:
            batch: A dict of arrays (`batch_format="numpy"`, Ray's default) or a DataFrame (`batch_format="pandas"`).
                Columns that are not inputs of the model are kept, and not sent.

        Raises:
            PredictError: There is no such model, it refuses the rows, or no server answered in time.
            TypeError: The batch is neither of these.
            ValueError: The batch already has a column of the name of an output, or the model does not give an answer
                for each row.

        """
        if not isinstance(batch, dict | pd.DataFrame):
            raise TypeError(
                f"a batch is a dict of arrays or a DataFrame, not {type(batch).__name__}: leave batch_format out, or "
                "set it to 'numpy' or 'pandas'"
            )
        answers = self._served.predict(self._rows(batch))
        columns = {self._output if len(answers) == 1 else name: _array(values) for name, values in answers.items()}
        if taken := [name for name in columns if name in batch]:
            raise ValueError(f"the batch already has a column {taken[0]!r}: rename it, or select another output")
        return batch.assign(**columns) if isinstance(batch, pd.DataFrame) else {**batch, **columns}

    def _rows(self, batch: Any) -> Any:
        """The inputs of the model in a batch: a DataFrame, or the values of a sole input without a name."""
        inputs = input_fields(self._served.contract())
        known = {name for column in inputs for name in (column.model_name, column.name)}
        if not all(column.model_name for column in inputs):
            if len(batch.keys()) != len(inputs):
                raise TypeError(
                    f"the {len(inputs)} inputs of the model have no names, and the batch has the columns "
                    f"{', '.join(map(str, batch.keys()))}: select the inputs, in the model's order"
                )
            columns = [_values(batch[name]) for name in batch]
            return columns[0] if len(columns) == 1 else pd.DataFrame(dict(enumerate(columns)))
        return pd.DataFrame({name: _values(batch[name]) for name in batch if name in known})


def _values(column: Any) -> Any:
    """The values of a column, one for each row: an array of several dimensions as a list of arrays."""
    return list(column) if getattr(column, "ndim", 1) > 1 else column


def _array(column: Any) -> Any:
    """An array of answers, whose dtype is object for nulls, texts, lists and dicts."""
    if is_plain(column):
        return column
    values = values_of(column)
    if any(value is None or not isinstance(value, bool | int | float) for value in values):
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    return np.asarray(values)
