"""Tries the features of servers of MLflow models: `python -m benchmarks.peers.features`, or `make peer-features`."""

import datetime
import signal
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.peers.faces import PeerError
from benchmarks.peers.features import models, report
from benchmarks.peers.features.rows import ROWS
from benchmarks.peers.features.servers import TRIED
from benchmarks.peers.features.stand import Models, Observation, Stand
from benchmarks.peers.features.tried import Tried

RESULTS = Path(__file__).parents[2] / "results"


def _try_all(server: type[Tried], rows: list[str], shared: Models, folder: Path, trials: report.Trials) -> None:
    """Tries the rows on one server."""
    with Stand(server, shared, folder) as stand:
        try:
            versions = stand.plain.running.versions()
        except PeerError as error:
            trials.left_out[server.name] = str(error)
            click.echo(f"{server.name}, left out: {error}")
            return
        trials.versions[server.name] = versions
        for row in rows:
            try:
                observation = ROWS[row](stand)
            except PeerError as error:
                observation = Observation("not tried", str(error))
            trials.observed.setdefault(row, {})[server.name] = observation
            click.echo(f"{server.name}, {row}: {observation.short} - {observation.seen}")


@click.command()
@click.option("--only", default="", help="Tries only servers with this word in their names.")
@click.option("--row", default="", help="Tries only rows with this word in their names.")
@click.option(
    "--out", default=RESULTS, show_default=True, type=click.Path(path_type=Path), help="The directory of the report."
)
def main(only: str, row: str, out: Path) -> None:
    """Tries the features of servers, one server after the other."""
    # The servers end with the trials, also if something stops them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    trials = report.Trials(datetime.datetime.now(datetime.UTC).date().isoformat())
    rows = [name for name in ROWS if row.lower() in name.lower()]
    # TorchServe puts a socket into its folder, and a path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="features-", ignore_cleanup_errors=True) as folder:
        shared = Models(Path(folder) / "first", Path(folder) / "second")
        models.save(shared.first, models.FACTOR)
        models.save(shared.second, models.SECOND_FACTOR)
        for number, server in enumerate(TRIED):
            if only.lower() in server.name.lower():
                _try_all(server, rows, shared, Path(folder) / str(number), trials)
                report.write(trials, out)
    click.echo(f"written to {out / report.REPORT}")


if __name__ == "__main__":
    main()
