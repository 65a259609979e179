"""Finds out why MLflow refused a payload, in words that repeat nothing of it.

Rule of this module: it judges nothing. MLflow has refused the payload already; what is done here is to
look for the reason, and where it is not found, to say only what was refused. Texts hold names from the model's
signature, types, shapes and positions, never a value or a name that the caller chose. Which module looks where:
`column_faults` in tables, `tensor_faults` in arrays, `hint_faults` behind type hints, `faults` within one value.
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from io import StringIO
from itertools import islice
from typing import Any

import pandas as pd
import pydantic
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types import ParamSpec, Schema
from mlflow.types.schema import Object, Property

from mlflow_grpc.errors import FieldViolation, InvalidPayload, Status
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.hosting.pyfunc.model_errors import status_of_error_code
from mlflow_grpc.payload.codec import ABSENT
from mlflow_grpc.payload.mlflow_json import csv_tables
from mlflow_grpc.payload.mlflow_json.native_values import restore
from mlflow_grpc.payload.mlflow_json.refusals import (
    chat_faults,
    hint_faults,
    json_terms,
    seen,
    tensor_faults,
    value_faults,
)
from mlflow_grpc.payload.mlflow_json.refusals.advice import Advice, names_of
from mlflow_grpc.payload.mlflow_json.refusals.column_faults import ColumnFaults, Probe
from mlflow_grpc.payload.mlflow_json.refusals.format_faults import SHAPE_PROBLEMS, lengths_problem
from mlflow_grpc.payload.mlflow_json.refusals.tables import BareTable, CsvTable, Table, table_of

FORMATS = sorted(internals.SUPPORTED_FORMATS)

MOST_VIOLATIONS = 16


class Source(Enum):
    """What a payload was, before it came here as JSON; places are named as the caller has written them."""

    JSON = "a payload"
    RECORD = "a message of the model's own types"


class Explainer:
    """Explains refusals for one model."""

    def __init__(
        self,
        metadata: Model,
        loader_module: str | None,
        item_hint: Any = None,
        *,
        schema: Schema | None = None,
        csv_dates: bool = False,
    ) -> None:
        """Args:
        metadata: Of the model.
        loader_module: Of the model's flavor.
        item_hint: The type of one item of the input, if MLflow validates by a type hint.
        schema: The input schema, if it is to be read with other names than the model's own has.
        csv_dates: Whether points in time are parsed in CSV.
        """
        self._csv_dates = csv_dates
        self._metadata = metadata
        self._loader_module = loader_module
        self._schema: Schema | None = metadata.get_input_schema() if schema is None else schema
        self._params = metadata.get_params_schema()
        self._item_hint = item_hint
        self._advice = Advice(metadata, loader_module, self._schema, csv_dates=csv_dates)

    def explain_json(self, text: str, cause: BaseException | None, source: Source = Source.JSON) -> InvalidPayload:
        """Explains why a JSON payload was refused, by the first of these that applies: the JSON, its outer
        shape, its columns and params.
        """
        try:
            payload = json.loads(text.encode())
        except RecursionError:
            return self._refusal("The payload is nested too deep to be parsed.", cause)
        except json.JSONDecodeError as error:
            words = error.msg.split(":")[0]
            return self._refusal(
                f"The payload is not valid JSON: {words} (line {error.lineno}, column {error.colno}).", cause
            )
        except UnicodeDecodeError:
            return self._refusal("The payload is not valid JSON: it starts like UTF-16 or UTF-32 and is not.", cause)
        except ValueError:
            return self._refusal("The payload holds an integer with too many digits to be parsed.", cause)
        return self.explain_payload(payload, cause, source)

    def explain_payload(
        self, payload: Any, cause: BaseException | None, source: Source = Source.JSON
    ) -> InvalidPayload:
        """Explains why a payload was refused that has been parsed."""
        try:
            if not isinstance(payload, dict):
                text = f"The payload must be a JSON object, it is {json_terms.article(payload)}.{self._advice.json()}"
                return self._refusal(text, cause)
            return self._explain_document(payload, cause, source)
        except Exception:  # noqa: BLE001
            # Whatever odd payload trips the search for a reason: that it was refused still stands.
            return self._refusal("The payload was refused.", cause)

    def explain_table(self, text: str, mime: str, cause: BaseException | None) -> InvalidPayload:
        """Explains why a CSV or Parquet payload was refused."""
        if mime != "text/csv":
            return self._refusal(f"The payload is not {mime}, which text cannot carry; send JSON or CSV.", cause)
        try:
            frame = pd.read_csv(StringIO(text))
        except Exception:  # noqa: BLE001 - MLflow takes any of pandas's for a refusal, too
            empty = "The CSV has no rows: send a line of names and one row at least."
            text = "The payload is not CSV that pandas.read_csv can read." if text.strip() else empty
            return self._refusal(f"{text}{self._advice.csv()}", cause)
        schema = self._schema
        if schema is None:
            return self._refusal("The model cannot take this CSV.", cause)

        if schema.is_tensor_spec():
            return self._refusal(
                "The model's inputs are tensors, which CSV does not carry: send inputs as JSON.", cause
            )
        if not schema.has_input_names():
            text = "The CSV does not fit the model's columns, which have no names: send dataframe_split as JSON."
            return self._refusal(text, cause)

        def probe(payload: Any, sub_schema: Schema) -> None:
            parsed = csv_tables.read(payload, sub_schema, dates=self._csv_dates)
            internals.enforce_schema(parsed, sub_schema, self._loader_module)

        return self._in_table(CsvTable(frame, schema.inputs), schema, probe, cause)

    def _explain_document(self, payload: dict[str, Any], cause: BaseException | None, source: Source) -> InvalidPayload:
        llm = internals.is_unified_llm_input(payload)
        hinted = internals.is_signature_from_type_hint(self._metadata)
        given = [key for key in FORMATS if key in payload]
        if len(given) != 1 and not llm and not hinted:
            text = f"The payload must have exactly one of the keys {', '.join(FORMATS)}; it has "
            if given:
                return self._refusal(f"{text}{' and '.join(given)}.", cause)
            return self._explain_no_format(payload, f"{text}none of them.", cause)
        if violations := list(self._param_violations(payload if llm else payload.get("params"), is_bare=llm)):
            return self._refusal("The params do not fit the model's signature.", cause, violations)
        if llm:
            return self._explain_llm(payload, cause)
        if hinted:
            return self._explain_type_hint(payload, cause, source)
        return self._explain_format(given[0], payload[given[0]], cause, source)

    def _explain_no_format(self, payload: dict[str, Any], text: str, cause: BaseException | None) -> InvalidPayload:
        """Explains an object with none of the formats: a record by itself, it may be."""
        names = names_of(self._schema)
        if seen.is_bare_record(payload, names) and not internals.hides_schema_details():
            text = "The payload is a record by itself: put it into an array under the key dataframe_records."
            return self._refusal(f"{text}{self._advice.json()}", cause)
        said = seen.keys(list(payload))
        return self._refusal(f"{text}{self._advice.json()}", cause, said=said)

    def _explain_llm(self, payload: dict[str, Any], cause: BaseException | None) -> InvalidPayload:
        schema = self._schema
        error = None if internals.refusing_chat_api(cause) is not None else _pydantic_error(cause)
        if error is not None:
            specs: list[Any] = list(schema.inputs) if schema is not None and schema.has_input_names() else []
            outer = Object([Property(str(spec.name), spec.type, spec.required) for spec in specs]) if specs else None
            violations = [
                FieldViolation(field or "request", str(fault))
                for field, fault in hint_faults.said_by_pydantic(error, payload, outer, "the payload")
            ]
            return self._refusal("The request does not fit the model.", cause, violations)
        if schema is None or not schema.has_input_names():
            return self._refusal("The request does not fit the model.", cause)

        def probe(payload: Any, sub_schema: Schema) -> None:
            internals.enforce_schema(payload, sub_schema, self._loader_module)

        table = BareTable(payload, schema.inputs)
        if not any(table.has(index) for index in range(len(schema.inputs))):
            text = (
                "A payload with the key messages, prompt or input is taken as it is, for a language model; the model's"
            )
            names = ", ".join(str(spec.name) for spec in schema.inputs[:MOST_VIOLATIONS])
            return self._of_signature(f"{text} inputs are {names}.{self._advice.json()}", cause)
        return self._in_table(table, schema, probe, cause)

    def _explain_type_hint(
        self, payload: dict[str, Any], cause: BaseException | None, source: Source
    ) -> InvalidPayload:
        if "inputs" not in payload:
            return self._refusal(
                'The model has a type hint: the payload must have the key inputs with an array, such as {"inputs": '
                "[...]}, and no other format.",
                cause,
            )
        spec = self._schema.inputs[0] if self._schema and len(self._schema.inputs) == 1 else None
        items = payload["inputs"]
        if spec is None:
            return self._refusal("The inputs do not match the model's type hint.", cause)
        expected = f"each item of inputs must be {json_terms.expected(spec)}"
        if not isinstance(items, list):
            violations = [FieldViolation("inputs", f"is {json_terms.article(items)}; must be an array, and {expected}")]
        else:
            violations = list(islice(self._hint_violations(items, spec.type, source), MOST_VIOLATIONS))
        return self._of_signature(f"The inputs do not match the model's type hint: {expected}.", cause, violations)

    def _hint_violations(self, items: list[Any], of: Any, source: Source) -> Iterator[FieldViolation]:
        for index, item in enumerate(items):
            path = f"inputs[{index}]" if source is Source.JSON else "value"
            for fault in hint_faults.within_hint(item, of, self._item_hint, path):
                yield FieldViolation(fault.path, f"{fault.problem}; {fault.remedy}")

    def _explain_format(self, key: str, value: Any, cause: BaseException | None, source: Source) -> InvalidPayload:
        shape_problem = SHAPE_PROBLEMS[key](value)
        schema = self._schema
        if shape_problem and (schema is None or not schema.is_tensor_spec() or key.startswith("dataframe")):
            return self._refusal(f"{shape_problem}{self._advice.json()}", cause)
        if schema is None:
            text = lengths_problem(key, value) or f"The value of {key} cannot be made into a table or an array."
            return self._refusal(text, cause)
        if schema.is_tensor_spec():
            violations = tensor_faults.violations(key, value, schema, is_message=source is not Source.JSON)
            text = f"The value of {key} does not fit the model's signature."
            if not violations:
                takes = " and ".join(json_terms.expected(spec) for spec in schema.inputs[:MOST_VIOLATIONS])
                text = f"{text[:-1]}, which takes {takes}; send it as inputs."
            return self._of_signature(text, cause, violations)
        table = table_of(key, value, schema)
        if table is None:
            return self._explain_form(key, value, schema, cause)

        def probe(value: Any, sub_schema: Schema) -> None:
            # A message may have values that JSON has not; MLflow changes what it is given.
            document = {key: copy.deepcopy(value)} if source is Source.RECORD else json.dumps({key: value}).encode()
            data = internals.parse_json(document, self._metadata, sub_schema).data
            if source is Source.RECORD:
                restore(data)
            internals.enforce_schema(data, sub_schema, self._loader_module)

        return self._in_table(table, schema, probe, cause, source, lengths_problem(key, value))

    def _explain_form(self, key: str, value: Any, schema: Schema, cause: BaseException | None) -> InvalidPayload:
        """Explains a value that is no table for the signature."""
        names = ", ".join(str(spec.name) for spec in schema.inputs[:MOST_VIOLATIONS])
        violations: list[FieldViolation] = []
        if value == []:
            what = f"{key} is empty: send one row at least"
        elif schema.has_input_names():
            items = value if isinstance(value, list) else [value]
            index = next((index for index, item in enumerate(items) if not isinstance(item, dict)), 0)
            at = f"{key}[{index}]" if isinstance(value, list) else key
            actual = json_terms.article(items[index])
            what = f"The model's inputs have names ({names}): {at} must be an object, it is {actual}"
            violations = [
                FieldViolation(str(spec.name), f"missing; must be {json_terms.expected(spec)}")
                for spec in schema.inputs
                if spec.required
            ]
        else:
            count = len(schema.inputs)
            what = (
                f"The model's {'column has' if count == 1 else f'{count} columns have'} no name: {key} must be an array"
            )
            what += "" if count == 1 else " of rows, each of them an array"
        return self._of_signature(f"{what}.{self._advice.json()}", cause, violations)

    def _in_table(
        self,
        table: Table,
        schema: Schema,
        probe: Probe,
        cause: BaseException | None,
        source: Source = Source.JSON,
        otherwise: str | None = None,
    ) -> InvalidPayload:
        """Explains a table, by its columns if any is at fault and otherwise by what is said of all."""
        api = internals.refusing_chat_api(cause)
        if api is not None and table.count == 1:
            return self._of_chat(api, table, schema, cause, source)
        elsewhere = None if table.format.startswith("dataframe") else self._take_records
        violations = ColumnFaults(table, schema, probe, _PATHS[source], elsewhere).violations()
        text = "The payload does not fit the model's signature."
        names = names_of(schema) if source is Source.JSON else []
        is_missing = bool(names) and any(spec.required and not table.has(at) for at, spec in enumerate(schema.inputs))
        said = seen.names(table.seen, names) if is_missing else ""
        if is_missing and (what := seen.of_none(table)) is not None:
            advice = self._advice.csv() if isinstance(table, CsvTable) else self._advice.json()
            return self._of_signature(f"{what}{advice}", cause, violations, said=said, lists=False)
        if not violations:
            text = f"{otherwise or text}{self._advice.json()}"
        return self._of_signature(text, cause, violations, said=said)

    def _of_chat(
        self, api: internals.ChatApi, table: Table, schema: Schema, cause: BaseException | None, source: Source
    ) -> InvalidPayload:
        """Explains a request that fits the signature and that MLflow's classes have refused."""
        columns = {str(spec.name): place for place, spec in enumerate(schema.inputs) if table.has(place)}
        request = {name: cell for name, place in columns.items() if (cell := table.cell(place, 0)) is not ABSENT}
        violations = []
        for fault in chat_faults.faults(api, request):
            what = f"{fault.problem}; {fault.remedy}"
            if source is Source.RECORD:
                violations.append(FieldViolation(f"{fault.field}{fault.path}" or "the record", what))
            else:
                at = table.path(columns[fault.field], 0) if fault.field else table.row_path(0)
                violations.append(FieldViolation(fault.field or "request", f"{at}{fault.path} {what}"))
        if not violations:
            words = f"is refused by MLflow's classes for a {api.rpartition('.')[2]}"
            violations = [FieldViolation(name, words) for name in list(columns)[:1]]
        return self._of_signature("The request does not fit the model.", cause, violations)

    def _take_records(self, records: Any, schema: Schema) -> None:
        parsed = internals.parse_json(json.dumps({"dataframe_records": records}).encode(), self._metadata, schema)
        internals.enforce_schema(parsed.data, schema, self._loader_module)

    def _param_violations(self, given: Any, *, is_bare: bool) -> Iterator[FieldViolation]:
        if self._params is None or given is None:
            return
        if not isinstance(given, dict):
            yield FieldViolation("params", f"must be an object, is {json_terms.article(given)}")
            return
        for spec in self._params.params:
            if spec.name in given and not _takes_param(spec, given[spec.name]):
                path = f"{'' if is_bare else 'params'}{json_terms.step(spec.name)}".lstrip(".")
                for fault in value_faults.within_param(given[spec.name], spec, path, partial(_takes_param, spec)):
                    yield FieldViolation(f"params.{spec.name}", str(fault))

    def _of_signature(
        self, text: str, cause: BaseException | None, violations: Sequence[FieldViolation] = (), **more: Any
    ) -> InvalidPayload:
        """As `_refusal`, of a text with details of the signature."""
        if internals.hides_schema_details():
            return self._refusal("The payload does not fit the model.", cause, list(violations))
        return self._refusal(text, cause, list(violations), **more)

    def _refusal(
        self,
        text: str,
        cause: BaseException | None,
        violations: Sequence[FieldViolation] = (),
        *,
        said: str = "",
        lists: bool = True,
    ) -> InvalidPayload:
        """Args:
        text: What is wrong.
        cause: What MLflow raised.
        violations: What is at fault.
        said: A sentence with names that the caller chose, which the log does not get.
        lists: Whether the text goes on with what is at fault; the details have it in any case.
        """
        reason, error_class = "BAD_REQUEST", None
        if isinstance(cause, MlflowException):
            error_class = internals.error_class(cause)
            natural = status_of_error_code(cause.error_code) is Status.INVALID_ARGUMENT
            # MLflow reports some bad payloads as its own internal errors, such as bad base64 for a type hint.
            reason = cause.error_code if natural else "INVALID_PARAMETER_VALUE"
        if violations and internals.hides_schema_details():
            return InvalidPayload("The payload does not fit the model.", reason=reason, error_class=error_class)
        named = tuple(violations[:MOST_VIOLATIONS])
        if named and lists:
            listed = "; ".join(f"{violation.field}: {violation.description}" for violation in named)
            more = f"; and {len(violations) - len(named)} more" if len(violations) > len(named) else ""
            text = f"{text} {listed}{more}."
        return InvalidPayload(f"{text}{said}", reason=reason, error_class=error_class, violations=named, logged=text)


_PATHS: dict[Source, Callable[[str, int, str], str]] = {
    Source.JSON: lambda label, row, path: path,
    Source.RECORD: lambda label, row, path: label or "the record",
}


def _takes_param(spec: ParamSpec, value: Any) -> bool:
    try:
        ParamSpec.validate_param_spec(value, spec)
    except Exception:  # noqa: BLE001 - MLflow's server refuses params whatever the check raises
        return False
    return True


def _pydantic_error(cause: BaseException | None) -> pydantic.ValidationError | None:
    """What a pydantic model has raised, where one is behind a refusal."""
    while cause is not None and not isinstance(cause, pydantic.ValidationError):
        cause = cause.__cause__ or cause.__context__
    return cause
