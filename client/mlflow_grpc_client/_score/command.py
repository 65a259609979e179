"""The command `mlflow-grpc-predict score`: from arguments to an exit code.

Rule of this module: it checks that the extra `score` is installed before it imports `job`, which needs it.
"""

import argparse
import gc
import importlib.util
from typing import TYPE_CHECKING

from mlflow_grpc_client import Client, PredictError
from mlflow_grpc_client._cli.arguments import tls_of, token_of
from mlflow_grpc_client._cli.output import complain, silence_grpc
from mlflow_grpc_client._score.arguments import parser
from mlflow_grpc_client._score.errors import InvalidUsage, ScoreError

if TYPE_CHECKING:
    from mlflow_grpc_client._score.job import Job

EXIT_STOPPED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

_LIBRARIES = ("pyarrow", "pandas", "orjson")


def is_command(arguments: list[str]) -> bool:
    """Returns True if arguments of `mlflow-grpc-predict` are those of `score`.

    `score` alone, or before flags only, is a payload.
    """
    if arguments[:1] != ["score"] or len(arguments) == 1:
        return False
    flags = ("-h", "--help", "-o", "--output")
    return not arguments[1].startswith("-") or any(item.split("=")[0] in flags for item in arguments[1:])


def main(arguments: list[str]) -> int:
    """Runs the command and returns the exit code."""
    args = parser().parse_args(arguments)
    silence_grpc()
    try:
        job = prepared(args)
        with Client(args.address, timeout_s=args.timeout, tls=tls_of(args), **token_of(args)) as client:
            return job.run(client, args.model or "")
    except (ScoreError, PredictError) as error:
        return report(error)
    except OSError as error:
        complain(f"cannot read {error.filename}: {error.strerror}" if error.filename else str(error))
    except ValueError as error:
        complain(str(error))
    return EXIT_USAGE


def prepared(args: argparse.Namespace) -> "Job":
    """A job whose files are checked; no call has been made.

    Args:
        args: The arguments of `arguments.add_scoring`.

    Raises:
        InvalidUsage: The extra is not installed, or the files do not fit.
        ScoreError: A file cannot be read.

    """
    # Found and not imported, because most runs need no pandas, whose import takes half a second.
    if missing := [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]:
        from _mlflow_grpc_protocol.install_sources import CLIENT, install_argument

        raise InvalidUsage(
            f"score needs the libraries of an extra (not installed: {', '.join(missing)}): "
            f"pip install {install_argument(CLIENT, 'score')}"
        )
    gc.disable()  # Modules that are being imported are no garbage.
    from mlflow_grpc_client._score.job import Job

    gc.enable()
    return Job(args)


def report(error: Exception) -> int:
    """Prints an error that has ended a run, and returns the exit code."""
    complain(str(error))
    return EXIT_USAGE if isinstance(error, InvalidUsage) else EXIT_STOPPED
