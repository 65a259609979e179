"""The format of a lock file: JSON that people can read and merge.

Rule of this module: it has the schema of the file, its parser and its writer, and opens no file. `numbering` assigns
numbers to fields, and `compatibility` decides if old clients work with a change.
"""

import json
import re
from collections.abc import Hashable, Sequence
from typing import Annotated, Literal, Self, TypeVar

from _mlflow_grpc_protocol.field_numbers import NULLS_NUMBER, PARAMS_NUMBER
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, ValidationError, model_validator

from mlflow_grpc.contract.names import UNSPECIFIED, Scope, is_identifier
from mlflow_grpc.errors import StartError

FILE_NAME = "model_service.lock.json"
"""Default name of the file beside a .proto file, and its name in a model's directory."""

FORMAT = 1
"""Version of the format. A reader refuses a file with a higher version."""

MAX_FIELD_NUMBER = NULLS_NUMBER - 1
"""Maximum number of a column, because the number plus 100,000 is that of the field with the column's nulls."""

MAX_ENUM_NUMBER = 2**31 - 1
"""Maximum number of an enum value: an int32, as in protobuf."""

PROTOBUF_NUMBERS = range(19_000, 20_000)
"""Field numbers that protobuf reserves for itself."""

CONTRACT_NUMBERS = range(PARAMS_NUMBER, PARAMS_NUMBER + 100)
"""Numbers of fields that are not columns, such as the params."""

PARAMS_KEY = "(params)"
"""Key of the field for the params."""

REMEDY = "Restore the file from version control."
"""Advice for an invalid lock file. Writing a new one would give columns other numbers than clients have."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Role = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
"""Name of a message or enum without the prefix of its model."""
MessageKind = Literal["record", "wrapper", "union", "enum"]
Number = Annotated[StrictInt, Field(ge=1, le=MAX_ENUM_NUMBER)]

TAKEN_NAMES: dict[MessageKind, tuple[str, ...]] = {"union": ("value",), "enum": (UNSPECIFIED,)}
"""Names within a message or enum that no field or value of the model can have."""

_T = TypeVar("_T", bound=Hashable)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LockedField(_Section):
    """A field of a message, or a value of an enum."""

    name: Name
    number: Number
    type: str = ""
    """Type as in a .proto file, with `message`, `enum` or `tensor of` before a name; empty for an enum value."""
    detail: str = Field(default="", alias="of")
    """Constraint beyond the type: the format of a string, or dtype and shape of a tensor."""
    required: bool = False
    """True if calls need the field."""
    nullable: bool = False
    """True if answers may lack the field, and calls express null by leaving it out."""

    @property
    def needs_value(self) -> bool:
        """True if calls without the field are refused."""
        return self.required and not self.nullable

    @property
    def is_repeated_or_map(self) -> bool:
        """True if the field is a list or a map, which has no presence."""
        return self.type.startswith(("repeated ", "map<"))

    @property
    def role(self) -> str:
        """The message or enum that the type names, by its role; empty for other types."""
        return _reference(self.type)[1]


class LockedMessage(_Section):
    """A message or an enum: its fields by the model's names, and names and numbers that no new field may have."""

    message_kind: MessageKind = Field(default="record", alias="kind")
    """`wrapper` is a message around a list, a map or a value that may be null."""
    fields: dict[str, LockedField] = {}
    removed: dict[str, LockedField] = {}
    """Fields of earlier versions. Their names and numbers are reserved, and are used again if the field returns."""
    reserved: tuple[Number, ...] = ()
    """Numbers that a field had before its type changed."""

    @property
    def all_fields(self) -> dict[str, LockedField]:
        """The fields of this and of earlier versions."""
        return {**self.removed, **self.fields}

    @model_validator(mode="after")
    def _check_unique(self) -> Self:
        fields = self.all_fields
        if len(fields) < len(self.removed) + len(self.fields):
            raise ValueError(f"{_first_duplicate([*self.fields, *self.removed])!r} is both a field and a removed field")
        numbers = [*(field.number for field in fields.values()), *self.reserved]
        if len(set(numbers)) < len(numbers):
            twice = _first_duplicate(numbers)
            owners = [repr(key) for key, field in fields.items() if field.number == twice]
            raise ValueError(f"number {twice} is used twice: {', '.join(owners) or 'reserved'}")
        scope = Scope(*TAKEN_NAMES.get(self.message_kind, ()))
        for field in fields.values():
            if not (is_identifier(field.name) and field.name[0].isalpha() and scope.is_free(field.name)):
                raise ValueError(f"the name {field.name} is used twice, or is not valid in protobuf")
            scope.take(field.name)
        return self

    @model_validator(mode="after")
    def _check_field_numbers(self) -> Self:
        if self.message_kind == "enum":
            return self
        columns = [(key, field.number) for key, field in self.all_fields.items()]
        for key, number in (*columns, *(("reserved", number) for number in self.reserved)):
            if key == PARAMS_KEY:
                if number != PARAMS_NUMBER:
                    raise ValueError(f"number {number} of {key!r} is invalid: it must be {PARAMS_NUMBER}")
            elif number in CONTRACT_NUMBERS:
                raise ValueError(f"number {number} of {key!r} is invalid: 1000 to 1099 are not for columns")
            elif number > MAX_FIELD_NUMBER or number in PROTOBUF_NUMBERS:
                raise ValueError(f"number {number} is out of range (1 to {MAX_FIELD_NUMBER}, except 19000 to 19999)")
        return self


class LockedModel(_Section):
    """The names and numbers of a model."""

    name: Annotated[str, StringConstraints(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """Prefix of the model's RPCs and messages; empty if it is not fixed."""
    rpcs: tuple[Name, ...] = ()
    """The last parts of the RPCs' names; empty in a file that was written before they were recorded."""
    input: str = ""
    output: str = ""
    """Messages of calls and answers, by their roles."""
    chunk: str = ""
    """Message of a chunk, by its role; empty if a chunk is an output message."""
    removed: bool = False
    """True if the model was not hosted when the file was written."""
    messages: dict[Role, LockedMessage] = {}
    """Messages and enums by their roles."""

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for owner, message in self.messages.items():
            for key, field in message.fields.items():
                keyword, role = _reference(field.type)
                target = self.messages.get(role)
                if role and (target is None or (target.message_kind == "enum") != (keyword == "enum")):
                    raise ValueError(f"messages.{owner}.{key}: there is no {keyword} {role}")
        for role in filter(None, (self.input, self.output, self.chunk)):
            if role not in self.messages:
                raise ValueError(f"there is no message {role}")
        if self.input and self.input == self.output:
            raise ValueError(f"{self.input} is the message of both calls and answers")
        return self


class LockFile(_Section):
    """The locked models by their lock keys: a name, or a name and a version, as the typed service calls them."""

    format: Literal[1] = 1
    models: dict[str, LockedModel] = {}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [model.name for model in self.models.values() if model.name]
        if len(set(names)) < len(names):
            raise ValueError(f"two models have the name {_first_duplicate(names)}")
        return self


def parse(text: str, source: str) -> LockFile:
    """Parses the text of a lock file.

    Args:
        text: The text.
        source: Name of the file for error messages.

    Raises:
        StartError: The text is not a lock file, or is of a later format. The error is a single line with
            the location of the problem.

    """
    try:
        content = json.loads(text, object_pairs_hook=_object_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise StartError(_invalid(source, f"it is not JSON ({error})")) from None
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise StartError(_invalid(source, "it has no format"))
    if content["format"] > FORMAT:
        version = content["format"]
        raise StartError(
            f"{source} is a lock file of format {version}, and this mlflow-grpc reads {FORMAT}: update mlflow-grpc"
        )
    try:
        return LockFile.model_validate(content)
    except ValidationError as error:
        raise StartError(_invalid(source, describe(error))) from None


def _invalid(source: str, problem: str) -> str:
    return f"{source} is not a valid lock file: {problem}. {REMEDY}"


def describe(error: ValidationError) -> str:
    """The first problem that pydantic reports, with its location, on one line."""
    problem = error.errors()[0]
    location = ".".join(map(str, problem["loc"]))
    return ": ".join(filter(None, (location, str(problem["msg"]).removeprefix("Value error, "))))


def text_of(lock_file: LockFile) -> str:
    """The text of a lock file: a line for each field, in the order of the numbers. Equal locks have equal texts."""
    models = {
        lock_key: {
            **model.model_dump(exclude_defaults=True, exclude={"messages"}),
            "messages": {role: _message_as_json(message) for role, message in sorted(model.messages.items())},
        }
        for lock_key, model in sorted(lock_file.models.items())
    }
    return _to_json({"format": FORMAT, "models": models}, "") + "\n"


def _message_as_json(message: LockedMessage) -> dict[str, object]:
    section: dict[str, object] = message.model_dump(exclude_defaults=True, by_alias=True, exclude={"fields", "removed"})
    for key, fields in (("fields", message.fields), ("removed", message.removed)):
        ordered = sorted(fields.items(), key=lambda item: item[1].number)
        if ordered or key == "fields":
            section[key] = {name: field.model_dump(exclude_defaults=True, by_alias=True) for name, field in ordered}
    return section


def _to_json(value: object, indent: str) -> str:
    """JSON with line breaks only in objects that contain objects."""
    if not isinstance(value, dict) or not any(isinstance(item, dict) for item in value.values()):
        return json.dumps(value, ensure_ascii=False)
    lines = (
        f"{indent}  {json.dumps(key, ensure_ascii=False)}: {_to_json(item, indent + '  ')}"
        for key, item in value.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _reference(type_text: str) -> tuple[str, str]:
    """The model's type in a field's type: `message` or `enum`, and its role; both empty for other types."""
    match = re.search(r"\b(message|enum) (\w+)>?$", type_text)
    return (match[1], match[2]) if match else ("", "")


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose keys are unique, because a merge of two branches may leave the same column twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"the key {_first_duplicate([key for key, _ in pairs])!r} occurs twice in an object")
    return content


def _first_duplicate(values: Sequence[_T]) -> _T:
    return next(value for index, value in enumerate(values) if value in values[:index])
