"""Explanations of records that MLflow refused, with the names that their messages have.

Rule of this module: a record came in a message, so its explanation does not mention JSON formats or types. The columns
at fault are found in the same way as for payloads (`mlflow_grpc.payload.mlflow_json.refusals.explain`).
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
from mlflow.models import Model
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from mlflow_grpc.errors import FieldViolation, InvalidPayload
from mlflow_grpc.hosting.pyfunc import internals, type_hints
from mlflow_grpc.payload.mlflow_json.native_values import NativeValues
from mlflow_grpc.payload.mlflow_json.refusals import value_faults
from mlflow_grpc.payload.mlflow_json.refusals.explain import Explainer, Source


class RecordRefusals:
    """Search for the reasons of refusals of one model's records."""

    def __init__(self, metadata: Model, loader_module: str | None, item_hint: Any, natives: NativeValues) -> None:
        """Takes the model's signature with the names of its messages.

        Args:
            metadata: The model's metadata.
            loader_module: The module that loads its flavor.
            item_hint: Type of one item of the input, if MLflow validates by a type hint.
            natives: Converter for the payloads of its records.

        """
        self._item_hint = item_hint
        self._natives = natives
        schema = metadata.get_input_schema()
        is_hinted = internals.is_signature_from_type_hint(metadata)
        self._names = [] if is_hinted else _names(schema)
        named = _with_names(schema, self._names)
        self._expected = {str(spec.name): _expected(spec) for spec in named or ()}
        self._specs = {str(spec.name): spec for spec in named or () if isinstance(spec, ColSpec)}
        self._explainer = Explainer(metadata, loader_module, schema=named)

    def explain(self, text: str, cause: BaseException | None, record_path: str = "") -> InvalidPayload:
        """Explains why a record was refused.

        Args:
            text: JSON payload of the record, or of all records, that MLflow parsed.
            cause: The exception that MLflow raised.
            record_path: Path of the record, such as [3]; empty if there is only one, or it is unknown.

        """
        try:
            payload = self._natives.payload(text)
        except Exception:  # noqa: BLE001 - such as a point in time that pandas does not have, which MLflow never saw
            payload = json.loads(text)
        payload = json.loads(payload) if isinstance(payload, bytes) else payload
        payload = self._named_payload(payload)
        refusal = self._explainer.explain_payload(payload, cause, Source.RECORD)
        violations = tuple(self._column_violations(refusal.violations, self._named_payload(json.loads(text))))
        if self._item_hint is not None and not internals.hides_schema_details():
            violations = tuple(self._hint_violations(payload["inputs"]))
        return _record_refusal(refusal, violations, record_path)

    def _named_payload(self, payload: Any) -> Any:
        return payload | _by_name(payload, self._names) if self._names else payload

    def _column_violations(self, violations: tuple[FieldViolation, ...], payload: Any) -> Iterator[FieldViolation]:
        """Yields the violations without the names of JSON types, which a message does not have."""
        for violation in violations:
            expected = self._expected.get(violation.field)
            if expected is None:
                yield violation
            else:
                null = "is null" if _has_null(payload, violation.field) else self._null_within(payload, violation.field)
                yield replace(violation, description=f"must be {expected}{f', and {null}' if null else ''}")

    def _null_within(self, payload: Any, name: str) -> str:
        """Returns text with the path of a refused null in a list or map of a column; empty if there is none."""
        cells, spec = _cells(payload, name), self._specs.get(name)
        if spec is None or len(cells) != 1:
            return ""
        for fault in value_faults.within(cells[0], spec.type, name, required=spec.required):
            if fault.problem == "is null":
                return f"{fault.path} {fault.problem}"
        return ""

    def _hint_violations(self, items: list[Any]) -> Iterator[FieldViolation]:
        for index, item in enumerate(items):
            row_path = f"[{index}]." if len(items) > 1 else ""
            for location, text in type_hints.problems(self._item_hint, item):
                steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
                yield FieldViolation(f"{row_path}value{''.join(steps)}", text)


def _record_refusal(
    refusal: InvalidPayload, violations: tuple[FieldViolation, ...], record_path: str
) -> InvalidPayload:
    """Returns a refusal whose text names the record; one about params is returned unchanged."""
    if violations and all(violation.field.startswith("params") for violation in violations):
        return refusal
    in_record = tuple(
        replace(violation, field=f"{record_path}.{violation.field}".lstrip(".")) for violation in violations
    )
    listed = f": {_listed(in_record)}" if in_record else ""
    return InvalidPayload(
        f"The record{f' {record_path}' if record_path else ''} does not fit the model's signature{listed}.",
        reason=refusal.reason,
        error_class=refusal.error_class,
        violations=in_record,
    )


def _listed(violations: tuple[FieldViolation, ...]) -> str:
    return "; ".join(f"{violation.field}: {violation.description}" for violation in violations)


def _expected(spec: ColSpec | TensorSpec) -> str:
    if isinstance(spec, TensorSpec):
        return f"a tensor of {spec.type}, of the shape {list(spec.shape)} (-1 is any size)"
    if spec.type == DataType.datetime:
        return f"a datetime between {pd.Timestamp.min.year} and {pd.Timestamp.max.year}"
    return str(getattr(spec.type, "name", spec.type))


def _has_null(payload: Any, name: str) -> bool:
    return any(cell is None for cell in _cells(payload, name))


def _cells(payload: Any, name: str) -> list[Any]:
    """Returns the values of a column; empty if the payload is not a table or does not have the column."""
    split = payload.get("dataframe_split")
    if split is None or name not in (columns := list(map(str, split["columns"]))):
        return []
    return [row[columns.index(name)] for row in split["data"]]


def _names(schema: Schema | None) -> list[str]:
    """Returns the names in messages for columns or a tensor without names; empty if the signature has names."""
    specs = [] if schema is None else list(schema)
    if all(spec.name not in (None, "") for spec in specs):
        return []
    return ["value"] if len(specs) == 1 else [f"column_{index}" for index in range(len(specs))]


def _with_names(schema: Schema | None, names: list[str]) -> Schema | None:
    if schema is None or not names:
        return schema
    return Schema([_spec_named(spec, name) for spec, name in zip(schema, names, strict=True)])


def _spec_named(spec: ColSpec | TensorSpec, name: str) -> ColSpec | TensorSpec:
    if isinstance(spec, TensorSpec):
        return TensorSpec(spec.type, spec.shape, name)
    return ColSpec(spec.type, name, required=spec.required)


def _by_name(payload: dict[str, Any], names: list[str]) -> dict[str, Any]:
    if "dataframe_split" in payload:
        return {"dataframe_split": {**payload["dataframe_split"], "columns": names}}
    return {"inputs": {names[0]: payload["inputs"]}} if "inputs" in payload else {}
