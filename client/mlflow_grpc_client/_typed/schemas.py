"""Facts that only the JSON Schemas of a model have: which fields are required, and which have a default.

Rule of this module: it marks records of `contract`; a schema that it does not understand leaves them unmarked.
"""

import json
from typing import Any

from mlflow_grpc_client._typed.contract import Contract, Record, TypeCode


def mark_contract(contract: Contract, model: Any) -> None:
    """Marks the request messages of a contract, by a message mlflow_grpc.v1.Model."""
    for rpc in contract.rpcs.values():
        mark(rpc.request, model.input.json_schema)
    if contract.params is not None:
        mark(contract.params.type.message, model.params.json_schema)


def mark(record: Record, text: str) -> None:
    """Marks the fields of a record and of its subrecords by a JSON Schema, which may be an empty text."""
    try:
        schema = json.loads(text or "{}")
    except ValueError:
        return
    if isinstance(schema, dict):
        _mark(record, schema, {**schema.get("definitions", {}), **schema.get("$defs", {})}, set())


def _mark(record: Record, schema: dict[str, Any], definitions: dict[str, Any], seen: set[str]) -> None:
    properties = schema.get("properties")
    if record.name in seen or not isinstance(properties, dict):
        return
    seen.add(record.name)
    columns = list(record.fields.values())
    for index, (name, subschema) in enumerate(properties.items()):
        # Properties of unnamed columns are named after their indexes.
        by_index = columns[index] if name == str(index) and index < len(columns) else None
        column = record.by_any_name.get(name, by_index)
        if column is None or not isinstance(subschema, dict):
            continue
        if name in schema.get("required", ()) and not _is_nullable(subschema):
            record.required.add(column.name)
        if subschema.get("default") is not None or subschema.get("x-has-default") is True:
            record.defaulted.add(column.name)
        content = column.type.content if column.type.code is TypeCode.WRAPPER else column
        if content.type.code is TypeCode.RECORD:
            _mark(content.type.message, _object_schema(subschema, definitions), definitions, seen)


def _is_nullable(schema: dict[str, Any]) -> bool:
    alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return schema.get("type") == "null" or {"type": "null"} in alternatives


def _object_schema(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object inside references, lists, maps and nullable types; empty if there is not exactly one."""
    if not isinstance(schema, dict):
        return {}
    if "$ref" in schema:
        return _object_schema(definitions.get(str(schema["$ref"]).rsplit("/", 1)[-1]), definitions)
    if "properties" in schema:
        return schema
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    inner += [schema[key] for key in ("items", "additionalProperties") if key in schema]
    objects = list(filter(None, (_object_schema(subschema, definitions) for subschema in inner)))
    return objects[0] if len(objects) == 1 else {}
