"""Description of a model for people: its inputs and outputs, and calls to paste.

Rule of this module: it reads JSON Schemas for people. It omits details that do not fit on a line, and calls that cannot
be pasted.
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_grpc_client import _schema_text
from mlflow_grpc_client._cli.examples import example_in
from mlflow_grpc_client._models import Model
from mlflow_grpc_client._options import TLS
from mlflow_grpc_client._typed.contract import Contract

_MAX_EXAMPLE_BYTES = 100_000
"""Maximum size of an example on a command line. Linux allows 128 KiB for an argument (MAX_ARG_STRLEN)."""

_TLS_FIELDS = ("ca", "cert", "key", "server_name")


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection of calls to paste."""

    address: str
    tls: TLS | None = None

    @property
    def flags(self) -> list[str]:
        """The flags of the command."""
        flags = ["-a", self.address]
        for name, value in self._tls_options.items():
            flags += [f"--tls-{name.replace('_', '-')}", value]
        return [*flags, "--tls"] if self._needs_bare_tls else flags

    @property
    def source(self) -> str:
        """The Python source of a client."""
        if options := self._tls_options:
            arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
            return f"Client({self.address!r}, tls=TLS({arguments}))"
        return f"Client({self.address!r}, tls=True)" if self._needs_bare_tls else f"Client({self.address!r})"

    @property
    def _tls_options(self) -> dict[str, str]:
        return {name: str(value) for name in _TLS_FIELDS if (value := getattr(self.tls, name, None))}

    @property
    def _needs_bare_tls(self) -> bool:
        is_encrypted_url = self.address.lower().startswith("grpcs://")
        return self.tls is not None and not self._tls_options and not is_encrypted_url


def describe(model: Model, connection: Connection, contract: Contract | None = None) -> Iterator[str]:
    """The lines about a model."""
    flavors = f" ({', '.join(model.flavors)})" if model.flavors else ""
    yield f"{model.label}{flavors}: {model.state}"
    for title, text in (
        ("display name", model.display_name),
        ("description", model.description),
        ("error", model.error),
        ("uri", model.uri),
    ):
        if text:
            yield f"{title}: {text}"
    for title, schema in (
        ("input", model.input_schema),
        ("params", model.params_schema),
        ("output", model.output_schema),
    ):
        if schema:
            yield f"{title}:"
            yield from _schema_text.lines_of(schema)
    if model.rpcs:
        yield f"called by: {', '.join(model.rpcs)}"
    yield from _calls(model, connection, contract)


def _calls(model: Model, connection: Connection, contract: Contract | None) -> Iterator[str]:
    """Calls to paste into a shell and into Python, for a model with an example."""
    if not model.example:
        return
    command = ["mlflow-grpc-predict", *connection.flags, "-m", model.label]
    if not model.example_is_typed:
        yield from _command("example", [*command, _compact(model.example)])
    example = example_in(model.example, contract) if contract is not None else None
    if example is None:
        return
    yield from _command("typed", [*command, "--typed", example.payload])
    call = f"client.model({model.label!r}).predict({example.arguments})"
    client = connection.source
    yield from ["in Python:", ""]
    yield f"from mlflow_grpc_client import {'TLS, Client' if 'TLS(' in client else 'Client'}"
    yield ""
    yield f"with {client} as client:"
    yield f"    print({call})"


def _command(title: str, arguments: list[str]) -> Iterator[str]:
    size = len(arguments[-1].encode())
    if size <= _MAX_EXAMPLE_BYTES:
        yield f"{title}: {shlex.join(arguments)}"
    else:
        yield f"{title}: none to paste, its payload has {size} bytes"


def _compact(example: str) -> str:
    """A JSON example on a single line. Unprintable characters are escaped, because a terminal would change them."""
    try:
        payload = json.loads(example)
    except ValueError:
        return example
    payload = _first_row(payload)
    compact = json.dumps(payload, ensure_ascii=False)
    return compact if compact.isprintable() else json.dumps(payload)


def _first_row(payload: Any) -> Any:
    """A table's payload with its first row only; any other payload unchanged."""
    match payload:
        case {"dataframe_split": {"data": [first, *_], **split}, **others}:
            columns = {name: value for name, value in split.items() if name != "index"}
            return {**others, "dataframe_split": {**columns, "data": [first]}}
        case {"dataframe_records": [first, *_], **others}:
            return {**others, "dataframe_records": [first]}
    return payload
