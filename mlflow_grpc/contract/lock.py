"""The lock: which name and number each column of each model has, for ever, kept in a file that people can read.

Rule of this module: what the file may say, reading it and writing it. Who gets which number is decided in
`mlflow_grpc.contract.numbering`, whether old clients can live with a change in `mlflow_grpc.contract.compatibility`.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, ValidationError, model_validator

from mlflow_grpc.contract.names import UNSPECIFIED, Scope, is_identifier
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

FILE_NAME = "model_service.lock.json"
"""What it is called beside a .proto file, and in the directory of a model."""

FORMAT = 1
"""Of the file. A reader that meets a higher one does not know what it says."""

MOST = 99_999
"""The highest number that a column can have: 100,000 more is that of the field with its nulls."""

MOST_OF_WORDS = 2**31 - 1
"""And a word of an enum."""

OF_PROTOBUF = range(19_000, 20_000)
"""Numbers that protobuf keeps for itself."""

OF_THE_CONTRACT = range(1_000, 1_100)
"""Numbers of the fields that are no columns: the params, say."""

PARAMS = "(params)"
"""What stands in the lock for the field of the params."""

PARAMS_NUMBER = OF_THE_CONTRACT.start
"""Of that field."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Role = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
"""The name of a message or enum without that of its model."""
Kind = Literal["record", "wrapper", "union", "enum"]
TAKEN: dict[Kind, tuple[str, ...]] = {"union": ("value",), "enum": (UNSPECIFIED,)}
"""Names within a message or enum that nothing of the model's can have."""
Number = Annotated[StrictInt, Field(ge=1, le=MOST_OF_WORDS)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Part):
    """A field of a message, or a word of an enum."""

    name: Name
    number: Number
    type: str = ""
    """As a .proto file has it, with `message`, `enum` or `tensor of` before names of the model's; empty of a word."""
    of: str = ""
    """What protobuf's type does not say: the format of a text, dtype and shape of a tensor."""
    required: bool = False
    """Whether calls must have it."""
    nullable: bool = False
    """Whether answers may be without it, and calls say null by leaving it out."""

    @property
    def needs_value(self) -> bool:
        """Whether calls that leave it out are refused."""
        return self.required and not self.nullable


class Members(_Part):
    """A message or an enum: what it has, by the model's names, and what nothing new may have."""

    kind: Kind = "record"
    """wrapper: a message around a list, a map or a value that may be null."""
    fields: dict[str, Member] = {}
    removed: dict[str, Member] = {}
    """What it has no more: name and number are reserved, and are its own again if it comes back."""
    reserved: tuple[Number, ...] = ()
    """Numbers of columns that have another number now, since their type has changed."""

    @model_validator(mode="after")
    def _each_has_its_own(self) -> Self:
        both = {**self.removed, **self.fields}
        if len(both) < len(self.removed) + len(self.fields):
            raise ValueError(f"{_first_twice([*self.fields, *self.removed])!r} is there and removed")
        numbers = [*(each.number for each in both.values()), *self.reserved]
        if len(set(numbers)) < len(numbers):
            twice = _first_twice(numbers)
            owners = [repr(key) for key, each in both.items() if each.number == twice]
            raise ValueError(f"number {twice} is given twice: {', '.join(owners) or 'reserved'}")
        scope = Scope(*TAKEN.get(self.kind, ()))
        for each in both.values():
            if not (is_identifier(each.name) and each.name[0].isalpha() and scope.is_free(each.name)):
                raise ValueError(f"the name {each.name} is given twice, or no name that protobuf can have")
            scope.take(each.name)
        if self.kind != "enum":
            self._numbers_are_of_fields(both)
        return self

    def _numbers_are_of_fields(self, both: dict[str, Member]) -> None:
        if PARAMS in both and both[PARAMS].number != PARAMS_NUMBER:
            raise ValueError(f"number {both[PARAMS].number} of {PARAMS!r} is none that it can have ({PARAMS_NUMBER})")
        columns = {key: each.number for key, each in both.items() if key != PARAMS}
        for key, number in (*columns.items(), *(("reserved", number) for number in self.reserved)):
            if number in OF_THE_CONTRACT:
                raise ValueError(f"number {number} of {key!r} is none that a column can have")
            if number > MOST or number in OF_PROTOBUF:
                raise ValueError(f"number {number} is none that a field can have (1 to {MOST}, without 19000 to 19999)")


class ModelLock(_Part):
    """What is locked of one model."""

    name: Annotated[str, StringConstraints(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """What its RPCs and messages begin with; empty if it is not known."""
    rpcs: tuple[Name, ...] = ()
    """The last parts of the names of its RPCs; empty if they are not known."""
    input: str = ""
    output: str = ""
    """The messages of calls and answers, by their names without that of the model, as all names here."""
    chunk: str = ""
    """The message of a part of an answer; empty if that is the one of answers."""
    removed: bool = False
    """Whether the model was not there when the lock was written."""
    messages: dict[Role, Members] = {}
    """Enums are among them."""

    @model_validator(mode="after")
    def _has_what_it_names(self) -> Self:
        for place, members in self.messages.items():
            for key, each in members.fields.items():
                kind, role = named(each.type)
                if role and (role not in self.messages or (self.messages[role].kind == "enum") != (kind == "enum")):
                    raise ValueError(f"messages.{place}.{key}: there is no {kind} {role}")
        for role in filter(None, (self.input, self.output, self.chunk)):
            if role not in self.messages:
                raise ValueError(f"there is no message {role}")
        if self.input and self.input == self.output:
            raise ValueError(f"{self.input} is of calls and of answers")
        return self


class Lock(_Part):
    """What is locked of all models, by name, or name and version, as the typed service calls them."""

    format: Literal[1] = 1
    models: dict[str, ModelLock] = {}

    @model_validator(mode="after")
    def _each_has_its_own(self) -> Self:
        names = [each.name for each in self.models.values() if each.name]
        if len(set(names)) < len(names):
            raise ValueError(f"two models have the name {_first_twice(names)}")
        return self


def named(type_text: str) -> tuple[str, str]:
    """What kind of type of the model's own a field has, `message` or `enum`, and its name; empty if it has none."""
    match = re.search(r"\b(message|enum) (\w+)>?$", type_text)
    return (match[1], match[2]) if match else ("", "")


def parse(text: str, source: str) -> Lock:
    """The lock that a text is.

    Args:
        text: The text.
        source: What to call it where it is no good.

    Raises:
        StartError: It is no lock, or one of a later version; one line that names the place.

    """
    try:
        content = json.loads(text, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise StartError(f"{source} is no lock: it is not JSON ({error})") from None
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise StartError(f"{source} is no lock: it has no format")
    if content["format"] > FORMAT:
        raise StartError(
            f"{source} is a lock of format {content['format']}, and this mlflow-grpc knows {FORMAT}: update mlflow-grpc"
        )
    try:
        return Lock.model_validate(content)
    except ValidationError as error:
        raise StartError(f"{source} is no lock: {problem_of(error)}") from None


def problem_of(error: ValidationError) -> str:
    """What is wrong, in one line, with the place where there is one."""
    problem = error.errors()[0]
    words = str(problem["msg"]).removeprefix("Value error, ")
    return ": ".join(filter(None, (".".join(map(str, problem["loc"])), words)))


def read(path: Path) -> Lock:
    """The lock in a file.

    Raises:
        StartError: It cannot be read, or is no lock.

    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        hint = "; `mlflow-grpc proto` with --lock makes one" if isinstance(error, FileNotFoundError) else ""
        raise StartError(f"cannot read the lock {path}: {error.strerror}{hint}") from error
    except UnicodeDecodeError as error:
        raise StartError(f"{path} is no lock: it is not UTF-8") from error


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keeps a lock for oneself from when it is read to when it is written, so that no other run's models are lost.

    Whoever comes later waits. What is held is the directory: the file is another one after each write, and a file just
    for this would lie beside it, under version control.

    Raises:
        OSError: The file cannot be written; it bears the name of that.

    """
    with _named(path):
        _check_writable(path)
        directory = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another run that writes a lock in %s", path.resolve().parent)
            fcntl.flock(directory, fcntl.LOCK_EX)
        except OSError as error:  # Some network file systems hold no directories.
            logger.warning("another run must not write %s now: it cannot be held (%s)", path, error.strerror)
        yield
    finally:
        os.close(directory)


def write(path: Path, lock: Lock) -> None:
    """Puts a lock into a file: the whole of it, or nothing. Who may read and write the file stays as it was.

    Raises:
        OSError: It cannot be written, or is read-only; it bears the name of the file.

    """
    with _named(path):
        _check_writable(path)
        target = path.resolve()  # What a link leads to is written, not the link.
        beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}.new")
        try:
            with beside.open("x", encoding="utf-8") as file:
                if target.exists():
                    _take_rights(file.fileno(), target)
                file.write(text_of(lock))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)


def _check_writable(path: Path) -> None:
    """Refuses a file that is read-only: putting another one in its place would ask the directory alone."""
    if path.exists() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _take_rights(descriptor: int, path: Path) -> None:
    known = path.stat()
    with suppress(PermissionError):  # Only root gives files away.
        os.fchown(descriptor, known.st_uid, known.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(known.st_mode))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors name the lock, whatever file or directory beside it they are about."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def text_of(lock: Lock) -> str:
    """A lock as JSON: the same text for the same lock, one line for each column, in the order of their numbers."""
    models = {}
    for label, model in sorted(lock.models.items()):
        made = model.model_dump(exclude_defaults=True, exclude={"messages"})
        made["messages"] = {role: _plain(members) for role, members in sorted(model.messages.items())}
        models[label] = made
    return _text({"format": FORMAT, "models": models}, "") + "\n"


def _plain(members: Members) -> dict[str, Any]:
    made = members.model_dump(exclude_defaults=True, exclude={"fields", "removed"}, mode="json")
    for part in ("fields", "removed"):
        ordered = sorted(getattr(members, part).items(), key=lambda pair: pair[1].number)
        if ordered or part == "fields":
            made[part] = {key: each.model_dump(exclude_defaults=True) for key, each in ordered}
    return made


def _text(value: Any, indent: str) -> str:
    """JSON that breaks lines only where objects hold objects."""
    if not isinstance(value, dict) or not any(isinstance(each, dict) for each in value.values()):
        return json.dumps(value, ensure_ascii=False)
    lines = (
        f"{indent}  {json.dumps(key, ensure_ascii=False)}: {_text(each, indent + '  ')}" for key, each in value.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of which no key may be lost: two branches that were merged may have given one twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(f"the key {_first_twice([key for key, _ in pairs])!r} is there twice in one object")
    return made


def _first_twice(values: list[Any]) -> Any:
    return next(each for place, each in enumerate(values) if each in values[:place])
