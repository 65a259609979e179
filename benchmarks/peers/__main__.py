"""Runs the comparison with other servers: `python -m benchmarks.peers`, or `make bench-peers`."""

import datetime
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks import load, machine
from benchmarks.peers import report
from benchmarks.peers.comparison import Comparison
from benchmarks.peers.contenders import CONTENDERS, Contender
from benchmarks.report import Figures
from benchmarks.workloads import WORKLOADS

RESULTS = Path(__file__).parents[1] / "results"
MEASURED = [workload for workload in WORKLOADS if "LogisticRegression" in workload.name]


def _named(word: str) -> list[Contender]:
    """Returns the contenders whose name contains a word."""
    contenders = [contender for contender in CONTENDERS if word.lower() in contender.name.lower()]
    if not contenders:
        raise click.BadParameter(f"none has {word!r} in its name: {'; '.join(item.name for item in CONTENDERS)}")
    return contenders


@click.command()
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="The number of measurements per figure, in turn.",
)
@click.option("--seconds", default=2, show_default=True, type=click.IntRange(min=1), help="Seconds per measurement.")
@click.option(
    "--batch-wait-ms",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long peers with batches wait for more calls; 0 turns their batches off.",
)
@click.option(
    "--only", default="", callback=lambda _context, _option, word: _named(word), help="Runs only servers of this name."
)
@click.option(
    "--out", default=RESULTS, show_default=True, type=click.Path(path_type=Path), help="The directory of results."
)
def main(rounds: int, seconds: int, batch_wait_ms: float, only: list[Contender], out: Path) -> None:
    """Compares this server with others that serve MLflow models, in turn in each round."""
    began = time.perf_counter()
    # The servers end with the benchmark, also if something stops it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        version = load.check_installed()
    except load.LoadError as error:
        sys.exit(str(error))
    stolen = machine.Stolen()
    workloads = []
    # Ray puts sockets into its folder, and a path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as folder:
        for index, workload in enumerate(MEASURED):
            model_folder = Path(folder) / str(index)
            model_folder.mkdir()
            with Comparison(workload, model_folder) as comparison:
                for contender in only:
                    comparison.start(contender, batch_wait_ms / 1000)
                comparison.measure_idle()
                for _ in range(rounds):
                    comparison.measure(seconds)
                workloads.append(comparison.figures())
    figures: Figures = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine.name(),
        "python": sys.version.split()[0],
        "h2load": version,
        "rounds": rounds,
        "seconds": seconds,
        "stolen": stolen.share(),
        "minutes": (time.perf_counter() - began) / 60,
        "workloads": workloads,
    }
    click.echo(report.write(figures, out))
    click.echo(f"written to {out}")


if __name__ == "__main__":
    main()
