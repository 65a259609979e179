"""Documents in deploy/, and their violations of the schemas of Kubernetes and of custom resources.

`kubernetes.json` has schemas of the kinds in deploy/ for two versions of Kubernetes, from kubernetes-validate.
`custom_resources.json` has those of kinds that other projects define, and names its sources.
"""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.support.servers import ROOT

Document = dict[str, Any]

KUBERNETES = ROOT / "deploy" / "kubernetes"
COMPONENTS = KUBERNETES / "components"
KSERVE = ROOT / "deploy" / "kserve"
RAY = ROOT / "deploy" / "ray"

SCHEMAS = json.loads((ROOT / "tests" / "support" / "kubernetes.json").read_text())
CUSTOM = json.loads((ROOT / "tests" / "support" / "custom_resources.json").read_text())


def documents(path: Path) -> list[Document]:
    """Returns the documents in a file."""
    return list(yaml.safe_load_all(path.read_text()))


def document(path: Path) -> Document:
    """Returns the only document in a file."""
    (single,) = documents(path)
    return single


def with_components(checked: Document, *names: str) -> Document:
    """Returns a document as kustomize builds it with components, whose patches change it one after the other."""
    for name in names:
        for patch in document(COMPONENTS / name / "kustomization.yaml")["patches"]:
            changes = yaml.safe_load(patch["patch"])
            target = patch.get("target") or {"kind": changes["kind"], "name": changes["metadata"]["name"]}
            if target != {"kind": checked["kind"], "name": checked["metadata"]["name"]}:
                continue
            checked = _changed(checked, changes) if isinstance(changes, list) else _merged(checked, changes)
    return checked


def _merged(value: Any, changes: Any) -> Any:
    """Merges a strategic merge patch, whose lists have entries with names; null removes a field."""
    if isinstance(value, dict) and isinstance(changes, dict):
        merged = {**value, **{name: _merged(value.get(name), change) for name, change in changes.items()}}
        return {name: field for name, field in merged.items() if field is not None}
    if isinstance(value, list) and isinstance(changes, list) and isinstance(changes[0], dict):
        by_name = {entry["name"]: entry for entry in value}
        return list(
            {**by_name, **{entry["name"]: _merged(by_name.get(entry["name"]), entry) for entry in changes}}.values()
        )
    if isinstance(changes, dict):
        return {name: field for name, field in changes.items() if field is not None}
    return changes


def _changed(value: Document, operations: list[dict[str, Any]]) -> Document:
    """Applies a JSON patch that adds and replaces fields; a path that does not exist is an error."""
    value = copy.deepcopy(value)
    for operation in operations:
        *parents, last = operation["path"].split("/")[1:]
        parent: Any = value
        for step in parents:
            parent = parent[int(step) if isinstance(parent, list) else step]
        assert (last in parent) is (operation["op"] == "replace"), operation
        parent[last] = operation["value"]
    return value


def faults(checked: Document, version: str = "1.37") -> list[str]:
    """Returns the violations of the schema for a document's kind; unknown fields are violations.

    Args:
        checked: A Kubernetes object.
        version: Version of Kubernetes, for its own kinds.
    """
    schemas = SCHEMAS[version]
    kinds = {**schemas["kinds"], **CUSTOM["kinds"]}
    definitions = {**schemas["$defs"], **CUSTOM["$defs"]}
    schema = {**kinds[f"{checked['apiVersion']} {checked['kind']}"], "$defs": definitions}
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(checked)
    ]
