"""The command `mlflow-grpc score`: files of rows in, a file of predictions out, without a server.

Rule of this module: it starts servers in child processes, and leaves files, arguments and exit codes to the client's
command `mlflow-grpc-predict score`. The client is imported when the command runs.
"""

import sys
from typing import NoReturn

import click

from mlflow_grpc import child_server
from mlflow_grpc.errors import StartError


def _score(arguments: tuple[str, ...]) -> NoReturn:
    from mlflow_grpc_client import PredictError
    from mlflow_grpc_client._cli.output import complain, printable, silence_grpc
    from mlflow_grpc_client._score import command as scoring
    from mlflow_grpc_client._score.arguments import local_parser
    from mlflow_grpc_client._score.errors import ScoreError

    args = local_parser().parse_args(arguments)
    silence_grpc()
    try:
        job = scoring.prepared(args)
        options = {"timeout_s": args.timeout}
        with child_server.serving_copies(args.model_uri, args.processes, args.load_timeout, options) as client:
            code = job.run(client, "")
    except (ScoreError, PredictError) as error:
        code = scoring.report(error)
    except StartError as error:
        reason, *log_lines = str(error).splitlines()
        complain(reason)
        for line in log_lines:
            click.echo(printable(line), err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = scoring.EXIT_INTERRUPTED
    sys.exit(code)


command = click.Command(
    "score",
    callback=_score,
    help="Scores files of rows with a model in processes of this machine, without a server.",
    # The client's parser has the arguments, and their help.
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
)
