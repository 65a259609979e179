"""What the commands have in common: errors about flags, settings from flags, log lines, and the end of the process.

Rule of this module: it ends the process of every command that serves nothing, with the exit code of its work or of its
error.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import click

from mlflow_grpc import config, logs
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import demote_warnings, end_process, prepare_grpc_core, reopen_standard_streams
from mlflow_grpc.settings import Settings

logger = get_logger(__name__)


class Command(click.Command):
    """A command whose errors about flags all say where its help is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments like click, which leaves the context out of the error about a flag without its value."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


def end_after(work: Callable[[Settings, config.Configuration], int], flags: dict[str, Any]) -> NoReturn:
    """Runs a command with the settings of its flags, and ends the process.

    Args:
        work: Does the work of the command and returns the exit code. It gets the settings and the models.
        flags: Values of the flags by field name; None for a flag that is not set.

    """
    reopen_standard_streams()
    demote_warnings()
    try:
        loaded = Settings.load(set_flags(flags))
        configuration = config.load(loaded)
        logs.configure(loaded.log_format, loaded.log_level)
        log_warnings(configuration)
        prepare_grpc_core()
        code = work(loaded, configuration)
    except StartError as error:
        click.echo(f"Error: {logs.escape(str(error))}", err=True)
        code = error.exit_code
    end_process(code)


def set_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Returns the flags that the user has set."""
    return {name: value for name, value in flags.items() if value is not None}


def log_warnings(configuration: config.Configuration) -> None:
    """Logs what the configuration file has that may be a mistake."""
    for line in configuration.warnings:
        logger.warning("%s", line)
