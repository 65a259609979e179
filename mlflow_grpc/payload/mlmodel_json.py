"""Text of an MLModel package: a record as a bare JSON object, or records in MLflow's formats.

A bare object is one record and gets the bare output. The formats of `mlflow models serve` carry any number of records
and get `{"predictions": [...]}`. If the schema has a field named like a format, such as `inputs`, the field wins.

Rule of this module: the model's own schema judges records and describes their faults.
"""

import csv
import json
import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from io import StringIO
from typing import Any, NoReturn

from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.errors import (
    FieldViolation,
    InvalidPayload,
    ModelFailed,
    ServingError,
    UnserializableOutput,
    UnsupportedContentType,
)
from mlflow_grpc.hosting.mlmodel.schemas import RecordRefused, RecordSchema
from mlflow_grpc.payload.codec import ModelInput, RawPayload, Records, text_of
from mlflow_grpc.payload.unknown_names import Unknown

JSON, CSV = "application/json", "text/csv"

SHAPES = {
    "dataframe_split": "an object with the lists columns and data, where each row of data is as long as columns",
    "dataframe_records": "a list of objects",
    "instances": "a list of objects",
    "inputs": "a list of objects, or an object of lists of the same length",
}
"""Formats and descriptions of their values."""

MAX_NAMES, MAX_CHARACTERS = 8, 40
"""Maximum number of names in an error, and of characters of each."""

NO_FORM = "The model returned something that has no JSON form. Let it return an instance of its output schema."


class MLModelCodec:
    """Formats of one MLModel package."""

    media_type = JSON
    timestamps_have_timezone = True
    refuses_missing = True

    def __init__(
        self,
        schema: RecordSchema,
        *,
        unknown_columns: UnknownColumns = UnknownColumns.IGNORE,
        nan_fields: AbstractSet[str] = frozenset(),
    ) -> None:
        """Makes a codec for a schema.

        Args:
            schema: The model's input and output schema.
            unknown_columns: Treatment of top-level fields that the schema does not have, if the schema ignores them.
            nan_fields: Fields that are NaN if their cell in CSV is empty; other fields are absent.

        """
        self._schema = schema
        self._nan_fields = nan_fields
        self.unknown = Unknown(schema.fields, unknown_columns)

    def asks_for_stream(self, payload: RawPayload) -> bool:
        """Returns False, because the record is the model's."""
        return False

    def decode(self, payload: RawPayload, content_type: str | None) -> ModelInput:
        """Parses and checks records.

        Raises:
            UnsupportedContentType: The content type is neither JSON nor CSV.
            InvalidPayload: The text does not parse, or a record does not fit the schema.

        """
        mime, _, parameters = (content_type or JSON).partition(";")
        if mime.strip() not in (JSON, CSV) or parameters.strip().lower() not in ("", "charset=utf-8"):
            raise UnsupportedContentType([JSON, CSV])
        if mime.strip() == CSV:
            records, is_bare = self._csv_records(text_of(payload)), False
        else:
            records, is_bare = self._records(_parsed(text_of(payload)))
        checked = self._checked(records, is_bare=is_bare)
        return ModelInput(checked, bare_answer=is_bare, ignored=self.ignored_fields(records))

    def _csv_records(self, text: str) -> list[dict[str, Any]]:
        """Returns the records of a CSV table with a header."""
        names, rows = _table(text)
        if not self._schema.fields.intersection(names):
            self._check_needs_no_field(names)
        return [
            {
                name: cell if cell != "" else math.nan
                for name, cell in zip(names, row, strict=True)
                if cell != "" or name in self._nan_fields
            }
            for row in rows
        ]

    def _check_needs_no_field(self, names: list[str]) -> None:
        try:
            self._schema.parse({})
        except RecordRefused as refused:
            raise _no_names(names, refused.violations) from None

    def ignored_fields(self, records: list[dict[str, Any]]) -> tuple[str, ...]:
        """Returns the fields that the schema does not have and ignores; raises InvalidPayload if they are refused."""
        if not self._schema.ignores_others or all(record.keys() <= self._schema.fields for record in records):
            return ()
        return self.unknown.check(name for record in records for name in record if name not in self._schema.fields)

    def _checked(self, records: Iterable[dict[str, Any]], *, is_bare: bool) -> list[Any]:
        checked = []
        for index, record in enumerate(records):
            try:
                checked.append(self._schema.parse(record))
            except RecordRefused as refused:
                raise InvalidPayload(**refused.error_arguments("" if is_bare else f"[{index}]")) from None
        return checked

    def accepts(self, payload: str, content_type: str) -> bool:
        """Returns True if the schema takes the records of a payload."""
        try:
            self.decode(payload, content_type)
        except ServingError:
            return False
        return True

    def encode(self, predictions: Any, request: ModelInput) -> str:
        """Writes the outputs as JSON.

        Raises:
            UnserializableOutput: An output has no JSON form.

        """
        try:
            outputs = [self._schema.dump(output) for output in predictions]
            return json.dumps(outputs[0] if request.bare_answer else {"predictions": outputs})
        except Exception as error:
            raise UnserializableOutput(NO_FORM) from error

    def explain(self, payload: RawPayload, content_type: str | None, cause: BaseException | None) -> InvalidPayload:
        """Returns an error without a reason, because `decode` raises one with the reason."""
        return InvalidPayload("The payload does not fit the model.")

    def with_clues(self, failed: ModelFailed, data: Any) -> ModelFailed:
        """Returns the error unchanged, because the schema has checked each record."""
        return failed

    def decode_record(self, record: Any, params: dict[str, Any] | None) -> ModelInput:
        """Parses and checks one record."""
        try:
            return ModelInput([self._schema.parse(self._schema.of_message(record))])
        except RecordRefused as refused:
            raise InvalidPayload(**refused.error_arguments()) from None

    def explain_record(self, record: Any, params: dict[str, Any] | None, cause: BaseException | None) -> InvalidPayload:
        """Returns an error without a reason, because `decode_record` raises one with the reason."""
        return InvalidPayload("The record does not fit the model.")

    def decode_columns(self, columns: dict[str, Any]) -> ModelInput | None:
        """Returns None, because records are objects of the schema library."""
        return None

    def decode_records(self, records: Records, params: dict[str, Any] | None) -> ModelInput:
        """Parses and checks the records one by one."""
        return ModelInput(self._checked(map(self._schema.of_message, records.iterate()), is_bare=False))

    def explain_records(
        self, records: Records, params: dict[str, Any] | None, cause: BaseException | None
    ) -> InvalidPayload:
        """Returns an error without a reason, because `decode_records` raises one with the reason."""
        return InvalidPayload("The records do not fit the model.")

    def columns(self, predictions: Any) -> None:
        """Returns None, because predictions are objects of the schema library."""

    def rows(self, predictions: Any, count: int) -> list[Any]:
        """Returns the outputs as JSON values, except that bytes stay bytes.

        Raises:
            UnserializableOutput: An output has no JSON form.

        """
        try:
            return [self._schema.values(prediction) for prediction in predictions]
        except Exception as error:
            raise UnserializableOutput(NO_FORM) from error

    def value(self, predictions: Any) -> Any:
        """Returns the output for the one record; raises the errors of `rows`."""
        return self.rows(predictions[:1], 1)[0]

    def _records(self, payload: Any) -> tuple[list[dict[str, Any]], bool]:
        """Returns the records of a payload, and True if it is one bare record."""
        if not isinstance(payload, dict):
            _refuse(f"a record is a JSON object, and this is {_article(payload)}")
        formats = [key for key in payload if key in SHAPES and key not in self._schema.fields]
        if not formats:
            return [payload], True
        if len(formats) > 1 or set(payload) - set(formats):
            extra = sorted(set(payload) - {formats[0]})
            _refuse(f"beside {formats[0]} there is {', '.join(extra)}; send one format and no params")
        (key,) = formats
        records = _format_records(key, payload[key])
        if records is None:
            _refuse(f"{key} must be {SHAPES[key]}", field=key)
        return records, False


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        _refuse(f"it is not valid JSON: {error.msg.split(':')[0]} (line {error.lineno}, column {error.colno})")
    except RecursionError:
        _refuse("it is nested too deep to be parsed")
    except ValueError:
        _refuse("it has an integer of too many digits")


def _table(text: str) -> tuple[list[str], list[list[str]]]:
    """Returns the names and rows of a CSV table with a header."""
    reader = csv.reader(StringIO(text), strict=True)
    try:
        names, *rows = [row for row in reader if row]
    except csv.Error as error:
        _refuse(f"it is not valid CSV: {error} (line {reader.line_num})")
    except ValueError:
        _refuse("a CSV table begins with a line of column names")
    if any(len(row) != len(names) for row in rows):
        _refuse("each line of a CSV table must have as many cells as the first has names")
    return names, rows


def _no_names(names: list[str], violations: tuple[FieldViolation, ...]) -> InvalidPayload:
    """Returns the error for a CSV table without any field of the model; its text has names that the caller chose."""
    problem = "None of the model's fields is in the CSV. Its first line is taken for their names."
    seen = ", ".join(json.dumps(name[:MAX_CHARACTERS], ensure_ascii=False) for name in names[:MAX_NAMES])
    return InvalidPayload(
        f"{problem} Seen in their place: {seen}. `mlflow-grpc-predict --describe MODEL` prints a payload that the "
        "model takes.",
        reason="INVALID_PARAMETER_VALUE",
        error_class="SCHEMA_ENFORCEMENT_FAILED",
        violations=violations,
        logged=problem,
    )


def _format_records(key: str, value: Any) -> list[dict[str, Any]] | None:
    if key == "dataframe_split":
        return _split_records(value)
    if key == "inputs" and isinstance(value, dict):
        return _column_records(value)
    return value if isinstance(value, list) and all(isinstance(record, dict) for record in value) else None


def _split_records(value: Any) -> list[dict[str, Any]] | None:
    if not isinstance(value, dict) or not {"columns", "data"} <= set(value) <= {"columns", "data", "index"}:
        return None
    names, rows = value["columns"], value["data"]
    if not isinstance(names, list) or not isinstance(rows, list) or not all(isinstance(name, str) for name in names):
        return None
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return None
    return [dict(zip(names, row, strict=True)) for row in rows]


def _column_records(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    columns = list(value.values())
    if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _article(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _refuse(what: str, *, field: str | None = None) -> NoReturn:
    violations = (FieldViolation(field, what),) if field else ()
    raise InvalidPayload(f"The payload cannot be read: {what}.", violations=violations)
