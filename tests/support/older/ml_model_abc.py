"""The interface ml_model_abc, which preceded ml-base, reduced to what packages for it use."""

from abc import ABC, abstractmethod
from typing import Any


class MLModel(ABC):
    @property
    @abstractmethod
    def display_name(self) -> str: ...

    @property
    @abstractmethod
    def qualified_name(self) -> str: ...

    @property
    @abstractmethod
    def description(self) -> str: ...

    @property
    @abstractmethod
    def major_version(self) -> int: ...

    @property
    @abstractmethod
    def minor_version(self) -> int: ...

    @property
    @abstractmethod
    def input_schema(self) -> Any: ...

    @property
    @abstractmethod
    def output_schema(self) -> Any: ...

    @abstractmethod
    def __init__(self) -> None: ...

    @abstractmethod
    def predict(self, data: Any) -> Any:
        self.input_schema.validate(data)


class MLModelException(Exception):
    pass


class MLModelSchemaValidationException(MLModelException):
    pass
