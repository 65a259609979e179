"""The page of the site about the command line: the help of every command, as the command prints it."""

import argparse
import functools

import click
from mlflow_grpc_client._cli import arguments as predict
from mlflow_grpc_client._score import arguments as score

from mlflow_grpc.cli import main

WIDTH = 100
"""Characters in a line of help."""


def page() -> str:
    """Returns the Markdown of the page."""
    sections = [
        "# Command line\n",
        "After this page you know every command and option of the server and of the client.\n",
        "The text below is what `--help` prints. Options of `mlflow-grpc serve` are also environment variables: see "
        "[settings](settings.md).\n",
    ]
    for name, text in {**server_commands(), **client_commands()}.items():
        sections.append(f"## {name}\n\n```text\n{text.strip()}\n```\n")
    return "\n".join(sections)


def server_commands() -> dict[str, str]:
    """Returns the help of `mlflow-grpc` and of all its commands."""
    group = click.Context(main, info_name="mlflow-grpc", terminal_width=WIDTH, max_content_width=WIDTH)
    texts = {"mlflow-grpc": main.get_help(group)}
    for name in main.list_commands(group):
        command = main.commands[name]
        context = click.Context(command, parent=group, info_name=name, **command.context_settings)
        texts[f"mlflow-grpc {name}"] = command.get_help(context)
    texts["mlflow-grpc score"] = _help(score.local_parser())  # Its options are the client's.
    return texts


def client_commands() -> dict[str, str]:
    """Returns the help of `mlflow-grpc-predict` and of its command `score`."""
    return {parser.prog: _help(parser) for parser in (predict.parser(), score.parser())}


def _help(parser: argparse.ArgumentParser) -> str:
    parser.formatter_class = functools.partial(argparse.HelpFormatter, width=WIDTH)
    return parser.format_help()
