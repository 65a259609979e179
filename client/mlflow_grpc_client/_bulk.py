"""A served model as a step of a batch job: any number of rows, in calls that a fleet has room for.

Rule of this module: it knows no engine. `spark` and `ray_data` are the steps of an engine each; both call `BulkModel`.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from _mlflow_grpc_protocol.shapes import FieldShape
from _mlflow_grpc_protocol.typed_terms import RpcKind

from mlflow_grpc_client._client import Client
from mlflow_grpc_client._connection.targets import Addresses
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client.errors import PredictError, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from typing_extensions import Self

ROWS_PER_CALL = 10_000
"""Default number of rows of a call. More per call are hardly faster, and hold up the server's other callers longer."""

RETRY_FOR_S = 300.0
"""Default time for which a call is repeated while servers are overloaded or restart, in seconds."""

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0
"""Pauses between the repetitions of a call in seconds; each is twice as long as the one before."""

ResultT = TypeVar("ResultT")

_OVERLOADED = "REQUEST_LIMIT_EXCEEDED"
"""The reason of a refusal by an overloaded server. Others of the same status are messages over a limit."""


@dataclass(frozen=True)
class BulkOptions:
    """The options of a step of a batch job, which are sent to the processes that call."""

    address: Addresses
    model: str = ""
    params: Mapping[str, Any] | None = None
    rows_per_call: int = ROWS_PER_CALL
    retry_for_s: float = RETRY_FOR_S
    client_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # They may have a token.

    def __post_init__(self) -> None:
        """Checks the numbers; the client checks the others."""
        if self.rows_per_call < 1:
            raise ValueError(f"rows_per_call is at least 1; not {self.rows_per_call!r}")
        if not self.retry_for_s >= 0:
            raise ValueError(f"retry_for_s is a number of seconds, 0 or more; not {self.retry_for_s!r}")


class BulkModel:
    """A model of a fleet, called with many rows. It has a client of its own, to be closed."""

    def __init__(self, options: BulkOptions, turn: AbstractContextManager[Any] | None = None) -> None:
        """Takes options; the first call connects.

        Args:
            options: The fleet, the model and the limits.
            turn: Entered for each call, and left after it: a limit on calls at a time.

        """
        self._options = options
        self._turn = turn or contextlib.nullcontext()
        self._client = Client(options.address, **options.client_options)
        self._model = self._client.model(options.model)
        self._contract: Contract | None = None

    def contract(self) -> Contract:
        """The types of the model, fetched at the first use.

        Raises:
            PredictError: There is no such model, it takes no rows, or no server answered in time.

        """
        if self._contract is None:
            contract = self._repeat(self._model.contract)
            output_fields(contract)
            self._contract = contract
        return self._contract

    def predict(self, rows: Any) -> dict[str, Any]:
        """Returns the answers to rows in their order, as the columns of `TypedModel.predict_columns`.

        Args:
            rows: A DataFrame, an array or a list.

        Raises:
            PredictError: The model refuses the rows, or no server answered in time.
            ValueError: The number of answers is not that of the rows, so that they do not belong together.

        """
        labels = [output.label for output in output_fields(self.contract())]
        answers: list[dict[str, Any]] = []
        for start in range(0, len(rows), self._options.rows_per_call):
            call_rows = rows[start : start + self._options.rows_per_call]
            columns = self._repeat(lambda: self._predict(call_rows))  # noqa: B023 - called at once
            for values in columns.values():
                if len(values) != len(call_rows):
                    raise ValueError(
                        f"the model {self._model.name or '(the default)'} gave {len(values)} answers to "
                        f"{len(call_rows)} rows: a job can only use models with an answer for each row"
                    )
            answers.append(columns)
        return {label: _joined([columns[label] for columns in answers]) for label in labels}

    def _predict(self, rows: Any) -> dict[str, Any]:
        with self._turn:
            return self._model.predict_columns(rows, params=self._options.params)

    def _repeat(self, call: Callable[[], ResultT]) -> ResultT:
        """The result of a call, which is repeated while a fleet has no room or no server for it.

        gRPC repeats a call a few times by itself, with the pauses that an overloaded server sends. A job can wait
        longer than the callers for whom those times were chosen.
        """
        until, pause_s = time.monotonic() + self._options.retry_for_s, FIRST_PAUSE_S
        while True:
            try:
                return call()
            except PredictError as error:
                if not self._is_temporary(error) or time.monotonic() + pause_s > until:
                    raise
            # At random, so that the processes of a job do not come back at the same time.
            time.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    @staticmethod
    def _is_temporary(error: PredictError) -> bool:
        if isinstance(error, ResourceExhausted):
            return error.reason == _OVERLOADED
        return isinstance(error, Unavailable)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _joined(parts: list[Any]) -> Any:
    """The values of a column of several calls: an array if all of them are, else a list."""
    if len(parts) == 1:
        return parts[0]
    if parts and all(isinstance(part, np.ndarray) for part in parts):
        has_nulls = any(map(np.ma.is_masked, parts))
        return np.ma.concatenate(parts) if has_nulls else np.concatenate(parts)  # type: ignore[no-untyped-call]
    return [value for part in parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]


def values_of(column: Any) -> list[Any]:
    """The values of a column of answers as Python objects, None for a row without one."""
    values: list[Any] = column.tolist() if isinstance(column, np.ndarray) else column
    return values


def is_plain(column: Any) -> bool:
    """Returns True for a column that is an array with a number or boolean for each row."""
    return isinstance(column, np.ndarray) and column.ndim == 1 and not np.ma.is_masked(column)


def input_fields(contract: Contract) -> list[FieldShape]:
    """The columns of a row."""
    return contract.row.fields


def output_fields(contract: Contract) -> list[FieldShape]:
    """The columns of the answers to rows, with the cardinality that they have in a batch.

    Raises:
        PredictError: The model takes no rows.

    """
    return contract.rpc(RpcKind.BATCH).response.fields


def contract_of(options: BulkOptions) -> Contract:
    """The types of a model, without the repetitions that a job can wait for.

    Raises:
        PredictError: There is no such model, it takes no rows, or no server answers.

    """
    with BulkModel(replace(options, retry_for_s=0)) as described:
        return described.contract()
