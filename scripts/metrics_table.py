"""Prints the table in docs/metrics.md from the server's registry of metrics (`python scripts/metrics_table.py`)."""

import re

from mlflow_grpc.access.refusals import Refusal
from mlflow_grpc.recording.recorder import RESULTS
from mlflow_grpc.telemetry.exposition import Family, Kind
from mlflow_grpc.telemetry.memory import Memory
from mlflow_grpc.telemetry.metrics import Metrics

SUFFIXES = {Kind.COUNTER: "_total", Kind.INFO: "_info"}

ENUMERATED = ("reason", "result", "state")
"""Labels whose values the table lists."""


def registry() -> Metrics:
    """Returns the metrics of a server that uses every feature, with all of their series shown."""
    metrics = Metrics(Memory(workers=2), is_file_watched=True)
    metrics.refused_callers(Refusal)
    metrics.recorded_calls(RESULTS)
    metrics.certificate_expiry()
    metrics.process.refresh()
    method = metrics.grpc_method("/MLflow/predict")
    method.started = 1
    metrics.http_route("/invocations", ("POST",)).ended("POST", 200, 0.001)
    model = metrics.add_model(rpcs=0)
    model.rename("iris", "1", state="ready", uri="", flavors="", batched="")
    model.track()
    model.shadow.show()
    model.cache.show()
    metrics.count()
    return metrics


def rows() -> list[str]:
    """Returns one Markdown row for each metric: its name in the text format, type, labels and meaning."""
    return [
        f"| `{family.name}{SUFFIXES.get(family.type, '')}` | {family.type} | {_labels(family)} | {family.help} |"
        for family in registry().families
    ]


def _labels(family: Family) -> str:
    values: dict[str, list[str]] = {}
    texts = [text for series_labels, _ in family.series if (text := series_labels()) is not None]
    texts += [text for shown in family.shown for text, _ in shown()]
    for name, value in re.findall(r'(\w+)="([^"]*)"', "\n".join(texts)):
        values.setdefault(name, []).append(value)
    return ", ".join(f"`{name}`{_enumeration(name, values[name])}" for name in values)


def _enumeration(name: str, values: list[str]) -> str:
    distinct = list(dict.fromkeys(values))
    if name not in ENUMERATED or len(distinct) == 1:
        return ""
    return f" ({', '.join(f'`{value}`' for value in distinct)})"


if __name__ == "__main__":
    print("\n".join(rows()))
