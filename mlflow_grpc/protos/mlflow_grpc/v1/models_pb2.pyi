from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "state", "error", "display_name", "description", "flavors", "uri", "run_id", "model_id", "input", "output", "params", "batched", "batching_reason", "deterministic", "rpcs", "example", "names", "wrappers", "contract", "example_is_typed", "field_rules")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Model.State]
        LOADING: _ClassVar[Model.State]
        READY: _ClassVar[Model.State]
        FAILED: _ClassVar[Model.State]
    STATE_UNSPECIFIED: Model.State
    LOADING: Model.State
    READY: Model.State
    FAILED: Model.State
    class NamesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class FieldRulesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FieldRules
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FieldRules, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    FLAVORS_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    BATCHED_FIELD_NUMBER: _ClassVar[int]
    BATCHING_REASON_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    RPCS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    WRAPPERS_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_IS_TYPED_FIELD_NUMBER: _ClassVar[int]
    FIELD_RULES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    state: Model.State
    error: str
    display_name: str
    description: str
    flavors: _containers.RepeatedScalarFieldContainer[str]
    uri: str
    run_id: str
    model_id: str
    input: Schema
    output: Schema
    params: Schema
    batched: bool
    batching_reason: str
    deterministic: bool
    rpcs: _containers.RepeatedCompositeFieldContainer[Rpc]
    example: str
    names: _containers.ScalarMap[str, str]
    wrappers: _containers.RepeatedScalarFieldContainer[str]
    contract: str
    example_is_typed: bool
    field_rules: _containers.MessageMap[str, FieldRules]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[_Union[Model.State, str]] = ..., error: _Optional[str] = ..., display_name: _Optional[str] = ..., description: _Optional[str] = ..., flavors: _Optional[_Iterable[str]] = ..., uri: _Optional[str] = ..., run_id: _Optional[str] = ..., model_id: _Optional[str] = ..., input: _Optional[_Union[Schema, _Mapping]] = ..., output: _Optional[_Union[Schema, _Mapping]] = ..., params: _Optional[_Union[Schema, _Mapping]] = ..., batched: _Optional[bool] = ..., batching_reason: _Optional[str] = ..., deterministic: _Optional[bool] = ..., rpcs: _Optional[_Iterable[_Union[Rpc, _Mapping]]] = ..., example: _Optional[str] = ..., names: _Optional[_Mapping[str, str]] = ..., wrappers: _Optional[_Iterable[str]] = ..., contract: _Optional[str] = ..., example_is_typed: _Optional[bool] = ..., field_rules: _Optional[_Mapping[str, FieldRules]] = ...) -> None: ...

class FieldRules(_message.Message):
    __slots__ = ("required", "defaulted")
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    DEFAULTED_FIELD_NUMBER: _ClassVar[int]
    required: _containers.RepeatedScalarFieldContainer[int]
    defaulted: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, required: _Optional[_Iterable[int]] = ..., defaulted: _Optional[_Iterable[int]] = ...) -> None: ...

class Schema(_message.Message):
    __slots__ = ("mlflow_json", "json_schema", "field_names")
    class FieldNamesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MLFLOW_JSON_FIELD_NUMBER: _ClassVar[int]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAMES_FIELD_NUMBER: _ClassVar[int]
    mlflow_json: str
    json_schema: str
    field_names: _containers.ScalarMap[str, str]
    def __init__(self, mlflow_json: _Optional[str] = ..., json_schema: _Optional[str] = ..., field_names: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Rpc(_message.Message):
    __slots__ = ("path", "request_type", "response_type", "client_streaming", "server_streaming", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PATH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TYPE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TYPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_STREAMING_FIELD_NUMBER: _ClassVar[int]
    SERVER_STREAMING_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    path: str
    request_type: str
    response_type: str
    client_streaming: bool
    server_streaming: bool
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, path: _Optional[str] = ..., request_type: _Optional[str] = ..., response_type: _Optional[str] = ..., client_streaming: _Optional[bool] = ..., server_streaming: _Optional[bool] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...
