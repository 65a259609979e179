"""Runs the comparison: `python -m benchmarks`, or `make bench`."""

import datetime
import importlib.metadata
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks import frames, inference, load, machine, metrics, report, tables
from benchmarks.contenders import CONTENDERS, Contender, Echo, Ours, OursWithHttpPort
from benchmarks.report import BUSY_IN_FLIGHT
from benchmarks.workloads import WORKLOADS, Workload

RESULTS = Path(__file__).parent / "results"
CHECKED_PAYLOADS = 50


_OF_CLIENTS = {"frame": frames, "tables": tables, "tensors": inference}
"""Workloads that do not come from h2load, by their keys in the figures."""


def _named(word: str) -> tuple[list[Workload], list[str]]:
    """Returns the workloads whose name contains a word, and the keys of those of clients."""
    workloads = [workload for workload in WORKLOADS if word in workload.name]
    of_clients = [key for key, module in _OF_CLIENTS.items() if word in module.NAME]
    if not workloads and not of_clients:
        names = "; ".join([*(workload.name for workload in WORKLOADS), *(m.NAME for m in _OF_CLIENTS.values())])
        raise click.BadParameter(f"none has {word!r} in its name: {names}")
    return workloads, of_clients


@click.command()
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="The number of measurements per figure, in turn.",
)
@click.option("--seconds", default=5, show_default=True, type=click.IntRange(min=1), help="Seconds per measurement.")
@click.option(
    "--tries",
    default=4,
    show_default=True,
    type=click.IntRange(min=1),
    help="The maximum number of attempts at a measurement while other machines use the processors. The attempt with "
    "the least stolen time counts.",
)
@click.option(
    "--only",
    default="",
    callback=lambda _context, _option, word: _named(word),
    help="Runs only the workloads with this text in their names.",
)
@click.option(
    "--out", default=RESULTS, show_default=True, type=click.Path(path_type=Path), help="The directory of results."
)
def main(rounds: int, seconds: int, tries: int, only: tuple[list[Workload], list[str]], out: Path) -> None:
    """Compares this server, `mlflow models serve` and a bare echo, in turn in each round."""
    chosen, of_clients = only
    try:
        version = load.check_installed() if chosen else ""
        with tempfile.TemporaryDirectory() as directory:
            stolen = machine.Stolen()
            workloads = [_compare(workload, Path(directory), rounds, seconds, tries) for workload in chosen]
            figures: report.Figures = {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "machine": machine.name(),
                "versions": ", ".join(filter(None, [*_versions(), version])),
                "rounds": rounds,
                "seconds": seconds,
                "tries": tries,
                "stolen": stolen.share(),
                "workloads": workloads,
                "metrics_us": metrics.cost_us(),
                **{key: _OF_CLIENTS[key].measure(Path(directory), rounds) for key in of_clients},
            }
    except (load.LoadError, RuntimeError) as error:
        sys.exit(str(error))
    click.echo(report.write(figures, out))
    click.echo(f"written to {out}")


def _compare(workload: Workload, directory: Path, rounds: int, seconds: int, tries: int) -> dict[str, Any]:
    model = directory / f"model-{len(list(directory.iterdir()))}"
    workload.save(model)
    contenders = list(CONTENDERS)
    if workload.open_port_floor is not None:
        contenders.insert(contenders.index(Ours) + 1, OursWithHttpPort)
    with _started(contenders, model, directory) as servers:
        text, answers = _check_answers(workload, servers)
        throughput: dict[str, dict[str, list[dict[str, float]]]] = {}
        half_of_peak: dict[str, list[dict[str, float]]] = {Ours.name: [], Echo.name: []}
        for _ in range(rounds):
            for in_flight in workload.in_flight:
                for server in servers:
                    take = partial(
                        load.run_quietly,
                        server,
                        text,
                        answers[server.name],
                        in_flight=in_flight,
                        seconds=seconds,
                        scratch=directory,
                        tries=tries,
                    )
                    measured = take()
                    click.echo(
                        f"{workload.name}, {in_flight} in flight, {server.name}: {measured.per_second:,.0f}/s, "
                        f"{measured.stolen:.0%} stolen"
                    )
                    throughput.setdefault(str(in_flight), {}).setdefault(server.name, []).append(vars(measured))
                    if in_flight == BUSY_IN_FLIGHT and server.name in half_of_peak:
                        half_of_peak[server.name].append(vars(take(rate=measured.per_second / 2)))
        return {
            "name": workload.name,
            "typed_floor": workload.typed_floor,
            "floors": {str(in_flight): floor for in_flight, floor in workload.floors.items()},
            "http_floors": {str(in_flight): floor for in_flight, floor in workload.http_floors.items()},
            "open_port_floor": workload.open_port_floor,
            "throughput": throughput,
            "half_of_peak": {name: rows for name, rows in half_of_peak.items() if rows},
            "process": {
                server.name: {"start_s": server.start_s, "memory_mb": server.memory_mb()} for server in servers
            },
        }


@contextmanager
def _started(contenders: list[type[Contender]], model: Path, directory: Path) -> Iterator[list[Contender]]:
    """Starts the contenders one after the other, so that their starts do not slow each other down."""
    with ExitStack() as stack:
        servers = []
        for contender in contenders:
            server = contender(model, directory / f"{contender.__name__}.log")
            stack.callback(server.end)
            servers.append(server)
        yield servers


def _check_answers(workload: Workload, servers: list[Contender]) -> tuple[str, dict[str, str]]:
    """Compares the answers of the servers before the timing starts.

    Returns:
        A payload, and its answer from each server.

    Raises:
        LoadError: The answers differ.

    """
    texts = workload.payloads(CHECKED_PAYLOADS if workload.rows == 1 else 3)
    for text in texts:
        answers = {server.name: server.ask(text) for server in servers}
        predictions = {
            json.dumps(json.loads(answers[server.name])) for server in servers if not isinstance(server, Echo)
        }
        if len(predictions) != 1:
            raise load.LoadError(f"the servers do not answer the same to {text[:200]}: {answers}")
    return texts[-1], answers


def _versions() -> list[str]:
    names = ("mlflow-grpc", "mlflow", "grpcio", "scikit-learn", "uvloop", "orjson", "uvicorn")
    return [f"Python {platform.python_version()}", *(f"{name} {importlib.metadata.version(name)}" for name in names)]


if __name__ == "__main__":
    main()
