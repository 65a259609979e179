"""MLflow's scoring contract: the formats of `mlflow models serve`, parsed and written by MLflow itself.

Rule of this module: MLflow's own functions decide whether a payload is valid. Only the text of a refusal is made here
(`mlflow_grpc.payload.mlflow_json.refusals`), because MLflow's text repeats the payload.
"""

import base64
import json
import math
from dataclasses import replace
from io import BytesIO, StringIO
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc.scoring_server import CONTENT_TYPE_CSV, CONTENT_TYPE_JSON, CONTENT_TYPES
from mlflow.types import DataType

from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.errors import InvalidPayload, ModelFailed, UnsupportedContentType, UnwritableAnswer
from mlflow_grpc.hosting.model import InputRefused
from mlflow_grpc.hosting.pyfunc import internals, type_hints
from mlflow_grpc.payload.codec import ABSENT, ModelInput, Records
from mlflow_grpc.payload.mlflow_json import clues, csv_tables
from mlflow_grpc.payload.mlflow_json.ignored import OfSignature
from mlflow_grpc.payload.mlflow_json.native_values import NativeValues
from mlflow_grpc.payload.mlflow_json.nested_bytes import NestedBytes
from mlflow_grpc.payload.mlflow_json.predictions import Predictions, refuse_rows
from mlflow_grpc.payload.mlflow_json.refusals.explain import Explainer
from mlflow_grpc.payload.mlflow_json.refusals.record_refusals import RecordRefusals


class ScoringCodec:
    """The formats of POST /invocations for one MLflow model.

    Source: `mlflow.pyfunc.scoring_server.invocations`, taken apart at its seams, so that an error
    of the payload, of the model and of the answer can be told apart.
    """

    timestamps_have_timezone = False
    refuses_missing = False

    def __init__(
        self,
        metadata: Model,
        loader_module: str | None,
        item_hint: Any = None,
        *,
        unknown_columns: UnknownColumns = UnknownColumns.IGNORE,
        csv_dates: bool = False,
    ) -> None:
        """Args:
        metadata: The model's.
        loader_module: The module that loads its flavor.
        item_hint: The type of one item of the input, if MLflow validates by a type hint.
        unknown_columns: What becomes of columns and params that the signature does not have.
        csv_dates: Whether points in time are parsed in CSV.
        """
        self._metadata = metadata
        self._input_schema = metadata.get_input_schema()
        self._explainer = Explainer(metadata, loader_module, item_hint, csv_dates=csv_dates)
        self._csv_dates = csv_dates
        self._scalars = _scalars(metadata)
        self._labels = _labels(metadata)
        self._needs_no_field = bool(self._labels) and not any(spec.required for spec in self._input_schema)
        self._is_hinted = internals.is_signature_from_type_hint(metadata)
        self._natives = NativeValues(metadata, item_hint)
        self._refusals = RecordRefusals(metadata, loader_module, item_hint, self._natives)
        self._loader_module, self._item_hint = loader_module, item_hint
        self._bytes = NestedBytes(None if self._is_hinted else self._input_schema)
        self._predictions = Predictions(metadata.get_output_schema())
        self._ignored = OfSignature(metadata, item_hint, unknown_columns)
        self.unknown = self._ignored.unknown

    def decode(self, text: str, content_type: str | None) -> ModelInput:
        """Parses a payload and casts it stage by stage as MLflow's server does.

        JSON goes in as bytes: MLflow's parser then takes a byte order mark and NUL-padded text (which
        it reads as UTF-16) as it does over HTTP.
        """
        mime = _mime(content_type)
        try:
            if mime == CONTENT_TYPE_CSV:
                parsed = ModelInput(csv_tables.read(text, self._input_schema, dates=self._csv_dates))
            elif mime == internals.CONTENT_TYPE_PARQUET:
                parsed = ModelInput(internals.parse_parquet_input(BytesIO(text.encode())))
            else:
                parsed = self._parsed(text.encode())
        except MemoryError:
            raise
        except Exception as error:
            # MLflow answers 400 to what it foresaw. What it did not foresee crashes it (500): nesting
            # too deep, integers of 5,000 digits, a dict as column name. The payload is at fault in both.
            raise InputRefused from error
        ignored = self._ignored.of(parsed.data, parsed.params)
        return replace(parsed, ignored=ignored) if ignored else parsed

    def _parsed(self, payload: Any) -> ModelInput:
        parsed = internals.parse_json(payload, self._metadata, self._input_schema)
        return ModelInput(parsed.data, parsed.params, bare_answer=parsed.is_unified_llm_input)

    def encode(self, predictions: Any, request: ModelInput) -> str:
        """Writes the answer as MLflow does: ASCII JSON with bare NaN and Infinity."""
        plain = predictions.tolist() if isinstance(predictions, np.ndarray) else predictions
        if isinstance(plain, list) and not request.bare_answer:
            # MLflow's encoder differs from the standard one only where that one gives up.
            try:
                return f'{{"predictions": {plain}}}' if _reads_as_json(plain) else json.dumps({"predictions": plain})
            except (TypeError, ValueError, OverflowError, RecursionError):
                pass  # Not suppressed by a context manager: that takes half as long as all the rest.
        answer = StringIO()
        write = internals.unwrapped_predictions_to_json if request.bare_answer else internals.predictions_to_json
        try:
            write(predictions, answer)
        except Exception as error:
            raise UnwritableAnswer(
                "The model returned something that has no JSON form. Let it return a DataFrame, an array, or "
                "lists and dicts of numbers, strings, booleans and None."
            ) from error
        return answer.getvalue()

    def explain(self, text: str, content_type: str | None, cause: BaseException | None) -> InvalidPayload:
        """Finds the words for a refusal; parses the payload once more, so only errors pay for it."""
        if _mime(content_type) == CONTENT_TYPE_JSON:
            return self._explainer.explain_json(text, cause)
        return self._explainer.explain_table(text, _mime(content_type), cause)

    def with_clues(self, failed: ModelFailed, data: Any) -> ModelFailed:
        """The error with the columns that have missing values; see `mlflow_grpc.payload.mlflow_json.clues`."""
        if internals.hides_schema_details():
            return failed
        return clues.with_clues(failed, data, None if self._is_hinted else self._input_schema)

    def decode_record(self, record: Any, params: dict[str, Any] | None) -> ModelInput:
        """Takes a record the way that the same record as JSON goes, so that it comes to the same."""
        if isinstance(record, dict) and not record and self._needs_no_field:
            # MLflow makes a table of no rows of it, and whatever the model made of that would be no answer to a record.
            raise InvalidPayload(
                f"The record has no field: give one of {', '.join(islice(self._labels, 20))} at least.",
                reason="INVALID_PARAMETER_VALUE",
            )
        return self._decode_values(self._as_json(record, params))

    def _decode_values(self, text: str) -> ModelInput:
        """Takes the JSON of records, some of whose values MLflow takes in no form that JSON has."""
        try:
            return self._natives.restored(self._parsed(self._natives.payload(text)))
        except MemoryError:
            raise
        except Exception as error:
            raise InputRefused from error

    def explain_record(self, record: Any, params: dict[str, Any] | None, cause: BaseException | None) -> InvalidPayload:
        """Finds the words for a refusal."""
        return self._refusals.of(self._as_json(record, params), cause)

    def decode_columns(self, columns: dict[str, Any]) -> ModelInput | None:
        """A frame of them, where the columns have names and types that MLflow's parser would leave as they are."""
        if columns.keys() - self._scalars.keys():
            return None
        if any(isinstance(each, np.ndarray) and each.dtype != self._scalars[name] for name, each in columns.items()):
            return None
        return ModelInput(pd.DataFrame(columns))

    def decode_records(self, records: Records, params: dict[str, Any] | None) -> ModelInput:
        """Takes records the way that the same ones as JSON go, so that they come to the same."""
        return self._decode_values(self._rows_as_json(records, params))

    def explain_records(
        self, records: Records, params: dict[str, Any] | None, cause: BaseException | None
    ) -> InvalidPayload:
        """Finds the words for a refusal, and the first record that is refused by itself."""
        place = self._first_refused(records)
        if place is None:
            return self._refusals.of(self._rows_as_json(records, params), cause)
        return self._refusals.of(self._rows_as_json(records.part(place, place + 1), None), cause, f"[{place}]")

    def _first_refused(self, records: Records) -> int | None:
        """The place of the first record that MLflow refuses; None if it takes all without their params.

        Halves are tried, so it is asked few times, and only errors pay.
        """
        if not self._is_refused(records):
            return None
        first, last = 0, records.count
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (first, middle) if self._is_refused(records.part(first, middle)) else (middle, last)
        return first if self._is_refused(records.part(first, last)) else None

    def _is_refused(self, records: Records) -> bool:
        try:
            data = self.decode_records(records, None).data
            if self._is_hinted:
                return any(any(type_hints.problems(self._item_hint, item)) for item in data)
            internals.enforce_schema(data, self._input_schema, self._loader_module)
        except (InputRefused, InvalidPayload, MlflowException):
            return True
        return False

    def rows(self, predictions: Any, count: int) -> list[Any]:
        """What was predicted for each of so many rows."""
        return self._predictions.rows(predictions, count)

    def value(self, predictions: Any) -> Any:
        """What was predicted for the one row; the whole of what has no rows."""
        rows = self._predictions.rows(predictions, 1)
        if len(rows) != 1:
            refuse_rows(len(rows))
        return rows[0]

    def _as_json(self, record: Any, params: dict[str, Any] | None) -> str:
        payload: dict[str, Any]
        if not isinstance(record, dict) or (self._input_schema is not None and self._input_schema.is_tensor_spec()):
            return self._dumped({"inputs": record}, params)
        record = self._bytes.as_texts(record)
        if self._labels and not all(isinstance(label, str) for label in self._labels.values()):
            columns = [self._labels[name] for name in record]
            payload = {"dataframe_split": {"columns": columns, "data": [list(record.values())]}}
        elif self._labels:
            payload = {"dataframe_records": [record]}
        else:
            values = list(record.values())
            payload = {"inputs": values or [None]} if self._is_hinted else {"dataframe_split": {"data": [values]}}
        return self._dumped(payload, params)

    def _dumped(self, payload: dict[str, Any], params: dict[str, Any] | None) -> str:
        is_tensor = self._input_schema is not None and self._input_schema.is_tensor_spec()
        default = _as_an_element if is_tensor else _as_mlflow_reads_it
        return json.dumps({**payload, "params": params} if params else payload, default=default)

    def _rows_as_json(self, records: Records, params: dict[str, Any] | None) -> str:
        payload: dict[str, Any]
        columns = records.columns
        if self._input_schema is not None and self._input_schema.is_tensor_spec():
            inputs = columns if self._input_schema.has_input_names() else next(iter(columns.values()))
            return self._dumped({"inputs": inputs}, params)
        columns = self._bytes.of_rows(columns)
        if self._labels:
            rows = list(zip(*columns.values(), strict=True))
            payload = {"dataframe_split": {"columns": [self._labels[name] for name in columns], "data": rows}}
        elif self._is_hinted:
            payload = {"inputs": next(iter(columns.values()))}
        else:
            payload = {"dataframe_split": {"data": list(zip(*columns.values(), strict=True))}}
        return self._dumped(payload, params)


def _labels(metadata: Model) -> dict[str, Any]:
    """The labels of the columns by their names as texts, since a frame may have integers for labels; none if there are
    columns without.
    """
    schema = metadata.get_input_schema()
    if schema is None or any(spec.name is None or spec.name == "" for spec in schema):
        return {}
    return {str(spec.name): spec.name for spec in schema}


_TAKEN_AS_THEY_ARE = {
    DataType.boolean,
    DataType.integer,
    DataType.long,
    DataType.float,
    DataType.double,
    DataType.string,
    DataType.datetime,
}


def _scalars(metadata: Model) -> dict[str, Any]:
    """The columns of scalars that need no cast when they have numpy's types, with these types."""
    schema = metadata.get_input_schema()
    if schema is None or not schema.has_input_names() or schema.is_tensor_spec():
        return {}
    if internals.is_signature_from_type_hint(metadata):
        return {}
    return {
        spec.name: spec.type.to_numpy()
        for spec in schema
        if isinstance(spec.name, str) and isinstance(spec.type, DataType) and spec.type in _TAKEN_AS_THEY_ARE
    }


def _as_mlflow_reads_it(value: Any) -> Any:
    if value is ABSENT:
        return None
    return value.tolist() if isinstance(value, np.ndarray) else base64.b64encode(value).decode()


def _as_an_element(value: Any) -> Any:
    """MLflow takes the elements of a tensor of bytes as texts, and refuses what is not ASCII."""
    return value.tolist() if isinstance(value, np.ndarray) else value.decode("latin-1")


def _reads_as_json(values: list[Any]) -> bool:
    """Whether Python writes a list as JSON does: numbers, but for NaN and Infinity."""
    kinds = set(map(type, values))
    return kinds == {int} or (kinds <= {int, float} and all(map(math.isfinite, values)))


def _mime(content_type: str | None) -> str:
    if content_type is None:
        return CONTENT_TYPE_JSON
    if internals.refuses_content_type(content_type):
        raise UnsupportedContentType(
            f"The metadata key mlflow-content-type must be one of {', '.join(CONTENT_TYPES)} (the default is "
            f"{CONTENT_TYPE_JSON}), with no parameter but charset=utf-8."
        )
    return content_type.split(";")[0].strip()
