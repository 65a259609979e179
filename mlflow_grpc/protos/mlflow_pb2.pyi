from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Input(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: str
    def __init__(self, value: _Optional[str] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("value", "error")
    class Error(_message.Message):
        __slots__ = ("code", "message", "reason", "error_class", "field_violations")
        CODE_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        ERROR_CLASS_FIELD_NUMBER: _ClassVar[int]
        FIELD_VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
        code: int
        message: str
        reason: str
        error_class: str
        field_violations: _containers.RepeatedCompositeFieldContainer[Output.FieldViolation]
        def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., error_class: _Optional[str] = ..., field_violations: _Optional[_Iterable[_Union[Output.FieldViolation, _Mapping]]] = ...) -> None: ...
    class FieldViolation(_message.Message):
        __slots__ = ("field", "description")
        FIELD_FIELD_NUMBER: _ClassVar[int]
        DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
        field: str
        description: str
        def __init__(self, field: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    value: str
    error: Output.Error
    def __init__(self, value: _Optional[str] = ..., error: _Optional[_Union[Output.Error, _Mapping]] = ...) -> None: ...
