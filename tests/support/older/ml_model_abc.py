"""The MLModel interface before ml-base, in the few lines that packages for it rely on."""

from abc import ABC, abstractmethod
from typing import Any


class MLModel(ABC):
    @property
    @abstractmethod
    def display_name(self) -> str:
        raise NotImplementedError

    @property
    @abstractmethod
    def qualified_name(self) -> str:
        raise NotImplementedError

    @property
    @abstractmethod
    def description(self) -> str:
        raise NotImplementedError

    @property
    @abstractmethod
    def major_version(self) -> int:
        raise NotImplementedError

    @property
    @abstractmethod
    def minor_version(self) -> int:
        raise NotImplementedError

    @property
    @abstractmethod
    def input_schema(self) -> Any:
        raise NotImplementedError

    @property
    @abstractmethod
    def output_schema(self) -> Any:
        raise NotImplementedError

    @abstractmethod
    def __init__(self) -> None:
        raise NotImplementedError

    @abstractmethod
    def predict(self, data: Any) -> Any:
        self.input_schema.validate(data)


class MLModelException(Exception):
    pass


class MLModelSchemaValidationException(MLModelException):
    pass
