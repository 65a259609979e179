"""The report of the comparison with other servers: tables in Markdown, and the raw figures as JSON."""

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.report import Figures, median

REPORT, FIGURES = "peers.md", "peers.json"
WITHOUT_DECIMALS = 10
"""The rate from which decimals tell nothing."""


def markdown(figures: Figures) -> str:
    """Returns the report."""
    lines = [
        f"# Other servers, {figures['date']}, {figures['machine']}",
        "",
        f"Python {figures['python']}, h2load {figures['h2load'].rpartition('/')[2]}. Medians of {figures['rounds']} "
        f"interleaved rounds of {figures['seconds']} s. The run took {figures['minutes']:.0f} minutes.",
        _stolen_time_sentence(figures),
    ]
    for workload in figures["workloads"]:
        lines += _of_workload(workload)
    lines += _of_servers(figures["workloads"])
    lines += _of_skipped(figures["workloads"])
    return "\n".join(lines) + "\n"


def _of_workload(workload: Figures) -> list[str]:
    """Returns the tables of a workload, one for each number of calls in flight."""
    lines = []
    for in_flight, by_face in workload["throughput"].items():
        calls = "call" if in_flight == "1" else "calls"
        rows_heading = ["rows/s"] if workload["rows"] > 1 else []
        headings = [f"{workload['name']}, {in_flight} {calls} in flight", "requests/s", *rows_heading]
        lines += [
            "",
            f"| {' | '.join([*headings, 'p50', 'p99', 'CPU per call'])} |",
            f"|---|{'---:|' * (len(headings) + 2)}",
        ]
        for name, measured in by_face.items():
            per_second = median(measured, "per_second")
            cells = [name, _rate(per_second)]
            if workload["rows"] > 1:
                cells.append(f"{per_second * workload['rows']:,.0f}")
            cells += [f"{median(measured, quantile):.1f} ms" for quantile in ("p50_ms", "p99_ms")]
            cells.append(f"{median(measured, 'cpu_us') / 1000:.2f} ms")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _of_servers(workloads: list[Figures]) -> list[str]:
    """Returns the table of settings and versions, with figures of the first workload that a server ran in."""
    servers: dict[str, Any] = {}
    for workload in workloads:
        servers = {**workload["servers"], **servers}
    return [
        "",
        "| server | settings | versions | start | memory | CPU while idle |",
        "|---|---|---|---:|---:|---:|",
        *(
            f"| {name} | {server['setup']} | {server['versions']} | {server['start_s']:.1f} s "
            f"| {server['memory_mb']:,.0f} MB | {server['idle']:.1%} of a core |"
            for name, server in servers.items()
        ),
    ]


def _of_skipped(workloads: list[Figures]) -> list[str]:
    """Returns the table of what was left out; nothing if all servers were measured."""
    rows = [
        f"| {workload['name']} | {name} | {reason} |"
        for workload in workloads
        for name, reason in workload["skipped"].items()
    ]
    return ["", "| workload | left out | reason |", "|---|---|---|", *rows] if rows else []


def _stolen_time_sentence(figures: Figures) -> str:
    shares = [
        measured["stolen"]
        for workload in figures["workloads"]
        for by_face in workload["throughput"].values()
        for rounds in by_face.values()
        for measured in rounds
    ]
    during = f", {statistics.median(shares):.0%} in the median measurement" if shares else ""
    return f"According to the system, other machines took {figures['stolen']:.0%} of the busy CPU time{during}."


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= WITHOUT_DECIMALS else f"{per_second:.1f}"


def write(figures: Figures, directory: Path) -> str:
    """Writes the report and the raw figures, and returns the report."""
    directory.mkdir(parents=True, exist_ok=True)
    report = markdown(figures)
    (directory / REPORT).write_text(report, encoding="utf-8")
    (directory / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return report
