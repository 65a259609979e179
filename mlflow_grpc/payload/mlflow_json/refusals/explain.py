"""Explanations of payloads that MLflow refused.

Rule of this module: it judges nothing. MLflow has already refused the payload, and the explainer searches for the
reason; without one, the error states only that the payload was refused. Texts contain names from the model's signature,
types, shapes and positions, never a value or a name that the caller chose.

`column_faults` searches in tables, `tensor_faults` in arrays, `hint_faults` in inputs of type hints, `param_faults` in
params, `chat_faults` in requests to chat APIs, and `value_faults` within one value. `errors` writes the error.
"""

import copy
import json
from collections.abc import Callable, Iterator
from enum import Enum
from io import StringIO
from itertools import islice
from typing import Any

import pandas as pd
from mlflow.models import Model
from mlflow.types import Schema
from mlflow.types.schema import Object, Property

from mlflow_grpc.errors import FieldViolation, InvalidPayload
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.codec import RawPayload, text_of
from mlflow_grpc.payload.mlflow_json import csv_tables
from mlflow_grpc.payload.mlflow_json.native_values import restore
from mlflow_grpc.payload.mlflow_json.refusals import (
    caller_names,
    chat_faults,
    hint_faults,
    json_terms,
    param_faults,
    tensor_faults,
)
from mlflow_grpc.payload.mlflow_json.refusals.advice import Advice, names_of
from mlflow_grpc.payload.mlflow_json.refusals.column_faults import ColumnFaults, Probe
from mlflow_grpc.payload.mlflow_json.refusals.errors import MAX_VIOLATIONS, refusal, signature_refusal
from mlflow_grpc.payload.mlflow_json.refusals.format_faults import SHAPE_PROBLEMS, lengths_problem, table_problem
from mlflow_grpc.payload.mlflow_json.refusals.tables import BareTable, CsvTable, Table, table_of

FORMATS = sorted(internals.SUPPORTED_FORMATS)


class Source(Enum):
    """Form in which the caller sent a payload; it decides how paths are written."""

    JSON = "a payload"
    RECORD = "a message of the model's own types"


class Explainer:
    """Search for the reasons of refusals by one model."""

    def __init__(
        self,
        metadata: Model,
        loader_module: str | None,
        item_hint: Any = None,
        *,
        schema: Schema | None = None,
        csv_dates: bool = False,
    ) -> None:
        """Takes the model's signature.

        Args:
            metadata: The model's metadata.
            loader_module: The module that loads its flavor.
            item_hint: Type of one item of the input, if MLflow validates by a type hint.
            schema: Input schema with other names than the model's; None for the model's own.
            csv_dates: True if points in time are parsed in CSV.

        """
        self._csv_dates = csv_dates
        self._metadata = metadata
        self._loader_module = loader_module
        self._schema: Schema | None = metadata.get_input_schema() if schema is None else schema
        self._params = metadata.get_params_schema()
        self._item_hint = item_hint
        self._advice = Advice(metadata, loader_module, self._schema, csv_dates=csv_dates)

    def explain_json(self, text: str, cause: BaseException | None, source: Source = Source.JSON) -> InvalidPayload:
        """Explains why a JSON payload was refused: by its syntax, its outer form, or its columns and params.

        Args:
            text: The payload.
            cause: The exception that MLflow raised.
            source: Form in which the caller sent the payload.

        """
        if not text.strip():
            return refusal(f"The payload is empty.{self._advice.json()}", cause)
        try:
            payload = json.loads(text.encode())
        except RecursionError:
            return refusal("The payload is nested too deep to be parsed.", cause)
        except json.JSONDecodeError as error:
            message = f"{error.msg.split(':')[0]} (line {error.lineno}, column {error.colno})"
            hint = " CSV needs the content type text/csv." if caller_names.is_csv(text, names_of(self._schema)) else ""
            return refusal(f"The payload is not valid JSON: {message}.{hint}{self._advice.json()}", cause)
        except UnicodeDecodeError:
            return refusal("The payload is not valid JSON: it starts like UTF-16 or UTF-32 and is not.", cause)
        except ValueError:
            return refusal("The payload holds an integer with too many digits to be parsed.", cause)
        return self.explain_payload(payload, cause, source)

    def explain_payload(
        self, payload: Any, cause: BaseException | None, source: Source = Source.JSON
    ) -> InvalidPayload:
        """Explains why a parsed payload was refused; see `explain_json`."""
        try:
            if not isinstance(payload, dict):
                text = f"The payload must be a JSON object, it is {json_terms.article(payload)}.{self._advice.json()}"
                return refusal(text, cause)
            return self._explain_document(payload, cause, source)
        except Exception:  # noqa: BLE001
            # The search failed on an unusual payload, which MLflow has refused nevertheless.
            return refusal("The payload was refused.", cause)

    def explain_table(self, payload: RawPayload, mime: str, cause: BaseException | None) -> InvalidPayload:
        """Explains why a CSV or Parquet payload was refused."""
        if mime != "text/csv":
            is_text = isinstance(payload, str)
            text_cannot = f"The payload is not {mime}, which text cannot carry; send JSON or CSV."
            no_parquet = "The payload is not a Parquet file that pandas.read_parquet can read."
            return refusal(text_cannot if is_text else no_parquet, cause)
        text = text_of(payload)
        try:
            frame = pd.read_csv(StringIO(text))
        except Exception:  # noqa: BLE001 - MLflow takes every exception of pandas for a refusal
            empty = "The CSV has no rows: send a line of names and one row at least."
            text = "The payload is not CSV that pandas.read_csv can read." if text.strip() else empty
            return refusal(f"{text}{self._advice.csv()}", cause)
        schema = self._schema
        if schema is None:
            return refusal("The model cannot take this CSV.", cause)

        if schema.is_tensor_spec():
            text = "The model's inputs are tensors, which CSV does not carry: send inputs as JSON."
            return refusal(f"{text}{self._advice.json()}", cause)
        if not schema.has_input_names():
            text = "The CSV does not fit the model's columns, which have no names: send dataframe_split as JSON."
            return refusal(text, cause)

        def probe(payload: Any, sub_schema: Schema) -> None:
            parsed = csv_tables.read(payload, sub_schema, dates=self._csv_dates)
            internals.enforce_schema(parsed, sub_schema, self._loader_module)

        return self._explain_table(CsvTable(frame, schema.inputs), schema, probe, cause)

    def _explain_document(self, payload: dict[str, Any], cause: BaseException | None, source: Source) -> InvalidPayload:
        llm = internals.is_unified_llm_input(payload)
        hinted = internals.is_signature_from_type_hint(self._metadata)
        formats = [key for key in FORMATS if key in payload]
        if len(formats) != 1 and not llm and not hinted:
            text = f"The payload must have exactly one of the keys {', '.join(FORMATS)}; it has "
            if formats:
                return refusal(f"{text}{' and '.join(formats)}.", cause)
            return self._explain_no_format(payload, f"{text}none of them.", cause)
        params = payload if llm else payload.get("params")
        if violations := list(param_faults.violations(self._params, params, is_bare=llm)):
            return refusal("The params do not fit the model's signature.", cause, violations)
        if llm:
            return self._explain_llm(payload, cause)
        if hinted:
            return self._explain_type_hint(payload, cause, source)
        return self._explain_format(formats[0], payload[formats[0]], cause, source)

    def _explain_no_format(self, payload: dict[str, Any], text: str, cause: BaseException | None) -> InvalidPayload:
        """Explains an object without a format, which may be a record or the columns of a table by itself."""
        names = names_of(self._schema)
        if caller_names.is_bare_record(payload, names) and not internals.hides_schema_details():
            return refusal(self._advice.bare(payload), cause)
        keys = caller_names.keys(list(payload))
        return refusal(f"{text}{self._advice.json()}", cause, caller_names=keys)

    def _explain_llm(self, payload: dict[str, Any], cause: BaseException | None) -> InvalidPayload:
        schema = self._schema
        error = None if internals.refusing_chat_api(cause) is not None else hint_faults.pydantic_error(cause)
        if error is not None:
            specs: list[Any] = list(schema.inputs) if schema is not None and schema.has_input_names() else []
            outer = Object([Property(str(spec.name), spec.type, spec.required) for spec in specs]) if specs else None
            violations = [
                FieldViolation(field or "request", str(fault))
                for field, fault in hint_faults.pydantic_faults(error, payload, outer, "the payload")
            ]
            return refusal("The request does not fit the model.", cause, violations)
        if schema is None or not schema.has_input_names():
            return refusal("The request does not fit the model.", cause)

        def probe(payload: Any, sub_schema: Schema) -> None:
            internals.enforce_schema(payload, sub_schema, self._loader_module)

        table = BareTable(payload, schema.inputs)
        if not any(table.has(index) for index in range(len(schema.inputs))):
            text = (
                "A payload with the key messages, prompt or input is taken as it is, for a language model; the model's"
            )
            names = ", ".join(str(spec.name) for spec in schema.inputs[:MAX_VIOLATIONS])
            return signature_refusal(f"{text} inputs are {names}.{self._advice.json()}", cause)
        return self._explain_table(table, schema, probe, cause)

    def _explain_type_hint(
        self, payload: dict[str, Any], cause: BaseException | None, source: Source
    ) -> InvalidPayload:
        if "inputs" not in payload:
            return refusal(
                'The model has a type hint: the payload must have the key inputs with an array, such as {"inputs": '
                "[...]}, and no other format.",
                cause,
            )
        spec = self._schema.inputs[0] if self._schema and len(self._schema.inputs) == 1 else None
        items = payload["inputs"]
        if spec is None:
            return refusal("The inputs do not match the model's type hint.", cause)
        expected = f"each item of inputs must be {json_terms.expected(spec)}"
        if not isinstance(items, list):
            violations = [FieldViolation("inputs", f"is {json_terms.article(items)}; must be an array, and {expected}")]
        else:
            violations = list(islice(self._hint_violations(items, spec.type, source), MAX_VIOLATIONS))
        return signature_refusal(f"The inputs do not match the model's type hint: {expected}.", cause, violations)

    def _hint_violations(self, items: list[Any], schema_type: Any, source: Source) -> Iterator[FieldViolation]:
        for index, item in enumerate(items):
            path = f"inputs[{index}]" if source is Source.JSON else "value"
            for fault in hint_faults.within_hint(item, schema_type, self._item_hint, path):
                yield FieldViolation(fault.path, f"{fault.problem}; {fault.remedy}")

    def _explain_format(self, key: str, value: Any, cause: BaseException | None, source: Source) -> InvalidPayload:
        shape_problem = SHAPE_PROBLEMS[key](value)
        schema = self._schema
        if shape_problem and (schema is None or not schema.is_tensor_spec() or key.startswith("dataframe")):
            return refusal(f"{shape_problem}{self._advice.json()}", cause)
        if schema is None:
            text = lengths_problem(key, value) or f"The value of {key} cannot be made into a table or an array."
            return refusal(text, cause)
        if schema.is_tensor_spec():
            if tensor_faults.is_empty(key, value) and source is Source.JSON:
                return signature_refusal(f"{key} is empty: send one row at least.{self._advice.json()}", cause)
            violations = tensor_faults.violations(key, value, schema, is_message=source is not Source.JSON)
            text = f"The value of {key} does not fit the model's signature."
            if not violations:
                takes = " and ".join(json_terms.expected(spec) for spec in schema.inputs[:MAX_VIOLATIONS])
                text = f"{text[:-1]}, which takes {takes}; send it as inputs."
            return signature_refusal(text, cause, violations)
        table = table_of(key, value, schema)
        if table is None:
            text, violations = table_problem(key, value, schema)
            return signature_refusal(f"{text}.{self._advice.json()}", cause, violations)

        def probe(value: Any, sub_schema: Schema) -> None:
            # A message may have values that JSON does not have. MLflow changes its input, so it gets a copy.
            document = {key: copy.deepcopy(value)} if source is Source.RECORD else json.dumps({key: value}).encode()
            data = internals.parse_json(document, self._metadata, sub_schema).data
            if source is Source.RECORD:
                restore(data)
            internals.enforce_schema(data, sub_schema, self._loader_module)

        return self._explain_table(table, schema, probe, cause, source, lengths_problem(key, value))

    def _explain_table(
        self,
        table: Table,
        schema: Schema,
        probe: Probe,
        cause: BaseException | None,
        source: Source = Source.JSON,
        lengths: str | None = None,
    ) -> InvalidPayload:
        """Explains a table by its columns at fault, or by the lengths of its columns if no column is at fault."""
        api = internals.refusing_chat_api(cause)
        if api is not None and table.count == 1:
            violations = chat_faults.violations(api, table, schema, is_message=source is Source.RECORD)
            return signature_refusal("The request does not fit the model.", cause, violations)
        elsewhere = None if table.format.startswith("dataframe") else self._check_records
        violations = ColumnFaults(table, schema, probe, _PATHS[source], elsewhere).violations()
        text = "The payload does not fit the model's signature."
        names = names_of(schema) if source is Source.JSON else []
        is_missing = bool(names) and any(spec.required and not table.has(i) for i, spec in enumerate(schema.inputs))
        unknown = caller_names.unknown_columns(table.labels, names) if is_missing else ""
        if is_missing and (emptiness := caller_names.emptiness(table)) is not None:
            advice = self._advice.csv() if isinstance(table, CsvTable) else self._advice.json()
            return signature_refusal(
                f"{emptiness}{advice}", cause, violations, caller_names=unknown, lists_violations=False
            )
        if not violations:
            text = f"{lengths or text}{self._advice.json()}"
        return signature_refusal(text, cause, violations, caller_names=unknown)

    def _check_records(self, records: Any, schema: Schema) -> None:
        parsed = internals.parse_json(json.dumps({"dataframe_records": records}).encode(), self._metadata, schema)
        internals.enforce_schema(parsed.data, schema, self._loader_module)


_PATHS: dict[Source, Callable[[str, int, str], str]] = {
    Source.JSON: lambda label, row, path: path,
    Source.RECORD: lambda label, row, path: label or "the record",
}
