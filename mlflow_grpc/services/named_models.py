"""Admission of calls whose request messages name the model.

Rule of this module: nothing is read without a limit. A server with one model admits a call to this model before it
reads the request. With several models, it limits the calls of which nothing has been read, and admits a call once it
knows the model.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Self

from _mlflow_grpc_protocol.metadata import MODEL_KEY

from mlflow_grpc.calls.challengers import answering
from mlflow_grpc.engine.admission import MAX_RETRY_S, MIN_ARRIVING_LIMIT, Stage
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.errors import NotReady, Overloaded
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.guard import call_model


class NamedModels:
    """Resolves the names in requests, and admits calls before and after they are read."""

    def __init__(self, catalog: Catalog, *, max_unread: int) -> None:
        """Starts without calls.

        Args:
            catalog: The models of the server.
            max_unread: Maximum number of calls of which nothing has been read, and of streams, on a server with several
                models; a low number is raised to that of `Admission`.

        """
        self._catalog = catalog
        self._max_unread = max(max_unread, MIN_ARRIVING_LIMIT)
        self._streams = 0
        self.unread = 0
        """Calls of which nothing has been read; always 0 on a server with one model."""

    def resolve(self, name: str, version: str, call: GrpcCall) -> Entry:
        """Returns the model that a request names.

        Args:
            name: Name in the request; if it is empty, the metadata may name the model.
            version: Version in the request; empty for the default version.
            call: The call.

        Raises:
            ServingError: As in `Catalog.resolve`.

        """
        label = f"{name}/{version}" if name and version else name
        call.names_version = "/" in label
        entry = self._catalog.resolve(label or call.metadata(MODEL_KEY))
        call_model(call, entry)
        return entry

    def admit(self, call: GrpcCall) -> "Arrival":
        """Admits a call of which nothing has been read.

        Raises:
            NotReady: The only model is being loaded, or the server is draining.
            Overloaded: There are too many calls.

        """
        arrival = Arrival(self, call)
        if (entry := self._only()) is not None:
            call_model(call, entry)
            arrival.open(entry)
        elif self.unread >= self._max_unread:
            raise Overloaded(
                "Too many calls are open without a complete request. Try again later.", retry_after_s=MAX_RETRY_S
            )
        else:
            self.unread += 1
        return arrival

    @contextmanager
    def admit_stream(self, call: GrpcCall) -> Iterator[None]:
        """Admits a stream of requests, which are admitted one by one when they come; raises the errors of `admit`."""
        if (entry := self._only()) is not None:
            call_model(call, entry)
            with entry.engine.open_stream():
                yield
            return
        if self._streams >= self._max_unread:
            raise Overloaded("Too many streams are open. Close those that you do not use.", retry_after_s=MAX_RETRY_S)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def _only(self) -> Entry | None:
        """Returns the model of a server that has one; None if there are several."""
        if self._catalog.stage is Stage.DRAINING:
            raise NotReady(Stage.DRAINING.value)
        return self._catalog.resolve(None) if len(self._catalog.entries) == 1 else None


class Arrival:
    """Context manager of an admitted call, whose model may still be unknown."""

    __slots__ = ("_call", "_engine", "_models", "_opened")

    def __init__(self, models: NamedModels, call: GrpcCall) -> None:
        self._models, self._call = models, call
        self._engine: Engine | None = None
        self._opened: AbstractContextManager[Engine] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._opened is not None:
            self._opened.__exit__(None, None, None)
        elif self._engine is None:
            self._models.unread -= 1

    def open(self, entry: Entry) -> None:
        """Admits the call to a model; raises the errors of `Engine.open_call`."""
        self._opened = entry.engine.open_call(self._call.time_remaining)
        self._engine = entry.engine

    def model(self, name: str, version: str) -> Entry:
        """Returns the model that the request names, and admits the call to it.

        Args:
            name: Name in the request.
            version: Version in the request; empty for the default version.

        Raises:
            ServingError: As in `NamedModels.resolve` and `Engine.open_call`.

        """
        entry = answering(self._call, self._models.resolve(name, version, self._call))
        if self._engine is None:
            self.open(entry)
            self._models.unread -= 1
        elif self._engine is not entry.engine and (admitted := self._opened) is not None:
            self.open(entry)  # It names a version that another one has replaced.
            admitted.__exit__(None, None, None)
        return entry

    def reserve_response(self, size: int, task: "asyncio.Task[object]") -> None:
        """Reserves room for a large response; raises the errors of `Engine.reserve_response`."""
        if self._engine is not None:
            self._engine.reserve_response(size, task)
