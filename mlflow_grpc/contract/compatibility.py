"""Whether a new version of a model can take the calls of clients that were made for the version before.

Rule of this module: two locks in, words and a verdict out. What decides is one thing: no value may be lost, made up or
taken for another without a word, neither one that an old client sends nor one that it reads.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mlflow_grpc.contract.lock import Member, Members, ModelLock, named


class Side(StrEnum):
    """What a change is seen in."""

    CALLS = "calls"
    ANSWERS = "answers"


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was."""

    side: Side
    place: str
    """Which column, field or word: `input.part.weight`."""
    what: str
    breaks: bool
    """Whether calls of old clients are not taken as they were meant, or answers not read."""

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass(frozen=True)
class Verdict:
    """The result of comparing a model with its lock."""

    label: str
    changes: tuple[Change, ...] = ()
    source: str = ""
    """The lock file; empty if no lock knows the model."""

    @property
    def breaking(self) -> list[Change]:
        """The changes that break old clients."""
        return [change for change in self.changes if change.breaks]

    def __str__(self) -> str:
        if not self.source:
            return f"{self.label}: new: no lock knows it"
        sides = {change.side for change in self.breaking}
        calls = f"calls of old clients are {'not ' * (Side.CALLS in sides)}taken"
        answers = f"their answers are {'not ' * (Side.ANSWERS in sides)}read"
        head = f"{self.label}: {'in' * bool(sides)}compatible: {calls}, {answers}"
        return "\n".join([head, *(f"  {'breaks' if change.breaks else 'fine'}: {change}" for change in self.changes)])

    @property
    def refusal(self) -> str:
        """The error text for a model that is not served: the breaking changes, then what to do."""
        listed = "; ".join(map(str, self.breaking))
        return (
            f"{self.label} is incompatible with old clients, going by the lock {self.source}: {listed}. Serve a "
            "version that takes their calls; or take the change into the lock with `mlflow-grpc proto --lock FILE` "
            "and give clients the new .proto; or serve it all the same with --allow-incompatible"
        )


def changes(old: ModelLock, new: ModelLock) -> list[Change]:
    """What differs for clients between two versions of a model; the new one has its numbers from the old one's lock."""
    comparison = _Comparison(old, new)
    return [
        *_rpcs(old, new),
        *comparison.message(old.input, new.input, "input", Side.CALLS),
        *comparison.message(old.output, new.output, "output", Side.ANSWERS),
        *comparison.message(old.chunk, new.chunk, "chunk", Side.ANSWERS),
    ]


def _rpcs(old: ModelLock, new: ModelLock) -> Iterator[Change]:
    """RPCs that are not there any more, or not yet; nothing is known of those of a lock that does not tell."""
    for kind in old.rpcs:
        if kind not in new.rpcs:
            yield Change(Side.CALLS, kind, "the model has this RPC no more", True)
    for kind in new.rpcs if old.rpcs else ():
        if kind not in old.rpcs:
            yield Change(Side.CALLS, kind, "added: old clients do not call it", False)


class _Comparison:
    """Goes through all that calls and answers can hold."""

    def __init__(self, old: ModelLock, new: ModelLock) -> None:
        self._old, self._new = old.messages, new.messages
        # The columns of rows: a lock that does not tell of RPCs may have been of a model that takes them.
        self._columns = old.input if not old.rpcs or "predict_batch" in old.rpcs else None
        self._seen: set[tuple[str, str, Side]] = set()

    def message(self, old_role: str, new_role: str, place: str, side: Side) -> Iterator[Change]:
        """Changes of a message or enum, and of what it holds."""
        if (old_role, new_role, side) in self._seen or old_role not in self._old or new_role not in self._new:
            return
        self._seen.add((old_role, new_role, side))
        old, new = self._old[old_role], self._new[new_role]
        for key, before in old.fields.items():
            after = new.fields.get(key)
            where = place if old.kind == "wrapper" else f"{place}.{key}"  # No model knows of wrappers.
            if after is None:
                yield _removed(old, before, where, side)
            elif before.type != after.type:
                yield Change(
                    side, where, f"was {before.type}, is {after.type}: another number, and {_LOST[side]}", True
                )
            else:
                is_column = side is Side.CALLS and old_role == self._columns
                yield from (
                    Change(side, where, *each) for each in _differences(before, after, side, is_column=is_column)
                )
                yield from self.message(named(before.type)[1], named(after.type)[1], where, side)
        for key, after in new.fields.items():
            if key not in old.fields:
                yield _added(new, after, f"{place}.{key}", side)


_LOST = {
    Side.CALLS: "what old clients send there would be lost",
    Side.ANSWERS: "old clients would find nothing there",
}


def _removed(message: Members, member: Member, where: str, side: Side) -> Change:
    if message.kind not in ("enum", "union"):
        return Change(side, where, f"removed{', and it was required' * member.required}: {_LOST[side]}", True)
    if side is Side.CALLS:
        return Change(side, where, "removed: old clients may send it", True)
    return Change(side, where, "removed: it is not answered any more", False)


def _added(message: Members, member: Member, where: str, side: Side) -> Change:
    if side is Side.CALLS:
        if member.needs_value:
            return Change(side, where, "added and required: old clients do not send it", True)
        return Change(side, where, "added: old clients leave it out", False)
    if message.kind in ("enum", "union"):
        return Change(side, where, "added: old clients do not know it and cannot read it", True)
    return Change(side, where, "added: old clients do not see it", False)


def _differences(old: Member, new: Member, side: Side, *, is_column: bool) -> Iterator[tuple[str, bool]]:
    """How a field of the same type differs, and whether that breaks; `is_column` if rows have it too."""
    # A list or map that is left out is an empty one, required or not. In rows, though, one that is not required may be
    # named among its column's nulls, which a required one has not: what stands in its place would be taken for it.
    has_presence = not new.type.startswith(("repeated ", "map<"))
    if side is Side.CALLS and old.needs_value != new.needs_value:
        if has_presence or is_column:
            yield _NEEDED if new.needs_value else ("may be left out now", False)
    elif side is Side.CALLS and _says_null(old, new):
        yield "null if it is left out now: it was the default", True
    elif side is Side.CALLS and _says_null(new, old):
        yield "the default if it is left out now: it was null", True
    if side is Side.ANSWERS and old.nullable != new.nullable:
        if new.nullable:
            yield "may be absent now: old clients would read zero, or nothing", True
        else:
            yield "is always there now", False
    if old.of != new.of:
        # What may be sent must still be taken; what is answered must be of what was answered before.
        fits = _is_within(old.of, new.of) if side is Side.CALLS else _is_within(new.of, old.of)
        yield f"was {old.of or 'any text'}, is {new.of or 'any text'}", not fits


_NEEDED = ("required now: old clients may leave it out", True)


def _says_null(one: Member, other: Member) -> bool:
    """Whether leaving a field out is a value, its default, in one version and null in the other."""
    return not (one.required or one.nullable) and other.required and other.nullable


def _is_within(narrow: str, wide: str) -> bool:
    """Whether all that one format or tensor allows is allowed by another one."""
    if not wide:
        return True  # Any text, where the narrow one is a date, say.
    (kind, bits, sizes), (wide_kind, wide_bits, wide_sizes) = _parts(narrow), _parts(wide)
    if not sizes or not wide_sizes or (kind != wide_kind) or bits > wide_bits:
        return False
    inner, outer = sizes.strip("[]").split(", "), wide_sizes.strip("[]").split(", ")
    return len(inner) == len(outer) and all(w in ("-1", n) for n, w in zip(inner, outer, strict=True))


def _parts(of: str) -> tuple[str, int, str]:
    """Kind of dtype, its bits, and shape, of `float32 [-1, 2]`; a text's format has no shape."""
    match = re.fullmatch(r"(\D*)(\d*) (\[.*\])", of)
    if match is None:
        return of, 0, ""
    # All kinds of words are the same: str, object, and those of a length.
    kind = match[1] if match[1] in ("int", "uint", "float", "bool") else "words"
    return kind, int(match[2] or 0) if kind != "words" else 0, match[3]
