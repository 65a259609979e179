"""Compatibility of a new version of a model with the clients of an earlier version.

Rule of this module: it compares two locks and uses nothing else. A change is compatible if every value that an old
client sends or reads keeps its meaning: none is lost, invented or mistaken for another without an error.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mlflow_grpc.contract.lockfile.format import LockedField, LockedMessage, LockedModel


class Side(StrEnum):
    """The direction of the messages that a change affects."""

    CALLS = "calls"
    ANSWERS = "answers"


@dataclass(frozen=True)
class Change:
    """A difference between two versions."""

    side: Side
    path: str
    """The column, field or enum value: `input.part.weight`."""
    description: str
    breaks: bool
    """True if calls of old clients are refused or misunderstood, or their answers cannot be read."""

    def __str__(self) -> str:
        return f"{self.path}: {self.description}"


@dataclass(frozen=True)
class Verdict:
    """The result of comparing a model with its lock."""

    lock_key: str
    changes: tuple[Change, ...] = ()
    source: str = ""
    """The lock file; empty if no lock knows the model."""

    @property
    def breaking(self) -> list[Change]:
        """The changes that break old clients."""
        return [change for change in self.changes if change.breaks]

    def __str__(self) -> str:
        if not self.source:
            return f"{self.lock_key}: new: no lock knows it"
        sides = {change.side for change in self.breaking}
        calls = f"calls of old clients are {'not ' * (Side.CALLS in sides)}taken"
        answers = f"their answers are {'not ' * (Side.ANSWERS in sides)}read"
        head = f"{self.lock_key}: {'in' * bool(sides)}compatible: {calls}, {answers}"
        return "\n".join([head, *(f"  {'breaks' if change.breaks else 'fine'}: {change}" for change in self.changes)])

    @property
    def refusal(self) -> str:
        """The error text for a model that is not served: the breaking changes, then what to do."""
        listed = "; ".join(map(str, self.breaking))
        return (
            f"{self.lock_key} is incompatible with old clients, according to the lock {self.source}: {listed}. Serve a "
            "version that takes their calls; or take the change into the lock with `mlflow-grpc proto --lock FILE` "
            "and give clients the new .proto; or serve it anyway with --allow-incompatible"
        )


def changes(old: LockedModel, new: LockedModel) -> list[Change]:
    """Lists the differences between two versions of a model.

    Args:
        old: The lock of the earlier version.
        new: The lock of the later version, with the numbers of the earlier one.

    """
    comparison = _Comparison(old, new)
    return [
        *_rpc_changes(old, new),
        *comparison.compare(old.input, new.input, "input", Side.CALLS),
        *comparison.compare(old.output, new.output, "output", Side.ANSWERS),
        *comparison.compare(old.chunk, new.chunk, "chunk", Side.ANSWERS),
    ]


def _rpc_changes(old: LockedModel, new: LockedModel) -> Iterator[Change]:
    """RPCs that were removed or added; none if the old lock does not record RPCs."""
    for rpc in old.rpcs:
        if rpc not in new.rpcs:
            yield Change(Side.CALLS, rpc, "removed: old clients cannot call it", True)
    for rpc in new.rpcs if old.rpcs else ():
        if rpc not in old.rpcs:
            yield Change(Side.CALLS, rpc, "added: old clients do not call it", False)


class _Comparison:
    """A walk through all messages of calls and answers."""

    def __init__(self, old: LockedModel, new: LockedModel) -> None:
        self._old, self._new = old.messages, new.messages
        # The message whose fields are columns of rows too. A lock that does not record RPCs may have the one for rows.
        self._row_role = old.input if not old.rpcs or "predict_batch" in old.rpcs else None
        self._visited: set[tuple[str, str, Side]] = set()

    def compare(self, old_role: str, new_role: str, path: str, side: Side) -> Iterator[Change]:
        """Compares a message or enum, and the messages in its fields."""
        visit = (old_role, new_role, side)
        if visit in self._visited or old_role not in self._old or new_role not in self._new:
            return
        self._visited.add(visit)
        old, new = self._old[old_role], self._new[new_role]
        for key, before in old.fields.items():
            after = new.fields.get(key)
            # A wrapper is not in the model, so its field is not in the path.
            field_path = path if old.message_kind == "wrapper" else f"{path}.{key}"
            if after is None:
                yield _removal(old, before, field_path, side)
            elif before.type != after.type:
                text = f"was {before.type}, is {after.type}: another number, and {_LOSS[side]}"
                yield Change(side, field_path, text, True)
            else:
                is_column = side is Side.CALLS and old_role == self._row_role
                for text, breaks in _differences(before, after, side, is_column=is_column):
                    yield Change(side, field_path, text, breaks)
                yield from self.compare(before.role, after.role, field_path, side)
        for key, after in new.fields.items():
            if key not in old.fields:
                yield _addition(new, after, f"{path}.{key}", side)


_LOSS = {
    Side.CALLS: "what old clients send there would be lost",
    Side.ANSWERS: "old clients would find nothing there",
}


def _removal(message: LockedMessage, field: LockedField, path: str, side: Side) -> Change:
    if message.message_kind not in ("enum", "union"):
        return Change(side, path, f"removed{', and it was required' * field.required}: {_LOSS[side]}", True)
    if side is Side.CALLS:
        return Change(side, path, "removed: old clients may send it", True)
    return Change(side, path, "removed: no answer has it", False)


def _addition(message: LockedMessage, field: LockedField, path: str, side: Side) -> Change:
    if side is Side.CALLS:
        if field.needs_value:
            return Change(side, path, "added and required: old clients do not send it", True)
        return Change(side, path, "added: old clients leave it out", False)
    if message.message_kind in ("enum", "union"):
        return Change(side, path, "added: old clients do not know it and cannot read it", True)
    return Change(side, path, "added: old clients do not see it", False)


def _differences(old: LockedField, new: LockedField, side: Side, *, is_column: bool) -> Iterator[tuple[str, bool]]:
    """Differences between two fields of the same type, and whether each breaks old clients.

    Args:
        old: The field in the earlier version.
        new: The field in the later version.
        side: Direction of the messages.
        is_column: True if rows have the field too.

    """
    if side is Side.CALLS and old.needs_value != new.needs_value:
        # A list or map without presence is empty if it is left out, required or not. An optional column of rows is
        # different: its nulls field may name rows. The required column has no such field, and its fillers would count.
        if is_column or not new.is_repeated_or_map:
            yield ("required now: old clients may leave it out", True) if new.needs_value else ("optional now", False)
    elif side is Side.CALLS and _absence_becomes_null(old, new):
        yield "means null now if it is left out: it meant the default", True
    elif side is Side.CALLS and _absence_becomes_null(new, old):
        yield "means the default now if it is left out: it meant null", True
    if side is Side.ANSWERS and old.nullable != new.nullable:
        if new.nullable:
            yield "may be absent now: old clients would read zero, or nothing", True
        else:
            yield "is always there now", False
    if old.detail != new.detail:
        # Calls may become less strict, and answers stricter.
        fits = _fits(old.detail, new.detail) if side is Side.CALLS else _fits(new.detail, old.detail)
        yield f"was {old.detail or 'any text'}, is {new.detail or 'any text'}", not fits


def _absence_becomes_null(old: LockedField, new: LockedField) -> bool:
    """Returns True if a field that is left out means its default in the old version and null in the new one."""
    return not (old.required or old.nullable) and new.required and new.nullable


def _fits(narrow: str, wide: str) -> bool:
    """Returns True if a format or tensor allows every value that another one allows."""
    if not wide:
        return True  # A date is also text, for example.
    (dtype, bits, sizes), (wide_dtype, wide_bits, wide_sizes) = _parse_detail(narrow), _parse_detail(wide)
    if not sizes or not wide_sizes or dtype != wide_dtype or bits > wide_bits:
        return False
    inner, outer = sizes.strip("[]").split(", "), wide_sizes.strip("[]").split(", ")
    return len(inner) == len(outer) and all(w in ("-1", n) for n, w in zip(inner, outer, strict=True))


def _parse_detail(detail: str) -> tuple[str, int, str]:
    """Dtype without its bits, bits, and shape, of `float32 [-1, 2]`; the format of a string has no shape."""
    match = re.fullmatch(r"(\D*)(\d*) (\[.*\])", detail)
    if match is None:
        return detail, 0, ""
    if match[1] in ("int", "uint", "float", "bool"):
        return match[1], int(match[2] or 0), match[3]
    return "string", 0, match[3]  # str, object and strings of a length are the same on the wire.
