"""Open calls and streams as context managers.

Rule of this module: it only closes what an engine has opened.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

EngineT = TypeVar("EngineT")


class Opened(Generic[EngineT]):
    """Context manager around an open call or stream; one object serves all of them, because it keeps none of them."""

    __slots__ = ("_close", "_engine")

    def __init__(self, engine: EngineT, close: Callable[[], None]) -> None:
        """Takes what the `with` block gets.

        Args:
            engine: Returned on entry.
            close: Closes the call or stream.

        """
        self._engine = engine
        self._close = close

    def __enter__(self) -> EngineT:
        return self._engine

    def __exit__(self, error_type: object, error: object, traceback: object) -> None:
        self._close()
