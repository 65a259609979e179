"""Record batches of a caller, from the messages of a stream.

Rule of this module: messages are taken in their order, and batches are read in any order and in any thread. Nothing
that a message declares takes more memory than the limit, and every batch is validated before anybody looks into it.
"""

from dataclasses import dataclass, field

import pyarrow as pa
from _mlflow_grpc_protocol.arrow_ipc import END_OF_STREAM, encapsulated

from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.arrow import predicates
from mlflow_grpc.payload.arrow.messages import Header, MessageType, read_header, refuse, split_stream
from mlflow_grpc.payload.arrow.refusals import columns_refused
from mlflow_grpc.payload.arrow.sizes import expanded_bytes

MAX_EXPANSION = 8
"""Maximum size of a batch in memory, once it is decompressed and its dictionaries are expanded, in sizes of the largest
message. Compressed columns and dictionaries are rarely smaller than an eighth."""

MAX_DEPTH = 64
"""Maximum number of types within each other; Arrow reads no batch with more."""

MAX_DICTIONARIES = 65_536
"""Maximum number of messages of dictionaries that a batch may refer to. All of them are read again with each batch."""

_INDEX_BITS = 32

_FILE_MAGIC = b"ARROW1"

_Pieces = list[bytes | memoryview]

_READ_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)


@dataclass(slots=True)
class TableRows:
    """The rows of one or several record batches, which are read when somebody asks for them."""

    pieces: _Pieces
    """The bytes of a complete stream: schema, dictionaries and record batches."""
    count: int
    size: int
    """Size in memory after decompression, in bytes."""
    max_bytes: int
    """Maximum size in memory, with dictionaries expanded."""
    _batch: pa.RecordBatch | None = field(default=None, repr=False)

    def read(self) -> pa.RecordBatch:
        """Returns all rows as one valid batch.

        Raises:
            InvalidPayload: The batch takes too much memory, or is broken: offsets out of bounds, texts that are not
                UTF-8, wrong sizes.

        """
        if self._batch is None:
            self._batch = self._read()
            self.pieces = []
        return self._batch

    def _read(self) -> pa.RecordBatch:
        try:
            with pa.ipc.open_stream(pa.py_buffer(b"".join(self.pieces)), options=_READ_OPTIONS) as stream:
                batches = list(stream) or [pa.RecordBatch.from_pylist([], stream.schema)]
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable() from error
        for batch in batches:
            _validate(batch)
        if sum(batch.num_rows for batch in batches) != self.count:
            refuse("its batches have another number of rows than their headers declare")
        if sum(map(expanded_bytes, batches)) > self.max_bytes:
            raise _too_large(self.max_bytes)
        return _combined(batches) if self.count and len(batches) > 1 else batches[0]


class IncomingTable:
    """The state of one stream of record batches."""

    def __init__(self, max_message_bytes: int) -> None:
        """Starts without a schema.

        Args:
            max_message_bytes: Maximum size of one message, in bytes.

        """
        self.schema: pa.Schema | None = None
        self._max_bytes = MAX_EXPANSION * max_message_bytes
        self._schema_pieces: _Pieces = []
        self._arrays = 0  # Number of arrays in a batch of the schema, with those within others.
        self._dictionaries: dict[int, list[tuple[_Pieces, int]]] = {}
        self._dictionary_count = self._dictionary_bytes = 0

    def add(self, flatbuffer: bytes, body: bytes | memoryview) -> TableRows | None:
        """Takes the next message; returns the rows of a record batch, and None for any other message.

        Raises:
            InvalidPayload: The message is broken, comes at the wrong time, or would take too much memory.

        """
        header = read_header(flatbuffer, body)
        if not 0 <= header.body_bytes <= len(body):
            refuse("the body of a message is shorter than its header declares")
        body = body[: header.body_bytes]  # Padding may follow.
        if header.message_type is MessageType.SCHEMA:
            self._take_schema(flatbuffer)
            return None
        if self.schema is None:
            refuse("the schema must be the first message")
        if header.message_type is MessageType.DICTIONARY:
            self._take_dictionary(header, encapsulated(flatbuffer, body), header.read_bytes + len(flatbuffer))
            return None
        self._check_arrays(header)
        return self._rows([encapsulated(flatbuffer, body)], header.rows, header.read_bytes)

    def add_stream(self, stream: bytes) -> TableRows:
        """Takes a complete stream; returns the rows of all its batches.

        Raises:
            InvalidPayload: A message is broken, comes at the wrong time, or would take too much memory.

        """
        if stream.startswith(_FILE_MAGIC):
            raise InvalidPayload(
                "The Arrow data is in the format of files. Write it as a stream: with pyarrow.ipc.new_stream in place "
                "of new_file."
            )
        count = size = 0
        for flatbuffer, body in split_stream(stream):
            header = read_header(flatbuffer, body)
            if header.message_type is MessageType.SCHEMA:
                self._take_schema(flatbuffer)
            elif self.schema is None:
                refuse("the schema must be the first message")
            elif header.message_type is MessageType.RECORD_BATCH:
                self._check_arrays(header)
                count += header.rows
            size += header.read_bytes
        if size > self._max_bytes:
            raise _too_large(self._max_bytes)
        if self.schema is None:
            refuse("it is empty; its first message must be a schema")
        return TableRows([stream], count, size, self._max_bytes)

    def _take_schema(self, flatbuffer: bytes) -> None:
        if self.schema is not None:
            refuse("there is a second schema, and all batches of a stream have the same")
        pieces = encapsulated(flatbuffer)
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(b"".join(pieces)))
            for column in schema:
                _read_names([column], column.name)
        except InvalidPayload:
            raise
        except Exception as error:
            raise _unreadable() from error
        self.schema, self._schema_pieces = schema, pieces
        self._arrays = sum(_arrays_of(column.type) for column in schema)

    def _check_arrays(self, header: Header) -> None:
        """Refuses a batch of another schema, whose bytes Arrow would read as values of this one."""
        if header.arrays != self._arrays:
            refuse("a batch has other columns than its schema")

    def _take_dictionary(self, header: Header, pieces: _Pieces, size: int) -> None:
        if not header.is_delta:
            replaced = self._dictionaries.pop(header.dictionary_id, [])
            self._dictionary_count -= len(replaced)
            self._dictionary_bytes -= sum(replaced_size for _, replaced_size in replaced)
        self._dictionaries.setdefault(header.dictionary_id, []).append((pieces, size))
        self._dictionary_count += 1
        self._dictionary_bytes += size
        if self._dictionary_count > MAX_DICTIONARIES:
            raise InvalidPayload(
                f"The dictionaries of the stream came in more than {MAX_DICTIONARIES} messages. Replace a dictionary "
                "in place of adding to it.",
                reason="PAYLOAD_TOO_LARGE",
            )
        if self._dictionary_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)

    def _rows(self, messages: list[_Pieces], count: int, size: int) -> TableRows:
        total = size + self._dictionary_bytes
        if total > self._max_bytes:
            raise _too_large(self._max_bytes)
        dictionaries = [pieces for messages in self._dictionaries.values() for pieces, _ in messages]
        pieces = [piece for message in (self._schema_pieces, *dictionaries, *messages) for piece in message]
        return TableRows([*pieces, END_OF_STREAM], count, total, self._max_bytes)


def _read_names(fields: list[pa.Field], outermost: str, depth: int = 1) -> None:
    """Checks names and types at any depth, which Arrow does not.

    Args:
        fields: A column, or the fields within one.
        outermost: Name of the column.
        depth: Number of types that the fields are in, with their own.

    Raises:
        UnicodeDecodeError: A name is not UTF-8.
        InvalidPayload: Types are nested deeper than Arrow reads them.

    """
    if fields and depth > MAX_DEPTH:
        raise columns_refused([outermost], f"is nested more than {MAX_DEPTH} types deep; flatten it")
    for column in fields:
        column.name.encode()
        arrow = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        _read_names([arrow.field(index) for index in range(arrow.num_fields)], outermost, depth + 1)


def _arrays_of(arrow: pa.DataType) -> int:
    """Returns the number of arrays that a message has for a column of a type: its own, and those within it."""
    if isinstance(arrow, pa.BaseExtensionType):
        return _arrays_of(arrow.storage_type)
    if pa.types.is_dictionary(arrow):
        return 1
    return 1 + sum(_arrays_of(arrow.field(index).type) for index in range(arrow.num_fields))


def _validate(batch: pa.RecordBatch) -> None:
    """Raises InvalidPayload if the values of a column are not valid."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowException as error:
            advice = "cast it to timestamp" if pa.types.is_date64(column.type) else "write it with an Arrow library"
            raise columns_refused([name], f"has values that are not valid for {column.type}; {advice}") from error


def _combined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Returns the rows of several batches as one.

    Raises:
        InvalidPayload: The batches have more different texts than the indices within a list or a struct can count.

    """
    try:
        table = pa.Table.from_batches(list(map(_with_wide_indices, batches))).unify_dictionaries().combine_chunks()
    except pa.ArrowInvalid as error:
        names = [
            column.name for column in batches[0].schema if predicates.contains(column.type, pa.types.is_dictionary)
        ]
        problem = "has dictionaries that are too large for their indices once they are joined; use indices of int32"
        raise columns_refused(names, problem) from error
    return table.to_batches()[0]


def _with_wide_indices(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns a batch with indices of 32 bits in its dictionary-encoded columns, which hold those of all batches."""
    for index, column in enumerate(batch.columns):
        if pa.types.is_dictionary(column.type) and column.type.index_type.bit_width < _INDEX_BITS:
            wide = pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary)
            batch = batch.set_column(index, batch.schema.names[index], wide)
    return batch


def _unreadable() -> InvalidPayload:
    return InvalidPayload(
        "The Arrow data cannot be read: Arrow says that it is broken, or has a format that the server's Arrow does not "
        "support. Write it with an Arrow library."
    )


def _too_large(max_bytes: int) -> InvalidPayload:
    return InvalidPayload(
        f"The batch takes more than {max_bytes} bytes once it is decompressed and its dictionaries are expanded, which "
        f"is {MAX_EXPANSION} times the server's limit of a message (--max-message-bytes). Send smaller batches.",
        reason="PAYLOAD_TOO_LARGE",
    )
