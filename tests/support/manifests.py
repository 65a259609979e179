"""Documents in deploy/, and their violations of the schemas of Kubernetes and of custom resources.

`kubernetes.json` has schemas of the kinds in deploy/ for two versions of Kubernetes, from kubernetes-validate.
`custom_resources.json` has those of kinds that other projects define, and names its sources.
"""

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
