"""The work of one batch: decode its requests, predict their rows together, encode the answers.

Rule of this module: synchronous functions that know nothing of queues, threads and the event loop. Batching never
shows: each request gets the answer that it would get alone. A group that fails, or whose predictions do not match its
rows, is bisected until the requests at fault are alone. These are handed back, because only the checked way (see
`mlflow_grpc.engine.answer`) finds out what is wrong with them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from mlflow_grpc.engine.answer import decode_rows, encode_rows
from mlflow_grpc.engine.progress import PredictTimer
from mlflow_grpc.engine.requests import Request
from mlflow_grpc.engine.servable import ServableModel

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock


class BatchItem(Protocol):
    """A request and whether its caller still waits for it."""

    @property
    def request(self) -> Request[object]:
        """The request."""
        ...

    def is_waiting(self) -> bool:
        """Returns False once the caller has left or its deadline has passed."""
        ...


ItemT = TypeVar("ItemT", bound=BatchItem)


@dataclass(slots=True)
class BatchResult(Generic[ItemT]):
    """Outcome of a batch. Items whose callers stopped waiting are in neither list."""

    answers: list[tuple[ItemT, object]]
    unbatched: list[ItemT]
    """Items that have to be answered one by one, with all checks."""
    groups: list[tuple[int, int]] = field(default_factory=list)
    """Numbers of items and rows that were predicted together, for each group that was answered."""


@dataclass(slots=True)
class DecodedBatch(Generic[ItemT]):
    """Items with their rows, and the items that are no plain rows."""

    rows: "list[tuple[ItemT, RowBlock]]"
    unbatched: list[ItemT]


def run_batch(items: Sequence[ItemT], model: ServableModel, max_rows: int) -> BatchResult[ItemT]:
    """Answers items together, in groups of at most `max_rows` rows; a larger request makes up a group of its own."""
    decoded = decode_batch(items, model)
    result: BatchResult[ItemT] = BatchResult([], decoded.unbatched)
    for group in _groups(decoded.rows, max_rows):
        _predict_or_bisect(group, model, result)
    return result


def decode_batch(items: Sequence[ItemT], model: ServableModel) -> DecodedBatch[ItemT]:
    """Decodes items one after the other: in one go this takes a fraction of the time."""
    decoded: DecodedBatch[ItemT] = DecodedBatch([], [])
    for item in items:
        if not item.is_waiting():
            continue
        try:
            rows = decode_rows(item.request, model)
        except Exception:  # noqa: BLE001 - raised again when the item is answered by itself
            rows = None
        if rows is None:
            decoded.unbatched.append(item)
        else:
            decoded.rows.append((item, rows))
    return decoded


def predict_group(group: "Sequence[tuple[ItemT, RowBlock]]", model: ServableModel) -> list[tuple[ItemT, object]] | None:
    """Predicts all rows of a group in one call of the model; None if that fails or the rows cannot be assigned."""
    fast_path = model.fast_path
    if fast_path is None or fast_path.runner is None:
        return None
    try:
        with PredictTimer([item.request.progress for item, _ in group]):
            predictions = fast_path.runner.predict([rows for _, rows in group])
        answers = [
            (item, encode_rows(item.request, model, predicted))
            for (item, _), predicted in zip(group, predictions, strict=True)
        ]
    except BaseException:  # noqa: BLE001 - raised again when the request at fault is answered by itself
        return None
    for item, _ in group:
        item.request.progress.is_batched = True
    return answers


def size_of(group: "Sequence[tuple[ItemT, RowBlock]]") -> tuple[int, int]:
    """Returns the number of items of a group and the number of their rows."""
    return len(group), sum(rows.count for _, rows in group)


def _predict_or_bisect(group: "list[tuple[ItemT, RowBlock]]", model: ServableModel, result: BatchResult[ItemT]) -> None:
    group = [(item, rows) for item, rows in group if item.is_waiting()]
    if not group:
        return
    answers = predict_group(group, model)
    if answers is not None:
        result.answers += answers
        result.groups.append(size_of(group))
    elif len(group) == 1:
        result.unbatched.append(group[0][0])
    else:
        half = len(group) // 2
        _predict_or_bisect(group[:half], model, result)
        _predict_or_bisect(group[half:], model, result)


def _groups(decoded: "list[tuple[ItemT, RowBlock]]", max_rows: int) -> "Iterator[list[tuple[ItemT, RowBlock]]]":
    group: list[tuple[ItemT, RowBlock]] = []
    room = max_rows
    for item, rows in decoded:
        if group and rows.count > room:
            yield group
            group, room = [], max_rows
        group.append((item, rows))
        room -= rows.count
    if group:
        yield group
