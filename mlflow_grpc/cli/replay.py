"""The command `mlflow-grpc replay`.

Exit codes: 0 all answers are the same, 1 some differ, 2 invalid usage or nothing to replay, 130 interrupted.
"""

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from mlflow_grpc import logs
from mlflow_grpc.cli.commands import Command
from mlflow_grpc.errors import StartError

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130


def _replay(**options: Any) -> NoReturn:
    from mlflow_grpc_client._cli.output import silence_grpc

    from mlflow_grpc.replay.run import Options, run

    silence_grpc()
    try:
        code = run(Options(**options))
    except StartError as error:
        click.echo(f"Error: {logs.escape(str(error))}", err=True)
        code = EXIT_USAGE
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)


command = Command(
    "replay",
    callback=_replay,
    help="Makes recorded calls again, against a model or a server, and reports which answers differ. RECORDED is the "
    "directory of `mlflow-grpc serve --record`, or one of its files. Exit code 0 if all answers are the same, else 1.",
    params=[
        click.Argument(["recorded"], type=click.Path(path_type=Path)),
        click.Option(
            ["--against"],
            required=True,
            metavar="TARGET",
            help="A model, such as models:/churn/4 or a directory, or a server, such as grpc://localhost:50051 "
            "(grpcs:// for TLS).",
        ),
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="The Parquet file to write, with a row for each call: both answers, and what differs.",
        ),
        click.Option(["--model"], metavar="NAME", help="The recorded model whose calls are made; all by default."),
        click.Option(
            ["--tolerance"],
            type=click.FloatRange(min=0.0),
            default=0.0,
            show_default=True,
            help="The relative or absolute difference up to which two numbers are the same.",
        ),
        click.Option(
            ["--in-flight"], type=click.IntRange(1, 256), default=4, show_default=True, help="Calls at a time."
        ),
        click.Option(
            ["-t", "--timeout", "timeout_s"],
            type=click.FloatRange(min=0.0, min_open=True),
            default=60.0,
            show_default=True,
            metavar="SECONDS",
            help="The deadline of a call.",
        ),
        click.Option(
            ["--token-file"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The file with the token for calls to a server.",
        ),
        click.Option(
            ["--tls-ca"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The authorities (PEM) to trust for a server.",
        ),
    ],
)
