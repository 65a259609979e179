"""A model in words: what it takes and gives, and calls to paste.

Rule of this module: it reads JSON Schemas for people. It leaves out what does not fit on a line, and a call that could
not be pasted.
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_grpc_client._cli.examples import example_in
from mlflow_grpc_client._options import TLS
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client._wire import Model

_MOST_BYTES = 100_000
"""Of an example on a command line: an argument has 128 KiB at the most (Linux, MAX_ARG_STRLEN)."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How the calls to paste reach the server."""

    address: str
    tls: TLS | None = None

    @property
    def flags(self) -> list[str]:
        """Of the command."""
        flags = ["-a", self.address]
        if self.tls is not None and self.tls != TLS():
            for name in ("ca", "cert", "key", "server_name"):
                if value := getattr(self.tls, name):
                    flags += [f"--tls-{name.replace('_', '-')}", str(value)]
        elif self.tls is not None and not self.address.lower().startswith("grpcs://"):
            flags.append("--tls")
        return flags

    @property
    def source(self) -> str:
        """A client in Python."""
        if self.tls is None or (self.tls == TLS() and self.address.lower().startswith("grpcs://")):
            return f"Client({self.address!r})"
        given = [
            f"{name}={str(value)!r}"
            for name in ("ca", "cert", "key", "server_name")
            if (value := getattr(self.tls, name))
        ]
        tls = f"TLS({', '.join(given)})" if given else "True"
        return f"Client({self.address!r}, tls={tls})"


def describe(model: Model, connection: Connection, contract: Contract | None = None) -> Iterator[str]:
    """The lines about a model.

    Args:
        model: As the server tells of it.
        connection: Where the calls to paste go.
        contract: Its types, if it has typed calls.

    """
    yield (
        f"{model.label} ({', '.join(model.flavors)}): {model.state}"
        if model.flavors
        else f"{model.label}: {model.state}"
    )
    yield from (line for line in (model.display_name, model.description, model.error, model.uri) if line)
    for title, schema in (
        ("input", model.input_schema),
        ("params", model.params_schema),
        ("output", model.output_schema),
    ):
        if schema:
            yield f"{title}:"
            yield from _fields(schema)
    if model.rpcs:
        yield f"called by: {', '.join(model.rpcs)}"
    yield from _calls(model, connection, contract)


def _calls(model: Model, connection: Connection, contract: Contract | None) -> Iterator[str]:
    """Calls to paste, as far as the model has an example: into a shell, and into Python."""
    if not model.example:
        return
    command = ["mlflow-grpc-predict", *connection.flags, "-m", model.label]
    if not model.example_is_typed:
        yield from _command("example", [*command, _compact(model.example)])
    found = example_in(model.example, contract) if contract is not None else None
    if found is None:
        return
    yield from _command("typed", [*command, "--typed", found.payload])
    call = f"client.model({model.label!r}).predict({found.arguments})"
    client = connection.source
    yield from ["in Python:", ""]
    if "datetime." in found.arguments:
        yield from ["import datetime", ""]
    yield f"from mlflow_grpc_client import {'TLS, Client' if 'TLS(' in client else 'Client'}"
    yield ""
    yield f"with {client} as client:"
    yield f"    print({call})"


def _command(title: str, words: list[str]) -> Iterator[str]:
    size = len(words[-1].encode())
    if size <= _MOST_BYTES:
        yield f"{title}: {shlex.join(words)}"
    else:
        yield f"{title}: none to paste, its payload has {size} bytes"


def _compact(example: str) -> str:
    """An example on one line, if it is JSON: what is not printable would not be pasted as it is."""
    try:
        payload = json.loads(example)
    except ValueError:
        return example
    payload = _first_row(payload)
    compact = json.dumps(payload, ensure_ascii=False)
    return compact if compact.isprintable() else json.dumps(payload)


def _first_row(payload: Any) -> Any:
    """A payload with the first of its rows, if it is a table."""
    match payload:
        case {"dataframe_split": {"data": [first, *_], **split}, **others}:
            kept = {name: value for name, value in split.items() if name != "index"}
            return {**others, "dataframe_split": {**kept, "data": [first]}}
        case {"dataframe_records": [first, *_], **others}:
            return {**others, "dataframe_records": [first]}
    return payload


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        yield f"  {_type(schema, definitions)}"
        return
    required = schema.get("required", ())
    for name, each in properties.items():
        said = [_type(each, definitions)]
        if name not in required:
            default = each.get("default")
            unsaid = "has a default" if each.get("x-has-default") is True else "optional"
            said.append(unsaid if default is None else f"default {json.dumps(default)}")
        line = f"  {name}: {', '.join(said)}"
        yield f"{line}  {each['description']}" if each.get("description") else line


def field_rows(schema: dict[str, Any]) -> list[tuple[str, str]]:
    """The fields of a schema, each with its type."""
    lines = [line.strip() for line in _fields(schema)]
    return [(name, rest) if rest else ("", name) for name, _, rest in (line.partition(": ") for line in lines)]


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if reference := schema.get("$ref"):
        key = reference.rsplit("/", 1)[-1]
        found = definitions.get(key, {})
        return _type(found, {}) if "enum" in found else key
    alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if alternatives:
        return " or ".join(dict.fromkeys(_type(each, definitions) for each in alternatives))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"list of {_type(items, definitions)}" if isinstance(items, dict) else "list"
    return str(schema.get("format") or schema.get("type") or "any")
