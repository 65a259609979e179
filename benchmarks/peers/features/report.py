"""The report of the trials: the table of the README, and what was observed on each server."""

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.features.stand import Observation

REPORT = "features.md"


@dataclass
class Trials:
    """All that was observed, by the names of servers and rows."""

    date: str
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Servers that were not tried, with the reason."""
    observed: dict[str, dict[str, Observation]] = field(default_factory=dict)
    """Observations by the row, then by the server."""


def table(trials: Trials) -> list[str]:
    """Returns the lines of the table that is also in the README."""
    servers = list(trials.versions)
    lines = [f"| | {' | '.join(servers)} |", f"|---|{'---|' * len(servers)}"]
    for row, by_server in trials.observed.items():
        lines.append(f"| {row} | {' | '.join(_cell(by_server[server].short) for server in servers)} |")
    return lines


def markdown(trials: Trials) -> str:
    """Returns the report."""
    lines = [
        f"# Features of servers of MLflow models, tried on {trials.date}",
        "",
        "`python -m benchmarks.peers.features` started the servers and wrote this file. A server whose documentation "
        "names settings for a feature was started with them.",
        "",
        *(f"- {server}: {versions}" for server, versions in trials.versions.items()),
        *(f"- {server} was not tried: {reason}" for server, reason in trials.left_out.items()),
        "",
        *table(trials),
        "",
        "## What was observed",
    ]
    for row, by_server in trials.observed.items():
        lines += ["", f"### {row}", "", "| server | observed |", "|---|---|"]
        lines += [f"| {server} | {_cell(observation.seen)} |" for server, observation in by_server.items()]
    return "\n".join(lines) + "\n"


def write(trials: Trials, directory: Path) -> None:
    """Writes the report."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / REPORT).write_text(markdown(trials), encoding="utf-8")


def _cell(text: str) -> str:
    """Returns a text as the cell of a table holds it."""
    return " ".join(text.replace("|", "/").split())
