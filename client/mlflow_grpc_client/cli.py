"""`mlflow-grpc-predict`: sends a payload, prints the answer.

Exit codes: 0 answered, 1 the model or the server failed, 2 used wrongly, 3 the payload was refused,
4 no server answers or it is not serving, 5 the deadline passed.
"""

import argparse
import sys
from pathlib import Path

from mlflow_grpc_client import TLS, Client, DeadlineExceeded, InvalidInput, PredictError, Unavailable, __version__
from mlflow_grpc_client.options import DEFAULT_TIMEOUT_S

EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_DEADLINE = 1, 2, 3, 4, 5


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits."""
    sys.exit(run(_parser(), arguments))


def run(parser: argparse.ArgumentParser, arguments: list[str] | None) -> int:
    """Runs the command and returns its exit code."""
    given = parser.parse_args(arguments)
    try:
        payload = "" if given.health is not None else _payload(given.payload)
        tls = TLS(given.tls_ca, given.tls_cert, given.tls_key, given.tls_server_name)
        client = Client(given.address, timeout_s=given.timeout, tls=tls if given.tls or tls != TLS() else None)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    with client:
        try:
            if given.health is not None:
                status = client.health(given.health, timeout_s=given.timeout)
                print(status)
                return 0 if status == "SERVING" else EXIT_UNAVAILABLE
            print(client.predict_text(payload, content_type=given.content_type, request_id=given.request_id))
        except PredictError as error:
            return _report(error)
        except UnicodeEncodeError:
            print("error: the payload is not UTF-8", file=sys.stderr)
            return EXIT_USAGE
    return 0


def _report(error: PredictError) -> int:
    print(f"error: {error}", file=sys.stderr)
    for violation in error.violations:
        print(f"  {violation.field}: {violation.description}", file=sys.stderr)
    if isinstance(error, InvalidInput):
        return EXIT_REFUSED
    if isinstance(error, Unavailable):
        return EXIT_UNAVAILABLE
    return EXIT_DEADLINE if isinstance(error, DeadlineExceeded) else EXIT_FAILED


def _payload(argument: str | None) -> str:
    if argument is None or argument == "-":
        return sys.stdin.buffer.read().decode()
    if argument.startswith("@"):
        return Path(argument[1:]).read_bytes().decode()
    return argument


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mlflow-grpc-predict", description="Calls a model served by mlflow-grpc.")
    parser.add_argument("payload", nargs="?", help="the payload; @FILE reads a file, - or nothing reads stdin")
    parser.add_argument("-a", "--address", default="localhost:50051", help="host:port of the server (%(default)s)")
    parser.add_argument(
        "-t", "--timeout", type=float, default=DEFAULT_TIMEOUT_S, help="deadline in seconds (%(default)g)"
    )
    parser.add_argument("--content-type", help="format of the payload: application/json (the default) or text/csv")
    parser.add_argument("--request-id", help="the id under which the server logs the call")
    parser.add_argument(
        "--health", nargs="?", const="", metavar="SERVICE", help="print the health instead of predicting"
    )
    parser.add_argument("--tls", action="store_true", help="encrypt, trusting the system's authorities")
    parser.add_argument("--tls-ca", metavar="FILE", help="encrypt, trusting these authorities (PEM)")
    parser.add_argument("--tls-cert", metavar="FILE", help="the client's certificate (PEM), for mutual TLS")
    parser.add_argument("--tls-key", metavar="FILE", help="the key of --tls-cert (PEM)")
    parser.add_argument("--tls-server-name", metavar="NAME", help="the name in the server's certificate")
    parser.add_argument("--version", action="version", version=__version__)
    return parser
