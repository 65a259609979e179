"""The arguments of `mlflow-grpc-predict`."""

import argparse
from typing import Any

from mlflow_grpc_client import TokenFile, __version__
from mlflow_grpc_client._options import DEFAULT_TIMEOUT_S, HEALTH_TIMEOUT_S, TLS


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    arguments = argparse.ArgumentParser(
        prog="mlflow-grpc-predict",
        description="Calls a model served by mlflow-grpc and prints its answer. "
        "`%(prog)s score INPUT -o OUTPUT` scores files of rows; see `%(prog)s score --help`.",
        epilog="Exit codes: 0 answered, 1 the call or a line of --stream failed or its answer cannot be written, "
        "2 invalid usage, 3 payload refused, 4 no server answers or it is not serving, 5 deadline passed, "
        "130 interrupted.",
    )
    add = arguments.add_argument
    add("payload", nargs="?", help="the payload; @FILE reads a file; - or no payload reads stdin")
    add_address(arguments)
    add("-m", "--model", metavar="NAME", help="the model, if the server has several: its name, or name/version")
    add(
        "-t",
        "--timeout",
        type=float,
        metavar="SECONDS",
        help=f"the deadline (default: {DEFAULT_TIMEOUT_S:g}; {HEALTH_TIMEOUT_S:g} with --health, --list, --describe "
        "and --proto; none with --stream)",
    )
    add(
        "--stream",
        action="store_true",
        help="with a payload: print each part of its answer as soon as it arrives; without: send each line of stdin "
        "that is not blank as a payload, and print an answer for each",
    )
    add(
        "--typed",
        action="store_true",
        help="call the model in its own types; the payload is a record in JSON or a list of records",
    )
    add("--content-type", metavar="TYPE", help="the format of the payload: application/json (default) or text/csv")
    add("--request-id", metavar="ID", help="the id of the call in the server's log")
    add(
        "--timing",
        action="store_true",
        help="print to stderr where the call spent its time, as a bar chart: in the queue of the server, in decoding, "
        "predicting and encoding, and on the network",
    )
    add("--list", action="store_true", help="print the models of the server instead of predicting")
    add("--describe", metavar="NAME", help="print the input and output of a model, and calls that you can paste")
    add("--proto", action="store_true", help="write the .proto file of the server's typed RPCs instead of predicting")
    add(
        "--descriptor-set",
        action="store_true",
        help="with --proto: write a serialised FileDescriptorSet instead of text, with mlflow.proto and the types of "
        "error details",
    )
    add(
        "-o",
        "--output",
        default="-",
        metavar="FILE",
        help="with --proto: the file to write; - is stdout (default: %(default)s)",
    )
    add(
        "--health",
        nargs="?",
        const="",
        metavar="NAME",
        help="print the health of the server, a service or a model instead of predicting",
    )
    add_tls(arguments)
    add_token(arguments)
    add("--version", action="version", version=__version__)
    return arguments


def add_address(arguments: argparse.ArgumentParser) -> None:
    """Adds the address of the server."""
    arguments.add_argument(
        "-a",
        "--address",
        default="localhost:50051",
        help="host:port of the server (%(default)s), or grpcs://host:port for TLS; separate several servers by commas",
    )


def add_tls(arguments: argparse.ArgumentParser) -> None:
    """Adds the files of an encrypted connection."""
    add = arguments.add_argument
    add("--tls", action="store_true", help="encrypt, and trust the system's authorities")
    add("--tls-ca", metavar="FILE", help="encrypt, and trust these authorities (PEM)")
    add("--tls-cert", metavar="FILE", help="the client's certificate (PEM), for mutual TLS")
    add("--tls-key", metavar="FILE", help="the key of --tls-cert (PEM)")
    add("--tls-server-name", metavar="NAME", help="the name in the server's certificate")


def add_token(arguments: argparse.ArgumentParser) -> None:
    """Adds the token, which is never an argument itself, because other users can see those."""
    arguments.add_argument(
        "--token-file",
        metavar="FILE",
        help="the file of the token for calls (default: the environment variable MLFLOW_GRPC_TOKEN, or the file that "
        "MLFLOW_GRPC_TOKEN_FILE names)",
    )
    arguments.add_argument(
        "--token-over-plaintext", action="store_true", help="send the token to other machines without encryption too"
    )


def token_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a client with the token that the arguments name."""
    return {
        "token": None if args.token_file is None else TokenFile(args.token_file),
        "token_over_plaintext": args.token_over_plaintext or None,
    }


def tls_of(args: argparse.Namespace) -> TLS | None:
    """The files of an encrypted connection; None if the arguments ask for no encryption."""
    tls = TLS(args.tls_ca, args.tls_cert, args.tls_key, args.tls_server_name)
    return tls if args.tls or tls != TLS() else None
