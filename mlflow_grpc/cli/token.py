"""The command `mlflow-grpc token`: a line for the file of `--auth-tokens`.

Exit codes: 0 written, 2 the name or the token is not usable.
"""

import secrets
import sys

import click

from mlflow_grpc.access.tokens import is_name, line_of
from mlflow_grpc.cli.commands import Command
from mlflow_grpc.errors import StartError

RANDOM_BYTES = 32
"""Number of random bytes in a token."""

MIN_CHARACTERS = 16
"""Minimum length of a token from stdin. A short one could be found by trying, because its digest is fast."""


def _token(name: str, from_stdin: bool) -> None:
    try:
        _check_name(name)
        token = _read() if from_stdin else secrets.token_urlsafe(RANDOM_BYTES)
    except StartError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    if not from_stdin:
        click.echo(f"The token of {name}, which is shown only here: {token}", err=True)
    click.echo(line_of(name, token))


def _check_name(name: str) -> None:
    if not is_name(name):
        raise StartError("the name of a caller is up to 256 printable characters, without spaces and without # first")


def _read() -> str:
    token = sys.stdin.readline().strip()
    if len(token) < MIN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise StartError(
            f"a token is at least {MIN_CHARACTERS} printable ASCII characters without spaces, on one line of stdin"
        )
    return token


command = Command(
    "token",
    callback=_token,
    help="Makes a token for a caller. Stdout gets the line for the file of --auth-tokens, with the token's SHA-256; "
    "stderr gets the token.",
    params=[
        click.Argument(["name"]),
        click.Option(["--stdin", "from_stdin"], is_flag=True, help="Reads the token from stdin instead of making one."),
    ],
)
