"""Text of an MLModel package: a record as a bare JSON object, or records in MLflow's formats.

A bare object is one record and gets the bare output back. The formats of `mlflow models serve` carry any number of
records and get `{"predictions": [...]}`. A field that is called as a format is takes precedence over it.

Rule of this module: what is a record's fault is said by the model's own schema.
"""

import csv
import json
from collections.abc import Iterable
from io import StringIO
from typing import Any, NoReturn

from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.errors import FieldViolation, InvalidPayload, ModelFailed, UnsupportedContentType, UnwritableAnswer
from mlflow_grpc.hosting.mlmodel.schemas import RecordRefused, RecordSchema
from mlflow_grpc.payload.codec import ModelInput, Records
from mlflow_grpc.payload.unknown_names import Unknown

JSON, CSV = "application/json", "text/csv"

SHAPES = {
    "dataframe_split": "an object with the lists columns and data, where each row of data is as long as columns",
    "dataframe_records": "a list of objects",
    "instances": "a list of objects",
    "inputs": "a list of objects, or an object of lists of the same length",
}
"""The formats and what stands in them."""

NO_FORM = "The model returned something that has no JSON form. Let it return an instance of its output schema."


class RecordsCodec:
    """The formats of one MLModel package."""

    timestamps_have_timezone = True
    refuses_missing = True

    def __init__(self, schema: RecordSchema, *, unknown_columns: UnknownColumns = UnknownColumns.IGNORE) -> None:
        """Args:
        schema: What the model takes and gives.
        unknown_columns: What becomes of fields at the top of a record that it does not have, where it ignores them.
        """
        self._schema = schema
        self.unknown = Unknown(schema.fields, unknown_columns)

    def decode(self, text: str, content_type: str | None) -> ModelInput:
        """Parses and checks records.

        Raises:
            UnsupportedContentType: It is neither JSON nor CSV.
            InvalidPayload: The text does not parse, or a record does not fit the schema.

        """
        mime, _, parameters = (content_type or JSON).partition(";")
        if mime.strip() not in (JSON, CSV) or parameters.strip().lower() not in ("", "charset=utf-8"):
            raise UnsupportedContentType(
                f"The metadata key mlflow-content-type must be {JSON} (the default) or {CSV}, with no parameter but "
                "charset=utf-8."
            )
        if mime.strip() == CSV:
            found, bare = _rows(text), False
        else:
            found, bare = self._records(_parsed(text))
        return ModelInput(self._checked(found, bare=bare), bare_answer=bare, ignored=self._ignored(found))

    def _ignored(self, records: list[dict[str, Any]]) -> tuple[str, ...]:
        if not self._schema.ignores_others or all(record.keys() <= self._schema.fields for record in records):
            return ()
        return self.unknown.told(name for record in records for name in record if name not in self._schema.fields)

    def _checked(self, records: Iterable[dict[str, Any]], *, bare: bool) -> list[Any]:
        checked = []
        for place, record in enumerate(records):
            try:
                checked.append(self._schema.parse(record))
            except RecordRefused as refused:
                raise InvalidPayload(**refused.error_arguments("" if bare else f"[{place}]")) from None
        return checked

    def encode(self, predictions: Any, request: ModelInput) -> str:
        """Writes the outputs as JSON.

        Raises:
            UnwritableAnswer: An output has no form in JSON.

        """
        try:
            plain = [self._schema.dump(output) for output in predictions]
            return json.dumps(plain[0] if request.bare_answer else {"predictions": plain})
        except Exception as error:
            raise UnwritableAnswer(NO_FORM) from error

    def explain(self, text: str, content_type: str | None, cause: BaseException | None) -> InvalidPayload:
        """Says that a payload was refused; `decode` has said why."""
        return InvalidPayload("The payload does not fit the model.")

    def with_clues(self, failed: ModelFailed, data: Any) -> ModelFailed:
        """The error as it is: the schema has checked each record."""
        return failed

    def decode_record(self, record: Any, params: dict[str, Any] | None) -> ModelInput:
        """Checks one record."""
        try:
            return ModelInput([self._schema.parse(self._schema.of_message(record))])
        except RecordRefused as refused:
            raise InvalidPayload(**refused.error_arguments()) from None

    def explain_record(self, record: Any, params: dict[str, Any] | None, cause: BaseException | None) -> InvalidPayload:
        """Says that a record was refused; `decode_record` has said why."""
        return InvalidPayload("The record does not fit the model.")

    def decode_columns(self, columns: dict[str, Any]) -> ModelInput | None:
        """None: records are objects of the schema's."""
        return None

    def decode_records(self, records: Records, params: dict[str, Any] | None) -> ModelInput:
        """Checks one record after the other."""
        return ModelInput(self._checked(map(self._schema.of_message, records.each()), bare=False))

    def explain_records(
        self, records: Records, params: dict[str, Any] | None, cause: BaseException | None
    ) -> InvalidPayload:
        """Says that a record was refused; `decode_records` has said why."""
        return InvalidPayload("The records do not fit the model.")

    def rows(self, predictions: Any, count: int) -> list[Any]:
        """The outputs, as JSON says them but with bytes.

        Raises:
            UnwritableAnswer: An output has no form in JSON.

        """
        try:
            return [self._schema.values(prediction) for prediction in predictions]
        except Exception as error:
            raise UnwritableAnswer(NO_FORM) from error

    def value(self, predictions: Any) -> Any:
        """The output for the one record; raises what `rows` raises."""
        return self.rows(predictions[:1], 1)[0]

    def _records(self, payload: Any) -> tuple[list[dict[str, Any]], bool]:
        """The records of a payload, and whether it is one bare record."""
        if not isinstance(payload, dict):
            _refuse(f"a record is a JSON object, and this is {_article(payload)}")
        formats = [key for key in payload if key in SHAPES and key not in self._schema.fields]
        if not formats:
            return [payload], True
        if len(formats) > 1 or set(payload) - set(formats):
            other = sorted(set(payload) - {formats[0]})
            _refuse(f"beside {formats[0]} there is {', '.join(other)}; send one format and no params")
        (key,) = formats
        records = _of_format(key, payload[key])
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


def _rows(text: str) -> list[dict[str, Any]]:
    """The records of a CSV table with a header; an empty cell is an absent field."""
    reader = csv.reader(StringIO(text), strict=True)
    try:
        names, *rows = [row for row in reader if row]
    except csv.Error as error:
        _refuse(f"it is not valid CSV: {error} (line {reader.line_num})")
    except ValueError:
        _refuse("a CSV table begins with a line of column names")
    if any(len(row) != len(names) for row in rows):
        _refuse("each line of a CSV table must have as many cells as the first has names")
    return [{name: cell for name, cell in zip(names, row, strict=True) if cell != ""} for row in rows]


def _of_format(key: str, value: Any) -> list[dict[str, Any]] | None:
    if key == "dataframe_split":
        return _of_split(value)
    if key == "inputs" and isinstance(value, dict):
        return _of_columns(value)
    return value if isinstance(value, list) and all(isinstance(record, dict) for record in value) else None


def _of_split(value: Any) -> list[dict[str, Any]] | None:
    if not isinstance(value, dict) or not {"columns", "data"} <= set(value) <= {"columns", "data", "index"}:
        return None
    names, rows = value["columns"], value["data"]
    if not isinstance(names, list) or not isinstance(rows, list) or not all(isinstance(name, str) for name in names):
        return None
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return None
    return [dict(zip(names, row, strict=True)) for row in rows]


def _of_columns(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    columns = list(value.values())
    if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _article(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _refuse(what: str, *, field: str | None = None) -> NoReturn:
    violations = (FieldViolation(field, what),) if field else ()
    raise InvalidPayload(f"The payload cannot be read: {what}.", violations=violations)
