"""One DoExchange: record batches in, predictions out.

Rule of this module: answers leave in the order of their batches. An error ends the exchange after the answers before
it, because Flight has no other place for errors.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import NoReturn

import pyarrow as pa
from _mlflow_grpc_protocol.arrow_ipc import pieces_of

from mlflow_grpc.engine import tables
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.requests import TableRequest
from mlflow_grpc.errors import InvalidPayload, ServingError
from mlflow_grpc.payload.arrow.incoming import IncomingTable, TableRows
from mlflow_grpc.payload.arrow.model import TableModel
from mlflow_grpc.payload.arrow.reader import TableReader
from mlflow_grpc.payload.arrow.writer import TableAnswer, as_schema
from mlflow_grpc.services.flight_data import FlightData, flight_data
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.streams import answer_in_order

READ_AHEAD = 8
"""Maximum number of batches of an exchange in the server at a time. A batch has thousands of rows, so a few of them
occupy the model."""

MAX_WAITING = 65_536
"""Maximum number of messages of an exchange that wait for a schema."""

Item = tuple[TableRows | None, bytes]
"""Rows to predict, or None for a message that has only app_metadata, and the app_metadata."""


class Exchange:
    """The state of one exchange."""

    def __init__(
        self,
        model: TableModel,
        params: dict[str, object] | None,
        max_message_bytes: int,
        engine: Engine,
        call: GrpcCall,
    ) -> None:
        """Starts without a schema.

        Args:
            model: The model that is called.
            params: The params that the caller set.
            max_message_bytes: Maximum size of a message, in bytes.
            engine: Runs the model.
            call: The call, to which answers are written.

        """
        self._model = model
        self._params = params
        self._engine = engine
        self._call = call
        self._incoming = IncomingTable(max_message_bytes)
        self._reader: TableReader | None = None
        self._app_metadata: deque[bytes] = deque()  # Of the items whose answers have not been made, in order.
        self._schema: pa.Schema | None = None  # Of the answers, once it has been sent.
        self._waiting = _Waiting(max_message_bytes)  # For the schema of the answers: answers without rows.
        self._max_bytes = max_message_bytes

    async def answer(self, messages: AsyncIterator[FlightData]) -> None:
        """Answers all batches.

        Args:
            messages: The messages of the caller.

        Raises:
            InvalidPayload: There is no schema, or a batch does not fit.
            ServingError: As in `Engine.predict`.

        """
        early = _Waiting(self._max_bytes)  # For the schema of the table: messages that have only app_metadata.
        while self._reader is None:
            try:
                item = await self._take(await anext(messages))
            except StopAsyncIteration:
                raise InvalidPayload("The exchange has no schema. Begin it with the schema of the table.") from None
            if item is not None:
                early.add(item[1], "its schema", has_table=False)
        opening = [] if self._model.writer.schema is None else self._begin(self._model.writer.schema)
        for message in [*opening, *(flight_data(b"", b"", app_metadata) for app_metadata, _ in early.take())]:
            await self._call.write(message)
        await answer_in_order(
            _Items(self._take, messages),
            self._call,
            self._submit,
            self._outputs,
            _end,
            max_unread_s=self._engine.max_unread_s,
            read_ahead=READ_AHEAD,
        )
        if self._schema is None:
            for message in [*self._begin(pa.schema([])), *self._empty_answers()]:
                await self._call.write(message)

    async def _take(self, message: FlightData) -> Item | None:
        """Takes a message; returns None for a schema, a dictionary and an empty message."""
        if not message.data_header:
            return (None, message.app_metadata) if message.app_metadata else None
        return await tables.read(partial(self._read, message), len(message.data_header))

    def _read(self, message: FlightData) -> Item | None:
        rows = self._incoming.add(message.data_header, message.data_body)
        if self._reader is None and self._incoming.schema is not None:
            self._reader = self._model.reader(self._incoming.schema, self._params)
        return None if rows is None else (rows, message.app_metadata)

    async def _submit(self, item: Item) -> "asyncio.Future[TableAnswer]":
        rows, app_metadata = item
        self._app_metadata.append(app_metadata)
        if rows is None or not rows.count or self._reader is None:
            answered: asyncio.Future[TableAnswer] = asyncio.get_running_loop().create_future()
            answered.set_result(_NO_TABLE if rows is None else _NO_ROWS)
            return answered
        request = TableRequest(rows, self._reader, self._model.writer, self._call)
        return await self._engine.submit(request, self._call.deadline)

    def _outputs(self, answer: TableAnswer) -> list[FlightData]:
        """Makes the messages of an answer, and those of the schema before the first one."""
        app_metadata = self._app_metadata.popleft()
        if answer is _NO_TABLE and not self._waiting:
            return [flight_data(b"", b"", app_metadata)]
        if answer is _NO_TABLE or answer is _NO_ROWS:
            self._waiting.add(app_metadata, "a batch with rows", has_table=answer is _NO_ROWS)
            return [] if self._schema is None else self._empty_answers()
        opening = [] if self._schema is not None else [*self._begin(answer.batch.schema), *self._empty_answers()]
        pieces = answer.messages
        if self._schema is not None and not answer.batch.schema.equals(self._schema):
            pieces = list(self._model.writer.messages(as_schema(answer.batch, self._schema)))
        return [*opening, *(flight_data(header, body, app_metadata) for header, body in pieces)]

    def _begin(self, schema: pa.Schema) -> list[FlightData]:
        self._schema = schema
        return [flight_data(*pieces_of(memoryview(schema.serialize())), b"")]

    def _empty_answers(self) -> list[FlightData]:
        """Makes the answers to batches without rows, once the schema is known."""
        schema = self._schema if self._schema is not None else pa.schema([])
        empty = pieces_of(memoryview(pa.RecordBatch.from_pylist([], schema=schema).serialize()))
        nothing = (b"", memoryview(b""))
        return [
            flight_data(*(empty if has_table else nothing), app_metadata)
            for app_metadata, has_table in self._waiting.take()
        ]


class _Waiting:
    """The app_metadata of messages that cannot be answered yet."""

    def __init__(self, max_bytes: int) -> None:
        """Starts empty.

        Args:
            max_bytes: Maximum size of all app_metadata, in bytes.

        """
        self._items: list[tuple[bytes, bool]] = []
        self._bytes = 0
        self._max_bytes = max_bytes

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, app_metadata: bytes, what: str, *, has_table: bool) -> None:
        """Adds that of a message.

        Args:
            app_metadata: The app_metadata.
            what: What the messages wait for, for the error.
            has_table: True for a batch without rows; False for a message that has only app_metadata.

        Raises:
            InvalidPayload: There are too many.

        """
        self._items.append((app_metadata, has_table))
        self._bytes += len(app_metadata)
        if len(self._items) > MAX_WAITING or self._bytes > self._max_bytes:
            raise InvalidPayload(
                f"The exchange has too many messages, or too much app_metadata, before {what}: they are answered after "
                f"it, and at most {MAX_WAITING} messages and {self._max_bytes} bytes wait. Send {what} earlier.",
                reason="PAYLOAD_TOO_LARGE",
            )

    def take(self) -> list[tuple[bytes, bool]]:
        """Removes and returns all: the app_metadata, and whether there is an empty table with it."""
        items, self._items, self._bytes = self._items, [], 0
        return items


class _Items(AsyncIterator[Item]):
    """The items of an exchange after its schema."""

    def __init__(
        self, take: Callable[[FlightData], Awaitable[Item | None]], messages: AsyncIterator[FlightData]
    ) -> None:
        self._take = take
        self._messages = messages

    async def __anext__(self) -> Item:
        while True:
            item = await self._take(await anext(self._messages))
            if item is not None:
                return item


_NO_TABLE = TableAnswer(pa.RecordBatch.from_pylist([], schema=pa.schema([])), [])
"""Answer to a message that has only app_metadata."""

_NO_ROWS = TableAnswer(pa.RecordBatch.from_pylist([], schema=pa.schema([])), [])
"""Answer to a batch without rows, for which the model is not called."""


def _end(error: ServingError) -> NoReturn:
    raise error
