"""Words for records that MLflow refused, by the names that their messages have.

Rule of this module: a record came in a message, so nothing is said of the format that it was handed on in. Which
columns are at fault is found as for payloads (`mlflow_grpc.payload.mlflow_json.refusals.explain`).
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
    """Finds the words for one model's records."""

    def __init__(self, metadata: Model, loader_module: str | None, item_hint: Any, natives: NativeValues) -> None:
        """Args:
        metadata: The model's.
        loader_module: The module that loads its flavor.
        item_hint: The type of one item of the input, if MLflow validates by a type hint.
        natives: Reads payloads of its records.
        """
        self._item_hint = item_hint
        self._natives = natives
        schema = metadata.get_input_schema()
        is_hinted = internals.is_signature_from_type_hint(metadata)
        self._names = [] if is_hinted else _names(schema)
        named = _named(schema, self._names)
        self._expected = {str(spec.name): _expected(spec) for spec in named or ()}
        self._specs = {str(spec.name): spec for spec in named or () if isinstance(spec, ColSpec)}
        self._explainer = Explainer(metadata, loader_module, schema=named)

    def of(self, text: str, cause: BaseException | None, place: str = "") -> InvalidPayload:
        """Says what of a record is at fault.

        Args:
            text: The record, or all of them, as the payload that MLflow was given.
            cause: What MLflow raised.
            place: Which record it is, such as [3]; empty if there is but one, or it is not known.

        """
        try:
            payload = self._natives.payload(text)
        except Exception:  # noqa: BLE001 - a point in time that pandas does not have, say: MLflow never saw it
            payload = json.loads(text)
        payload = json.loads(payload) if isinstance(payload, bytes) else payload
        payload = self._named_payload(payload)
        refusal = self._explainer.explain_payload(payload, cause, Source.RECORD)
        violations = tuple(self._of_columns(refusal.violations, self._named_payload(json.loads(text))))
        if self._item_hint is not None and not internals.hides_schema_details():
            violations = tuple(self._of_hint(payload["inputs"]))
        return _in_words_of_records(refusal, violations, place)

    def _named_payload(self, payload: Any) -> Any:
        return payload | _by_name(payload, self._names) if self._names else payload

    def _of_columns(self, violations: tuple[FieldViolation, ...], payload: Any) -> Iterator[FieldViolation]:
        """What is at fault, in words that say nothing of JSON's types, which a message does not have."""
        for violation in violations:
            expected = self._expected.get(violation.field)
            if expected is None:
                yield violation
            else:
                null = "is null" if _has_null(payload, violation.field) else self._null_within(payload, violation.field)
                yield replace(violation, description=f"must be {expected}{f', and {null}' if null else ''}")

    def _null_within(self, payload: Any, name: str) -> str:
        """The place in a column's list or map at which MLflow refuses a null, in words; empty if there is none."""
        cells, spec = _cells(payload, name), self._specs.get(name)
        if spec is None or len(cells) != 1:
            return ""
        for fault in value_faults.within(cells[0], spec.type, name, required=spec.required):
            if fault.problem == "is null":
                return f"{fault.path} {fault.problem}"
        return ""

    def _of_hint(self, items: list[Any]) -> Iterator[FieldViolation]:
        for place, item in enumerate(items):
            at = f"[{place}]." if len(items) > 1 else ""
            for loc, text in type_hints.problems(self._item_hint, item):
                parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
                yield FieldViolation(f"{at}value{''.join(parts)}", text)


def _in_words_of_records(refusal: InvalidPayload, violations: tuple[FieldViolation, ...], place: str) -> InvalidPayload:
    if violations and all(violation.field.startswith("params") for violation in violations):
        return refusal
    within = tuple(replace(each, field=f"{place}.{each.field}".lstrip(".")) for each in violations)
    listed = f": {_listed(within)}" if within else ""
    return InvalidPayload(
        f"The record{f' {place}' if place else ''} does not fit the model's signature{listed}.",
        reason=refusal.reason,
        error_class=refusal.error_class,
        violations=within,
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
    """The values of a column of a table, in its rows; none if it has none, or there is no table."""
    split = payload.get("dataframe_split")
    if split is None or name not in (columns := list(map(str, split["columns"]))):
        return []
    return [row[columns.index(name)] for row in split["data"]]


def _names(schema: Schema | None) -> list[str]:
    """What messages call columns or a tensor without names; none if they have names."""
    specs = [] if schema is None else list(schema)
    if all(spec.name not in (None, "") for spec in specs):
        return []
    return ["value"] if len(specs) == 1 else [f"column_{place}" for place in range(len(specs))]


def _named(schema: Schema | None, names: list[str]) -> Schema | None:
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
