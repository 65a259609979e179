"""MLflow's scoring contract: the formats of `mlflow models serve`, parsed and written by MLflow itself.

Rule of this module: MLflow's own functions decide whether a payload is valid. Only the text of a refusal is this
project's (`mlflow_grpc.payload.mlflow_json.refusals`), because MLflow's text repeats the payload.
"""

import contextlib
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
from mlflow_grpc.errors import InvalidPayload, ModelFailed, UnserializableOutput, UnsupportedContentType
from mlflow_grpc.hosting.model import InputRejected
from mlflow_grpc.hosting.pyfunc import internals, payload_check, type_hints
from mlflow_grpc.payload.codec import ModelInput, RawPayload, Records, text_of
from mlflow_grpc.payload.mlflow_json import clues, csv_tables
from mlflow_grpc.payload.mlflow_json.ignored import IgnoredNames
from mlflow_grpc.payload.mlflow_json.native_values import NativeValues
from mlflow_grpc.payload.mlflow_json.predictions import Predictions, refuse_rows
from mlflow_grpc.payload.mlflow_json.record_payloads import RecordPayloads
from mlflow_grpc.payload.mlflow_json.refusals.explain import Explainer
from mlflow_grpc.payload.mlflow_json.refusals.record_refusals import RecordRefusals

_TEXT_TYPES = (CONTENT_TYPE_JSON, CONTENT_TYPE_CSV)
"""Media types that gRPC can carry. From MLflow 3.10 on, HTTP can carry Parquet too."""


class ScoringCodec:
    """Formats of POST /invocations for one MLflow model.

    Source: `mlflow.pyfunc.scoring_server.invocations`, split into parsing, prediction and writing, so that errors of
    the payload, of the model and of the answer can be distinguished.
    """

    media_type = CONTENT_TYPE_JSON
    timestamps_have_timezone = False
    refuses_missing = False

    def __init__(
        self,
        metadata: Model,
        loader_module: str | None,
        item_hint: Any = None,
        *,
        unknown_columns: UnknownColumns = UnknownColumns.IGNORE,
        judges_columns: bool = True,
        csv_dates: bool = False,
    ) -> None:
        """Prepares the codec for the model's signature.

        Args:
            metadata: The model's metadata.
            loader_module: The module that loads its flavor.
            item_hint: Type of one item of the input, if MLflow validates by a type hint.
            unknown_columns: Treatment of columns and params that the signature does not have.
            judges_columns: False if a hook may use columns that the signature does not have.
            csv_dates: True if points in time are parsed in CSV.

        """
        self._metadata = metadata
        self._input_schema = metadata.get_input_schema()
        self._explainer = Explainer(metadata, loader_module, item_hint, csv_dates=csv_dates)
        self._csv_dates = csv_dates
        self._scalars = _scalars(metadata)
        self._record_payloads = RecordPayloads(metadata)
        has_labels = bool(self._record_payloads.labels)
        self._needs_no_field = has_labels and not any(spec.required for spec in self._input_schema)
        self._is_hinted = internals.is_signature_from_type_hint(metadata)
        self._natives = NativeValues(metadata, item_hint)
        self._refusals = RecordRefusals(metadata, loader_module, item_hint, self._natives)
        self._loader_module, self._item_hint = loader_module, item_hint
        self._predictions = Predictions(metadata.get_output_schema())
        self._ignored = IgnoredNames(metadata, item_hint, unknown_columns, judges_columns=judges_columns)
        self.unknown = self._ignored.unknown

    def asks_for_stream(self, payload: RawPayload) -> bool:
        """Returns True for a payload of chat or completions, MLflow's unified LLM input, with `"stream": true`."""
        if (b'"stream"' if isinstance(payload, bytes) else '"stream"') not in payload:  # type: ignore[operator]
            return False
        try:
            document = json.loads(payload)
        except (ValueError, RecursionError):
            return False
        is_unified = isinstance(document, dict) and internals.is_unified_llm_input(document)
        return is_unified and document.get("stream") is True

    def accepts(self, payload: str, content_type: str) -> bool:
        """Returns True if a payload passes the checks that MLflow makes before it calls the model."""
        checked_by = {"item_hint": self._item_hint, "loader_module": self._loader_module}
        if content_type == CONTENT_TYPE_JSON:
            return payload_check.is_taken(self._metadata, payload, **checked_by)
        try:
            data = self.decode(payload, content_type).data
        except InputRejected:
            return False
        return payload_check.fits(self._metadata, data, **checked_by)

    def decode(self, payload: RawPayload, content_type: str | None) -> ModelInput:
        """Parses and casts a payload in the stages of MLflow's server.

        JSON is passed on as bytes, so that MLflow's parser accepts a byte order mark and NUL-padded text (which it
        reads as UTF-16) as it does over HTTP.
        """
        mime = _mime(content_type)
        try:
            if mime == CONTENT_TYPE_CSV:
                parsed = ModelInput(csv_tables.read(text_of(payload), self._input_schema, dates=self._csv_dates))
            elif mime == internals.CONTENT_TYPE_PARQUET:
                parsed = ModelInput(internals.parse_parquet_input(BytesIO(_bytes_of(payload))))
            else:
                parsed = self._parsed(_bytes_of(payload))
        except MemoryError:
            raise
        except Exception as error:
            # MLflow's server answers 400 to the faults that it expects. Others make it crash (500): nesting that is too
            # deep, integers of 5,000 digits, a dict as a column name. The payload is at fault in both cases.
            raise InputRejected from error
        ignored = self._ignored.names(parsed.data, parsed.params)
        return replace(parsed, ignored=ignored) if ignored else parsed

    def _parsed(self, payload: Any) -> ModelInput:
        parsed = internals.parse_json(payload, self._metadata, self._input_schema)
        return ModelInput(parsed.data, parsed.params, bare_answer=parsed.is_unified_llm_input)

    def encode(self, predictions: Any, request: ModelInput) -> str:
        """Writes the answer in MLflow's form: ASCII JSON with bare NaN and Infinity."""
        values = predictions.tolist() if isinstance(predictions, np.ndarray) else predictions
        if isinstance(values, list) and not request.bare_answer:
            # MLflow's encoder differs from the standard one only for values that the standard one refuses.
            try:
                return f'{{"predictions": {values}}}' if _reads_as_json(values) else json.dumps({"predictions": values})
            except (TypeError, ValueError, OverflowError, RecursionError):
                pass  # No `contextlib.suppress`, because it would take half as long as the encoding.
        answer = StringIO()
        write = internals.unwrapped_predictions_to_json if request.bare_answer else internals.predictions_to_json
        try:
            write(predictions, answer)
        except Exception as error:
            raise UnserializableOutput(
                "The model returned something that has no JSON form. Let it return a DataFrame, an array, or "
                "lists and dicts of numbers, strings, booleans and None."
            ) from error
        return answer.getvalue()

    def explain(self, payload: RawPayload, content_type: str | None, cause: BaseException | None) -> InvalidPayload:
        """Explains a refusal; parses the payload once more, at the cost of refused payloads only."""
        if _mime(content_type) == CONTENT_TYPE_JSON:
            return self._explainer.explain_json(_json_text(payload), cause)
        return self._explainer.explain_table(payload, _mime(content_type), cause)

    def with_clues(self, failed: ModelFailed, data: Any) -> ModelFailed:
        """Adds the columns with missing values to an error; see `mlflow_grpc.payload.mlflow_json.clues`."""
        if internals.hides_schema_details():
            return failed
        return clues.with_clues(failed, data, None if self._is_hinted else self._input_schema)

    def decode_record(self, record: Any, params: dict[str, Any] | None) -> ModelInput:
        """Decodes a record as JSON, so that the same record as JSON gets the same answer."""
        if isinstance(record, dict) and not record and self._needs_no_field:
            # MLflow parses it as a table without rows, and predictions for no rows are no answer to a record.
            raise InvalidPayload(
                f"The record has no field: give one of {', '.join(islice(self._record_payloads.labels, 20))} at least.",
                reason="INVALID_PARAMETER_VALUE",
            )
        return self._decode_values(self._record_payloads.of_record(record, params))

    def _decode_values(self, text: str) -> ModelInput:
        """Decodes the JSON of records, with native values for those that MLflow refuses in every JSON form."""
        try:
            return self._natives.restored(self._parsed(self._natives.payload(text)))
        except MemoryError:
            raise
        except Exception as error:
            raise InputRejected from error

    def explain_record(self, record: Any, params: dict[str, Any] | None, cause: BaseException | None) -> InvalidPayload:
        """Explains a refusal by `decode_record` or by the model's own checks."""
        return self._refusals.explain(self._record_payloads.of_record(record, params), cause)

    def decode_columns(self, columns: dict[str, Any]) -> ModelInput | None:
        """Returns a frame if the columns have names, and types that MLflow's parser does not cast; otherwise None."""
        if columns.keys() - self._scalars.keys():
            return None
        arrays = ((name, column) for name, column in columns.items() if isinstance(column, np.ndarray))
        if any(array.dtype != self._scalars[name] for name, array in arrays):
            return None
        return ModelInput(pd.DataFrame(columns))

    def decode_records(self, records: Records, params: dict[str, Any] | None) -> ModelInput:
        """Decodes records as JSON, so that the same records as JSON get the same answers."""
        return self._decode_values(self._record_payloads.of_records(records, params))

    def explain_records(
        self, records: Records, params: dict[str, Any] | None, cause: BaseException | None
    ) -> InvalidPayload:
        """Explains a refusal by the first record that is refused by itself, or by all records if none is."""
        index = self._first_refused(records)
        if index is None:
            return self._refusals.explain(self._record_payloads.of_records(records, params), cause)
        payload = self._record_payloads.of_records(records.slice(index, index + 1), None)
        return self._refusals.explain(payload, cause, f"[{index}]")

    def _first_refused(self, records: Records) -> int | None:
        """Returns the index of the first record that MLflow refuses; None if it accepts all without their params.

        The search halves the records, so MLflow checks them only a few times.
        """
        if not self._is_refused(records):
            return None
        first, last = 0, records.count
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (first, middle) if self._is_refused(records.slice(first, middle)) else (middle, last)
        return first if self._is_refused(records.slice(first, last)) else None

    def _is_refused(self, records: Records) -> bool:
        try:
            data = self.decode_records(records, None).data
            if self._is_hinted:
                return any(any(type_hints.problems(self._item_hint, item)) for item in data)
            internals.enforce_schema(data, self._input_schema, self._loader_module)
        except (InputRejected, InvalidPayload, MlflowException):
            return True
        return False

    def columns(self, predictions: Any) -> dict[str, Any] | None:
        """Returns the columns of a predicted table; see `RecordCodec.columns`."""
        return self._predictions.columns(predictions)

    def rows(self, predictions: Any, count: int) -> list[Any]:
        """Returns the predicted rows; see `RecordCodec.rows`."""
        return self._predictions.rows(predictions, count)

    def value(self, predictions: Any) -> Any:
        """Returns the prediction for the one row; all predictions if they have no rows."""
        rows = self._predictions.rows(predictions, 1)
        if len(rows) != 1:
            refuse_rows(len(rows))
        return rows[0]


_UNCAST_TYPES = frozenset(DataType) - {DataType.binary}


def _scalars(metadata: Model) -> dict[str, Any]:
    """Returns the numpy type of each column of scalars that MLflow does not cast if it has that type."""
    schema = metadata.get_input_schema()
    if schema is None or not schema.has_input_names() or schema.is_tensor_spec():
        return {}
    if internals.is_signature_from_type_hint(metadata):
        return {}
    return {
        spec.name: spec.type.to_numpy()
        for spec in schema
        if isinstance(spec.name, str) and isinstance(spec.type, DataType) and spec.type in _UNCAST_TYPES
    }


def _reads_as_json(values: list[Any]) -> bool:
    """Returns True if Python writes a list in the same way as JSON: integers, or numbers without NaN and Infinity."""
    item_types = set(map(type, values))
    return item_types == {int} or (item_types <= {int, float} and all(map(math.isfinite, values)))


def _bytes_of(payload: RawPayload) -> bytes:
    return payload.encode() if isinstance(payload, str) else payload


def _json_text(payload: RawPayload) -> str:
    """Returns the text of JSON, which may be UTF-16 or UTF-32 too (`json.loads`)."""
    if isinstance(payload, bytes) and (encoding := json.detect_encoding(payload)) != "utf-8":
        with contextlib.suppress(UnicodeDecodeError):
            return payload.decode(encoding)
    return text_of(payload)


def _mime(content_type: str | None) -> str:
    if content_type is None:
        return CONTENT_TYPE_JSON
    if internals.refuses_content_type(content_type):
        raise UnsupportedContentType(_TEXT_TYPES, binary=[mime for mime in CONTENT_TYPES if mime not in _TEXT_TYPES])
    return content_type.split(";")[0].strip()
