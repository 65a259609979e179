"""Finds out why MLflow refused a payload, in words that repeat nothing of it.

Rule of this module: it judges nothing. MLflow has refused the payload already; what is done here is to
look for the reason, and where it is not found, to say only what was refused. Columns at fault are found
by asking MLflow again with fewer of them. Texts hold names from the model's signature, types, shapes
and positions, never a value or a name that the caller chose.
"""

import json
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import islice
from typing import Any

import numpy as np
import pydantic
from mlflow.environment_variables import MLFLOW_DISABLE_SCHEMA_DETAILS
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types import ColSpec, ParamSpec, Schema, TensorSpec

from mlflow_grpc.errors import FieldViolation, InvalidPayload, Status
from mlflow_grpc.hosting import mlflow_internals as internals
from mlflow_grpc.hosting.pyfunc import status_of_error_code

FORMATS = sorted(internals.SUPPORTED_FORMATS)

MOST_VIOLATIONS = 16
MOST_PROBES = 64  # Bounds the work for one refused payload: each probe parses a part of it again.
MOST_VALUES = 1000  # Of a column, to tell which kinds of JSON values it holds.

_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}

Probe = Callable[[list[str]], None]
"""Parses and enforces only the columns of these names; raises what MLflow raises."""


class Explainer:
    """Explains refusals for one model."""

    def __init__(self, metadata: Model, loader_module: str | None) -> None:
        self._metadata = metadata
        self._loader_module = loader_module
        self._schema: Schema | None = metadata.get_input_schema()
        self._params = metadata.get_params_schema()

    def explain_json(self, text: str, cause: BaseException | None) -> InvalidPayload:
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
        try:
            return self._explain_document(payload, cause)
        except Exception:  # noqa: BLE001
            # Whatever odd payload trips the search for a reason: that it was refused still stands.
            return self._refusal("The payload was refused.", cause)

    def explain_table(self, text: str, mime: str, cause: BaseException | None) -> InvalidPayload:
        """Explains why a CSV or Parquet payload was refused."""
        import pandas as pd

        if mime != "text/csv":
            return self._refusal(f"The payload is not {mime}, which text cannot carry; send JSON or CSV.", cause)
        try:
            frame = pd.read_csv(StringIO(text))
        except Exception:  # noqa: BLE001 - MLflow takes any of pandas's for a refusal, too
            return self._refusal("The payload is not CSV that pandas.read_csv can read.", cause)
        schema = self._schema
        if schema is None:
            return self._refusal("The model cannot take this CSV.", cause)

        def probe(names: list[str]) -> None:
            part = StringIO(frame[names].to_csv(index=False))
            internals.enforce_schema(
                internals.parse_csv_input(part, schema=_sub_schema(schema, names)),
                _sub_schema(schema, names),
                self._loader_module,
            )

        return self._columns_at_fault(
            {str(name) for name in frame.columns}, probe, lambda name: frame[name].tolist(), cause
        )

    def _explain_document(self, payload: Any, cause: BaseException | None) -> InvalidPayload:
        if not isinstance(payload, dict):
            return self._refusal(f"The payload must be a JSON object, it is {_article(_kind(payload))}.", cause)
        llm = internals.is_unified_llm_input(payload)
        hinted = internals.is_signature_from_type_hint(self._metadata)
        given = [key for key in FORMATS if key in payload]
        if len(given) != 1 and not llm and not hinted:
            return self._refusal(
                f"The payload must have exactly one of the keys {', '.join(FORMATS)}; it has "
                f"{' and '.join(given) or 'none of them'}.",
                cause,
            )
        if violations := list(self._param_violations(payload if llm else payload.get("params"))):
            return self._refusal("The params do not fit the model's signature.", cause, violations)
        if llm:
            return self._explain_llm(payload, cause)
        if hinted:
            return self._explain_type_hint(payload, cause)
        return self._explain_format(given[0], payload[given[0]], cause)

    def _explain_llm(self, payload: dict[str, Any], cause: BaseException | None) -> InvalidPayload:
        schema = self._schema
        if schema is None or not schema.has_input_names():
            return self._refusal("The request does not fit the model.", cause, _from_pydantic(cause))

        def probe(names: list[str]) -> None:
            internals.enforce_schema(
                {name: payload[name] for name in names}, _sub_schema(schema, names), self._loader_module
            )

        return self._columns_at_fault(set(payload), probe, lambda name: [payload[name]], cause)

    def _explain_type_hint(self, payload: dict[str, Any], cause: BaseException | None) -> InvalidPayload:
        if "inputs" not in payload:
            return self._refusal("The model has a type hint: the payload must have the key inputs.", cause)
        spec = self._schema.inputs[0] if self._schema and len(self._schema.inputs) == 1 else None
        expected = f": each item of inputs must be {_expected(spec)}" if spec else ""
        return self._refusal(f"The inputs do not match the model's type hint{expected}.", cause, _from_pydantic(cause))

    def _explain_format(self, key: str, value: Any, cause: BaseException | None) -> InvalidPayload:
        shape_problem = _SHAPE_PROBLEMS[key](value)
        if shape_problem:
            return self._refusal(shape_problem, cause)
        schema = self._schema
        if schema is None:
            return self._refusal(f"The value of {key} cannot be made into a table or an array.", cause)
        columns = _columns(key, value)
        if columns is None or not schema.has_input_names():
            return self._explain_unnamed(key, value, schema, cause)
        present, part, values = columns

        def probe(names: list[str]) -> None:
            sub_schema = _sub_schema(schema, names)
            parsed = internals.parse_json({key: part(names)}, self._metadata, sub_schema)
            internals.enforce_schema(parsed.data, sub_schema, self._loader_module)

        return self._columns_at_fault(present, probe, values, cause)

    def _explain_unnamed(self, key: str, value: Any, schema: Schema, cause: BaseException | None) -> InvalidPayload:
        specs = schema.inputs
        if schema.has_input_names() and len(specs) > 1:
            names = ", ".join(str(spec.name) for spec in specs[:MOST_VIOLATIONS])
            return self._refusal(
                f"The model's inputs have names ({names}): send {key} as an object of name to values, or "
                "dataframe_split with columns.",
                cause,
                [FieldViolation(str(spec.name), f"missing; {_expected(spec)}") for spec in specs if spec.required],
            )
        expected = " and ".join(_expected(spec) for spec in specs[:MOST_VIOLATIONS])
        text = f"The value of {key} does not fit the model's signature, which takes {expected}{_got_shape(value)}."
        named = [FieldViolation(str(specs[0].name), f"must be {expected}{_got_shape(value)}")]
        return self._refusal(text, cause, named if schema.has_input_names() else ())

    def _columns_at_fault(
        self,
        present: set[str],
        probe: Probe,
        values: Callable[[str], list[Any]],
        cause: BaseException | None,
    ) -> InvalidPayload:
        specs = {str(spec.name): spec for spec in self._schema.inputs} if self._schema else {}
        violations = [
            FieldViolation(name, f"missing; must be {_expected(spec)}")
            for name, spec in specs.items()
            if spec.required and name not in present
        ]
        suspects = [name for name in specs if name in present]
        violations += [
            FieldViolation(name, f"must be {_expected(specs[name])}{_got(values(name))}")
            for name in _bisect(suspects, probe)
        ]
        return self._refusal("The payload does not fit the model's signature.", cause, violations)

    def _param_violations(self, given: Any) -> Iterator[FieldViolation]:
        if self._params is None or given is None:
            return
        if not isinstance(given, dict):
            yield FieldViolation("params", f"must be an object, is {_article(_kind(given))}")
            return
        for spec in self._params.params:
            if spec.name in given:
                try:
                    ParamSpec.validate_param_spec(given[spec.name], spec)
                except Exception:  # noqa: BLE001 - MLflow's server refuses params whatever the check raises
                    kind = f"an array of {spec.dtype.name}" if spec.shape else spec.dtype.name
                    yield FieldViolation(f"params.{spec.name}", f"must be {kind}{_got([given[spec.name]])}")

    def _refusal(
        self, text: str, cause: BaseException | None, violations: list[FieldViolation] | tuple[FieldViolation, ...] = ()
    ) -> InvalidPayload:
        reason, error_class = "BAD_REQUEST", None
        if isinstance(cause, MlflowException):
            error_class = cause.error_class
            natural = status_of_error_code(cause.error_code) is Status.INVALID_ARGUMENT
            # MLflow reports some bad payloads as its own internal errors, such as bad base64 for a type hint.
            reason = cause.error_code if natural else "INVALID_PARAMETER_VALUE"
        if violations and MLFLOW_DISABLE_SCHEMA_DETAILS.get():
            return InvalidPayload("The payload does not fit the model.", reason=reason, error_class=error_class)
        named = tuple(violations[:MOST_VIOLATIONS])
        if named:
            listed = "; ".join(f"{violation.field}: {violation.description}" for violation in named)
            more = f"; and {len(violations) - len(named)} more" if len(violations) > len(named) else ""
            text = f"{text} {listed}{more}."
        return InvalidPayload(text, reason=reason, error_class=error_class, violations=named)


def _split_problem(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"The value of dataframe_split must be an object, it is {_article(_kind(value))}."
    if "data" not in value or set(value) - {"columns", "data", "index"}:
        return "dataframe_split must have the key data, may have columns and index, and no other key."
    columns, data, index = value.get("columns"), value["data"], value.get("index")
    if isinstance(data, list) and isinstance(index, list) and len(index) != len(data):
        return f"dataframe_split has {len(index)} index labels for {len(data)} rows."
    if isinstance(data, list) and isinstance(columns, list):
        for position, row in enumerate(data):
            if isinstance(row, list) and len(row) != len(columns):
                return f"Row {position} of dataframe_split has {len(row)} values for {len(columns)} columns."
    return None


def _records_problem(value: Any) -> str | None:
    if isinstance(value, list):
        return None
    return f"The value of dataframe_records must be an array of objects, it is {_article(_kind(value))}."


def _ragged_problem(key: str) -> Callable[[Any], str | None]:
    def problem(value: Any) -> str | None:
        if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
            try:
                np.array(value)
            except ValueError:
                return f"The arrays in {key} are ragged: all of one depth must have the same length."
        return None

    return problem


_SHAPE_PROBLEMS: dict[str, Callable[[Any], str | None]] = {
    "dataframe_split": _split_problem,
    "dataframe_records": _records_problem,
    "inputs": _ragged_problem("inputs"),
    "instances": _ragged_problem("instances"),
}

Columns = tuple[set[str], Callable[[list[str]], Any], Callable[[str], list[Any]]]
"""The names in a payload, a payload of only some of them, and the values of one."""


def _columns(key: str, value: Any) -> Columns | None:
    """Sees a payload as columns, or None where it has no names."""
    if key == "dataframe_split":
        names = [str(name) for name in value.get("columns") or ()]
        rows = value["data"]
        if not names:
            return set(), lambda wanted: {"columns": wanted, "data": []}, lambda name: []
        places = {name: place for place, name in enumerate(names)}

        def split_part(wanted: list[str]) -> Any:
            return {"columns": wanted, "data": [[row[places[name]] for name in wanted] for row in rows]}

        return set(names), split_part, lambda name: [row[places[name]] for row in islice(rows, MOST_VALUES)]
    if isinstance(value, list) and all(isinstance(record, dict) for record in value):

        def records_part(wanted: list[str]) -> Any:
            return [{name: record[name] for name in wanted if name in record} for record in value]

        return (
            {name for record in value for name in record},
            records_part,
            lambda name: [record.get(name) for record in islice(value, MOST_VALUES)],
        )
    if isinstance(value, dict):
        return (
            set(value),
            lambda wanted: {name: value[name] for name in wanted},
            lambda name: value[name] if isinstance(value[name], list) else [value[name]],
        )
    return None


def _bisect(names: list[str], probe: Probe) -> Iterator[str]:
    """The names that MLflow refuses by themselves, found with few probes while most columns are fine."""
    pending, probes, found = [names] if names else [], 0, 0
    while pending and probes < MOST_PROBES and found < MOST_VIOLATIONS:
        part = pending.pop()
        probes += 1
        try:
            probe(part)
        except Exception:  # noqa: BLE001 - as above: a refusal, whatever is raised
            if len(part) == 1:
                found += 1
                yield part[0]
            else:
                middle = len(part) // 2
                pending += [part[middle:], part[:middle]]


def _sub_schema(schema: Schema, names: list[str]) -> Schema:
    wanted = set(names)
    return Schema([spec for spec in schema.inputs if spec.name in wanted])


def _expected(spec: ColSpec | TensorSpec) -> str:
    if isinstance(spec, TensorSpec):
        return f"{spec.type} tensor of shape {tuple(spec.shape)}"
    kind = getattr(spec.type, "name", None) or repr(spec.type)
    return f"{kind} ({'required' if spec.required else 'optional'})"


def _got(values: Any) -> str:
    """Which kinds of JSON values there are; says nothing if there are none."""
    kinds = sorted({_kind(value) for value in islice(values, MOST_VALUES)})
    return f"; the payload has {', '.join(kinds)}" if kinds else ""


def _got_shape(value: Any) -> str:
    try:
        shape = np.shape(value)
    except ValueError:
        return ""
    return f"; the payload has shape {shape}" if shape else _got([value])


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")


def _article(kind: str) -> str:
    return kind if kind == "null" else f"{'an' if kind[0] in 'aio' else 'a'} {kind}"


def _from_pydantic(cause: BaseException | None) -> list[FieldViolation]:
    """The fields that a pydantic model refused, where one is behind a refusal.

    Texts of the model's own validators are left out: they may hold the value.
    """
    while cause is not None and not isinstance(cause, pydantic.ValidationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return []
    found: dict[str, str] = {}
    for problem in cause.errors(include_url=False, include_context=False, include_input=False):
        field = str(problem["loc"][0]) if problem["loc"] else ""
        own_words = problem["type"] in ("value_error", "assertion_error", "extra_forbidden")
        if field and problem["type"] != "extra_forbidden":
            found.setdefault(field, "is refused by the model" if own_words else problem["msg"])
    return [FieldViolation(field, text) for field, text in found.items()]
