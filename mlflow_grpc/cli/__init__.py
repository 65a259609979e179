"""The command line: turns flags into settings, and outcomes into lines and exit codes.

Rule of this package: it decides nothing about serving. Each command has a module, which imports what it runs when it
runs. `mlflow_grpc.openapi` and `mlflow_grpc.typed_contract` do the work of commands of the same purpose.
"""

import click

from mlflow_grpc import __version__
from mlflow_grpc.cli import dockerfile, openapi, proto, replay, score, serve, token


@click.group()
@click.version_option(__version__, prog_name="mlflow-grpc")
def main() -> None:
    """Serves MLflow models over gRPC, with the answers of `mlflow models serve`."""


for command in (
    *(serve.command, proto.command, openapi.command, dockerfile.command),
    *(score.command, replay.command, token.command),
):
    main.add_command(command)
