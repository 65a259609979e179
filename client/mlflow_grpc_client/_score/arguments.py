"""The arguments of the two commands that score files: `mlflow-grpc-predict score` and `mlflow-grpc score`."""

import argparse
import json
import math
from typing import Any

from mlflow_grpc_client._cli.arguments import add_address, add_tls, add_token
from mlflow_grpc_client._options import DEFAULT_TIMEOUT_S, checked_timeout

DEFAULT_ROWS = 10_000
"""Rows of a call. A server spends 0.9 us on a row of such a call, and 200 us on a call of one row."""

DEFAULT_IN_FLIGHT = 4
DEFAULT_RETRY_S = 60.0
DEFAULT_MAX_ERRORS = 1_000

INPUT_FORMATS = ("parquet", "csv", "jsonl", "arrow")

EXIT_CODES = (
    "Exit codes: 0 all rows are scored, 1 stopped by an error, 2 invalid usage or input, 3 scored with rows left out, "
    "130 interrupted. After 1 and 130, the same command with --resume goes on where it was."
)


def parser() -> argparse.ArgumentParser:
    """The parser of `mlflow-grpc-predict score`."""
    arguments = argparse.ArgumentParser(
        prog="mlflow-grpc-predict score",
        description="Scores files of rows with a model of a server, and writes a file of predictions in their order.",
        epilog=EXIT_CODES,
    )
    add_scoring(arguments)
    add_address(arguments)
    arguments.add_argument(
        "-m", "--model", metavar="NAME", help="the model, if the server has several: its name, or name/version"
    )
    add_tls(arguments)
    add_token(arguments)
    return arguments


def local_parser() -> argparse.ArgumentParser:
    """The parser of `mlflow-grpc score`."""
    arguments = argparse.ArgumentParser(
        prog="mlflow-grpc score",
        description="Scores files of rows with a model in processes of this machine, without a server, and writes a "
        "file of predictions in their order.",
        epilog=EXIT_CODES,
    )
    arguments.add_argument(
        "-m",
        "--model-uri",
        required=True,
        metavar="URI",
        help="the model: a directory, or a URI such as models:/iris/3",
    )
    add_scoring(arguments)
    arguments.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="processes with a copy of the model (%(default)s)",
    )
    arguments.add_argument(
        "--load-timeout",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="how long the processes may take to load the model (%(default)g)",
    )
    return arguments


def add_scoring(arguments: argparse.ArgumentParser) -> None:
    """Adds the arguments of both commands."""
    add = arguments.add_argument
    add(
        "input",
        nargs="+",
        metavar="INPUT",
        help="a file of Parquet, CSV, JSON lines or Arrow, a folder of such files, or a glob; s3:// and the like with "
        "fsspec",
    )
    add(
        "-o",
        "--output",
        required=True,
        metavar="OUTPUT",
        help="the file to write; its name ends in .parquet, .csv, .jsonl or .arrow",
    )
    add("--input-format", choices=INPUT_FORMATS, help="the format of the input (default: by the ends of names)")
    add("--output-format", choices=INPUT_FORMATS, help="the format of the output (default: by the end of its name)")
    add(
        "--delimiter",
        type=_delimiter,
        default=",",
        metavar="CHARACTER",
        help=r"the delimiter of CSV files of the input, such as ; or \t (%(default)s)",
    )
    add("--columns", type=_names, metavar="A,B", help="the input columns for the model (default: those that it takes)")
    add("--keep", type=_names, default=(), metavar="A,B", help="input columns to copy to the output; * for all")
    add("--prefix", default="", metavar="TEXT", help="a text before the names of predicted columns in the output")
    add("--params", type=_params, metavar="JSON", help="params of the model, as a JSON object")
    add(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="stop at the first row that cannot be scored (default), or leave such rows out of the output",
    )
    add(
        "--errors",
        metavar="FILE",
        help="the file for rows that cannot be scored, as JSON lines (default: OUTPUT.errors.jsonl)",
    )
    add(
        "--max-errors",
        type=_positive,
        default=DEFAULT_MAX_ERRORS,
        metavar="N",
        help="with --on-error skip: stop after more such rows (%(default)s)",
    )
    add("--resume", action="store_true", help="go on where an interrupted run of the same command was")
    add("--overwrite", action="store_true", help="replace the output if it exists")
    add("--rows", type=_positive, default=DEFAULT_ROWS, metavar="N", help="rows of a call (%(default)s)")
    add(
        "--in-flight",
        type=_positive,
        default=DEFAULT_IN_FLIGHT,
        metavar="N",
        help="calls at a time (%(default)s); set it to at least twice the number of servers or processes",
    )
    add(
        "-t",
        "--timeout",
        type=_seconds,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="the deadline of a call (%(default)g)",
    )
    add(
        "--retry-for",
        type=_retry_s,
        default=DEFAULT_RETRY_S,
        metavar="SECONDS",
        help="how long a call is tried again while the server is away or overloaded (%(default)g)",
    )


def _delimiter(text: str) -> str:
    delimiter = "\t" if text == r"\t" else text
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise argparse.ArgumentTypeError(rf"{text!r} is not a delimiter: use one ASCII character, or \t for a tab")
    return delimiter


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def _seconds(text: str) -> float:
    try:
        return checked_timeout(float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to a year") from None


def _retry_s(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name: write names with commas between them")
    return names


def _params(text: str) -> dict[str, Any]:
    try:
        params = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(params, dict):
        raise argparse.ArgumentTypeError('not an object: write it as {"name": value}')
    return params
