"""Public names that docs/compatibility.md promises to keep are still there."""

import json

from scripts.public_interfaces import TARGET, public_interfaces


def test_no_public_name_has_disappeared():
    """Flags, environment names, metrics, services, fields and the client's names of the record are in the code.

    A minor version before 1.0 may remove one: say so in CHANGELOG.md, and write the record again by
    `python scripts/public_interfaces.py`.
    """
    recorded, current = json.loads(TARGET.read_text()), public_interfaces()
    removed = {names: sorted({*recorded[names]} - {*current[names]}) for names in recorded}
    assert {names: texts for names, texts in removed.items() if texts} == {}


def test_the_record_has_all_interfaces():
    """The record has names of each interface; these are in the documentation."""
    recorded = json.loads(TARGET.read_text())
    assert recorded.keys() == public_interfaces().keys()
    samples = {
        "flags": "--queue-calls",
        "environment_names": "MLFLOW_GRPC_QUEUE_CALLS",
        "metrics": "mlflow_grpc_refused",
        "client": "InvalidInput = INVALID_ARGUMENT",
    }
    assert [name for names, name in samples.items() if name not in recorded[names]] == []
    assert any(line.startswith("MLflow/predict: ") for line in recorded["wire"])
    assert any(line.startswith("mlflow_grpc.v1.Models/") for line in recorded["wire"])
