"""The named schemas of an OpenAPI document, and references to them.

Rule of this module: it handles JSON Schema and OpenAPI, and does not depend on models.
"""

import re
from typing import Any

from mlflow_grpc.contract.types import JsonSchema

_REFERENCE = re.compile(r"#(?:/(?:\$defs|definitions)/(?P<name>.+))?")
"""References within a schema: to itself, and to its definitions."""

_DIALECT_KEYS = frozenset({"$schema", "$id", "id", "$defs", "definitions"})
_VALUE_KEYS = frozenset({"default", "const", "enum", "examples", "example"})
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas"})


class Components:
    """Schemas by name, in the order in which they were added."""

    def __init__(self) -> None:
        self.schemas: dict[str, JsonSchema] = {}

    def add(self, name: str, schema: JsonSchema) -> JsonSchema:
        """Adds a schema with its definitions.

        Args:
            name: Name of the schema. Its definitions are named after it, such as `iris.input.Flower`.
            schema: A schema as written by pydantic 1, pydantic 2 or the package schema.

        Returns:
            A reference to it.

        """
        key = component_name(name)
        for keyword in ("$defs", "definitions"):
            for definition, content in schema.get(keyword, {}).items():
                self.schemas[component_name(f"{key}.{definition}")] = _rewritten(content, key)
        self.schemas[key] = _rewritten(
            {name: value for name, value in schema.items() if name not in _DIALECT_KEYS}, key
        )
        return reference("schemas", key)

    def resolve(self, schema: JsonSchema) -> JsonSchema:
        """Returns the schema behind a reference that `add` returned."""
        return self.schemas[schema["$ref"].rpartition("/")[2]]

    def prune(self, document: Any) -> None:
        """Removes the schemas to which neither a document nor another schema refers."""
        used: set[str] = set()
        found = _referenced(document)
        while found - used:
            used |= found
            found = _referenced([self.schemas.get(name) for name in used])
        self.schemas = {name: schema for name, schema in self.schemas.items() if name in used}


def _referenced(value: Any) -> set[str]:
    """Returns the names of the schemas to which a value refers, at any depth."""
    if isinstance(value, list):
        return set().union(*map(_referenced, value))
    if not isinstance(value, dict):
        return set()
    names = _referenced(list(value.values()))
    target = value.get("$ref")
    return names | {target.rpartition("/")[2]} if isinstance(target, str) else names


def without_required(schema: Any) -> Any:
    """Returns a schema in which no property is required, at any depth."""
    if isinstance(schema, list):
        return [without_required(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    is_object = isinstance(schema.get("properties"), dict)
    return {key: without_required(value) for key, value in schema.items() if not (is_object and key == "required")}


def component_name(text: str) -> str:
    """Returns a text in which only characters remain that OpenAPI allows in component names."""
    return re.sub(r"[^a-zA-Z0-9._-]", "_", text)


def reference(section: str, name: str) -> JsonSchema:
    """Returns a reference to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


def _rewritten(schema: Any, key: str) -> Any:
    """Returns a schema with references to the components and with the keywords of JSON Schema 2020-12."""
    if isinstance(schema, list):
        return [_rewritten(item, key) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rewritten: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "$ref" and (match := _REFERENCE.fullmatch(value)):
            target = f"{key}.{match['name']}" if match["name"] else key
            rewritten[name] = reference("schemas", component_name(target))["$ref"]
        elif name in _VALUE_KEYS:
            rewritten[name] = value
        elif name in _SCHEMAS_BY_NAME and isinstance(value, dict):
            rewritten[name] = {field: _rewritten(nested, key) for field, nested in value.items()}
        elif name == "items" and isinstance(value, list):  # A tuple in pydantic 1.
            rewritten["prefixItems"] = _rewritten(value, key)
        else:
            rewritten[name] = _rewritten(value, key)
    return rewritten
