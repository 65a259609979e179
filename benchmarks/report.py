"""The results: a table in Markdown, the raw figures as JSON, a plot."""

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks import frames, inference, tables

Figures = dict[str, Any]

OURS, TYPED, HTTP = "mlflow-grpc", "mlflow-grpc, typed", "mlflow-grpc, HTTP"
OPEN_PORT = "mlflow-grpc, HTTP port open"
MLFLOW, ECHO = "mlflow models serve", "bare echo"
BUSY_IN_FLIGHT = 32


def median(rows: list[Figures], what: str) -> float:
    """Returns the median over the rounds."""
    return float(statistics.median(row[what] for row in rows))


def ratios(figures: Figures) -> list[Figures]:
    """Compares this server with the others, for each workload and number of calls in flight."""
    comparisons = []
    for workload in figures["workloads"]:
        for in_flight, by_server in workload["throughput"].items():
            ours, mlflow, echo = (by_server[name] for name in (OURS, MLFLOW, ECHO))
            typed, http = by_server[TYPED], by_server[HTTP]
            comparisons.append(
                {
                    "workload": workload["name"],
                    "in_flight": int(in_flight),
                    "ours": median(ours, "per_second"),
                    "mlflow": median(mlflow, "per_second"),
                    "echo": median(echo, "per_second"),
                    "typed": median(typed, "per_second"),
                    "times_mlflow": _ratio(ours, mlflow),
                    "of_echo": _ratio(ours, echo),
                    "typed_times_mlflow": _ratio(typed, mlflow),
                    "typed_times_json": _ratio(typed, ours),
                    "http": median(http, "per_second"),
                    "http_times_mlflow": _ratio(http, mlflow),
                    "http_floor": workload["http_floors"][in_flight],
                    "http_p50_ms": median(http, "p50_ms"),
                    "http_p99_ms": median(http, "p99_ms"),
                    "floor": workload["floors"][in_flight],
                    "typed_floor": workload["typed_floor"],
                    "p50_ms": median(ours, "p50_ms"),
                    "p99_ms": median(ours, "p99_ms"),
                    "mlflow_p50_ms": median(mlflow, "p50_ms"),
                    "mlflow_p99_ms": median(mlflow, "p99_ms"),
                }
            )
    return comparisons


def _ratio(ours: list[Figures], others: list[Figures]) -> float:
    """Returns the median of the ratios within a round, because a machine may slow down between rounds."""
    return float(statistics.median(a["per_second"] / b["per_second"] for a, b in zip(ours, others, strict=True)))


def _tail(rows: list[Figures]) -> float:
    """Returns the ratio of p99 to the median latency, as the median over the rounds."""
    return float(statistics.median(row["p99_ms"] / row["p50_ms"] for row in rows))


def _stolen_time_sentence(figures: Figures) -> str:
    """Describes the CPU time that other machines took, in total and during the measurements that count."""
    counted = [
        row["stolen"]
        for workload in figures["workloads"]
        for by_server in workload["throughput"].values()
        for rows in by_server.values()
        for row in rows
    ]
    return (
        f"According to the system, other machines took {figures['stolen']:.0%} of the busy CPU time. "
        f"Each figure is the one of up to {figures['tries']} that lost the least: {statistics.median(counted):.0%} in "
        f"the median, at most {max(counted):.0%}."
    )


def markdown(figures: Figures) -> str:
    """Returns the report."""
    lines = [
        f"# {figures['date']}, {figures['machine']}",
        "",
        f"{figures['versions']}. Medians of {figures['rounds']} interleaved rounds of {figures['seconds']:g} s.",
    ]
    if figures["workloads"]:
        lines += _of_workloads(figures)
    if figures.get("frame"):
        lines += frames.markdown(figures["frame"])
    if figures.get("tables"):
        lines += tables.markdown(figures["tables"])
    if figures.get("tensors"):
        lines += inference.markdown(figures["tensors"])
    return "\n".join(lines) + "\n"


def _of_open_port(figures: Figures) -> list[str]:
    """Returns the table that compares gRPC with and without an open HTTP port; nothing if no workload measured it."""
    rows = []
    busy_us = 0.0
    for workload in figures["workloads"]:
        if workload["open_port_floor"] is None:
            continue
        for in_flight, by_server in workload["throughput"].items():
            closed, opened = by_server[OURS], by_server[OPEN_PORT]
            cpu_us = median(closed, "cpu_us")
            if int(in_flight) == BUSY_IN_FLIGHT:
                busy_us = cpu_us
            rows.append(
                f"| {workload['name']} | {in_flight} | {median(closed, 'per_second'):,.0f}/s "
                f"| {median(opened, 'per_second'):,.0f}/s "
                f"| **{_ratio(opened, closed):.2f}** (floor {workload['open_port_floor']:g}) "
                f"| {cpu_us:.0f} us | {median(opened, 'cpu_us'):.0f} us |"
            )
    if not rows:
        return []
    return [
        "",
        "| workload, over gRPC | in flight | no HTTP port | HTTP port open | ratio | CPU per call | with the port |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Recording the metrics of a call takes {figures['metrics_us']:.1f} us of CPU time: "
        f"**{figures['metrics_us'] / busy_us:.1%}** of a call with {BUSY_IN_FLIGHT} in flight (ceiling 2 %).",
    ]


def _of_workloads(figures: Figures) -> list[str]:
    lines = [
        "",
        _stolen_time_sentence(figures),
        "",
        "| workload | in flight | mlflow-grpc | mlflow models serve | bare echo | times MLflow | of the echo "
        "| p50 / p99 | MLflow's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['workload']} | {row['in_flight']} | {row['ours']:,.0f}/s | {row['mlflow']:,.0f}/s "
        f"| {row['echo']:,.0f}/s | **{row['times_mlflow']:.1f}** (floor {row['floor']:g}) | {row['of_echo']:.2f} "
        f"| {row['p50_ms']:.1f} / {row['p99_ms']:.1f} ms | {row['mlflow_p50_ms']:.1f} / {row['mlflow_p99_ms']:.1f} ms |"
        for row in ratios(figures)
    ]
    lines += [
        "",
        "| workload | in flight | typed | times JSON | times MLflow | floor |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['workload']} | {row['in_flight']} | {row['typed']:,.0f}/s | **{row['typed_times_json']:.2f}** "
            f"| **{row['typed_times_mlflow']:.1f}** | {row['typed_floor']} |"
            for row in ratios(figures)
        ),
    ]
    lines += [
        "",
        "| workload | in flight | over HTTP | times MLflow | p50 / p99 |",
        "|---|---|---|---|---|",
        *(
            f"| {row['workload']} | {row['in_flight']} | {row['http']:,.0f}/s | **{row['http_times_mlflow']:.1f}** "
            f"(floor {row['http_floor']:g}) | {row['http_p50_ms']:.1f} / {row['http_p99_ms']:.1f} ms |"
            for row in ratios(figures)
        ),
    ]
    lines += _of_open_port(figures)
    lines += [
        "",
        "| workload | start, mlflow-grpc | start, MLflow | memory, mlflow-grpc | memory, MLflow |",
        "|---|---|---|---|---|",
    ]
    for workload in figures["workloads"]:
        ours, mlflow = workload["process"][OURS], workload["process"][MLFLOW]
        lines.append(
            f"| {workload['name']} | {ours['start_s']:.1f} s | {mlflow['start_s']:.1f} s | {ours['memory_mb']:.0f} MB "
            f"| {mlflow['memory_mb']:.0f} MB |"
        )
    lines += [
        "",
        "| workload, at half of its own peak with 32 in flight | p50 / p99 | p99 / p50 | p99 / p50 of the bare echo |",
        "|---|---|---|---|",
    ]
    for workload in figures["workloads"]:
        if half := workload["half_of_peak"]:
            ours = half[OURS]
            lines.append(
                f"| {workload['name']} | {median(ours, 'p50_ms'):.1f} / {median(ours, 'p99_ms'):.1f} ms "
                f"| **{_tail(ours):.1f}** (floor 3) | {_tail(half[ECHO]):.1f} |"
            )
    return lines


def plot(figures: Figures, path: Path) -> None:
    """Plots throughput, p50 and p99 against calls in flight.

    Without a workload of several numbers of calls, there is no file.
    """
    shown = [workload for workload in figures["workloads"] if len(workload["throughput"]) > 1]
    path.unlink(missing_ok=True)  # An earlier run may have left one.
    if not shown:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(shown), figsize=(5.5 * len(shown), 7), squeeze=False, layout="constrained")
    for workload, (top, bottom) in zip(shown, axes.T, strict=True):
        for name in (OURS, TYPED, MLFLOW, ECHO):
            counts = [int(count) for count in workload["throughput"]]
            rows = [by_server[name] for by_server in workload["throughput"].values()]
            (line,) = top.plot(counts, [median(row, "per_second") for row in rows], marker="o", label=name)
            for what, style in (("p50_ms", "-"), ("p99_ms", ":")):
                label = f"{name}, {what.removesuffix('_ms')}"
                values = [median(row, what) for row in rows]
                bottom.plot(counts, values, style, marker="o", color=line.get_color(), label=label)
        top.set(title=workload["name"], ylabel="calls a second", xscale="log", yscale="log", xticks=counts)
        bottom.set(ylabel="ms", xlabel="calls in flight", xscale="log", yscale="log", xticks=counts)
        for axis in (top, bottom):
            axis.set_xticks(counts, [str(count) for count in counts])
            axis.minorticks_off()
            axis.grid(visible=True, alpha=0.3)
            axis.legend(fontsize=8)
    figure.suptitle(f"{figures['date']}, {figures['machine']}", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(figures: Figures, directory: Path) -> str:
    """Writes report.md, figures.json and plot.png, and returns the report."""
    directory.mkdir(parents=True, exist_ok=True)
    report = markdown(figures)
    (directory / "report.md").write_text(report, encoding="utf-8")
    (directory / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    plot(figures, directory / "plot.png")
    return report
