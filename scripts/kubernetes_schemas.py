"""Writes tests/support/kubernetes.json, the published schemas of the kinds in deploy/ and examples/, for their tests.

Run it with the package that contains them. The repository keeps a copy, because the package takes 108 MB:
`uv run --no-project --with kubernetes-validate==1.37.0 python scripts/kubernetes_schemas.py`.
The schemas are strict. They forbid unknown fields, as `kubectl apply --validate=strict` does.
"""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

VERSIONS = ("1.29", "1.37")
"""The oldest and the newest version of Kubernetes that the manifests support."""

KINDS = {
    "batch/v1 CronJob": "cronjob-batch-v1",
    "apps/v1 Deployment": "deployment-apps-v1",
    "v1 Service": "service-v1",
    "v1 ServiceAccount": "serviceaccount-v1",
    "policy/v1 PodDisruptionBudget": "poddisruptionbudget-policy-v1",
    "autoscaling/v2 HorizontalPodAutoscaler": "horizontalpodautoscaler-autoscaling-v2",
    "networking.k8s.io/v1 NetworkPolicy": "networkpolicy-networking-v1",
}

TARGET = Path(__file__).resolve().parents[1] / "tests" / "support" / "kubernetes.json"

_REFERENCE = re.compile(r".*#/\$defs/(.+)")


def without_words(schema: Any, needed: set[str]) -> Any:
    """Removes descriptions, makes references local to one document, and records the referenced names."""
    if isinstance(schema, list):
        return [without_words(each, needed) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {}
    for key, value in schema.items():
        if key == "$ref" and (match := _REFERENCE.fullmatch(str(value))):
            needed.add(match[1])
            made[key] = f"#/$defs/{match[1]}"
        elif not (key == "description" and isinstance(value, str)) and not key.startswith(
            ("x-kubernetes", "$schema", "$id")
        ):
            made[key] = without_words(value, needed)
    return made


def schemas_of(version: str) -> dict[str, Any]:
    """Returns the schemas of all kinds and of the types that they refer to."""
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    known = json.loads((folder / "_definitions.json").read_text())["$defs"]
    needed: set[str] = set()
    kinds = {
        kind: without_words(json.loads((folder / f"{name}.json").read_text()), needed) for kind, name in KINDS.items()
    }
    definitions: dict[str, Any] = {}
    while missing := needed - definitions.keys():
        for name in missing:
            definitions[name] = without_words(known[name], needed)
    return {"kinds": kinds, "$defs": dict(sorted(definitions.items()))}


if __name__ == "__main__":
    text = json.dumps({version: schemas_of(version) for version in VERSIONS}, separators=(",", ":"), sort_keys=True)
    TARGET.write_text(text + "\n")
