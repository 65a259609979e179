"""What JSON Schemas of a model say that its messages do not: what has to be given, and what has a default.

Rule of this module: it marks records of `contract`; what it does not understand it leaves unmarked.
"""

import json
from typing import Any

from mlflow_grpc_client._typed.contract import Contract, Kind, Record


def mark_contract(contract: Contract, model: Any) -> None:
    """Marks what a contract sends, by a message mlflow_grpc.v1.Model."""
    for rpc in contract.rpcs.values():
        mark(rpc.request, model.input.json_schema)
    if contract.params is not None:
        mark(contract.params.type.message, model.params.json_schema)


def mark(record: Record, text: str) -> None:
    """Marks the fields of a record, and of those within, by a JSON Schema; an empty text says nothing."""
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
    fields = list(record.fields.values())
    for place, (name, each) in enumerate(properties.items()):
        # The properties of columns without names are their places.
        found = record.spellings.get(name) or (fields[place] if name == str(place) and place < len(fields) else None)
        if found is None or not isinstance(each, dict):
            continue
        if name in schema.get("required", ()) and not _takes_null(each):
            record.required.add(found.name)
        if each.get("default") is not None or each.get("x-has-default") is True:
            record.defaulted.add(found.name)
        content = found.type.content if found.type.kind is Kind.BOX else found
        if content.type.kind is Kind.RECORD:
            _mark(content.type.message, _object_in(each, definitions), definitions, seen)


def _takes_null(schema: dict[str, Any]) -> bool:
    alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return schema.get("type") == "null" or {"type": "null"} in alternatives


def _object_in(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The object that a schema of it, of a list or map of it, or of it or null means; empty if that is not one."""
    if not isinstance(schema, dict):
        return {}
    if "$ref" in schema:
        return _object_in(definitions.get(str(schema["$ref"]).rsplit("/", 1)[-1]), definitions)
    if "properties" in schema:
        return schema
    within = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    within += [schema[key] for key in ("items", "additionalProperties") if key in schema]
    found = [each for each in (_object_in(each, definitions) for each in within) if each]
    return found[0] if len(found) == 1 else {}
