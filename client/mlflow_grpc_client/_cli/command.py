"""The command `mlflow-grpc-predict`, which sends a payload and prints the answer.

Exit codes: 0 answered, 1 the call or a line of --stream failed or its answer cannot be written, 2 invalid usage,
3 payload refused, 4 no server answers or it is not serving, 5 deadline passed, 130 interrupted.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from mlflow_grpc_client import (
    TLS,
    Client,
    DeadlineExceeded,
    InvalidInput,
    PredictError,
    TypedModel,
    Unavailable,
    __version__,
)
from mlflow_grpc_client._cli import typed_json
from mlflow_grpc_client._cli.describe import Connection, describe
from mlflow_grpc_client._ignored import IgnoredColumns
from mlflow_grpc_client._models import Model
from mlflow_grpc_client._options import DEFAULT_TIMEOUT_S, HEALTH_TIMEOUT_S
from mlflow_grpc_client._typed.contract import Contract

EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_DEADLINE = 1, 2, 3, 4, 5
EXIT_INTERRUPTED = 130

_EXIT_CODES: dict[type[PredictError], int] = {
    InvalidInput: EXIT_REFUSED,
    Unavailable: EXIT_UNAVAILABLE,
    DeadlineExceeded: EXIT_DEADLINE,
}


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command and exits."""
    try:
        args = _parser().parse_args(arguments)
        _silence_grpc()
        code = run(args)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)


def run(args: argparse.Namespace) -> int:
    """Makes the call, prints the answer or the error, and returns the exit code."""
    try:
        _check(args)
        with _warnings_as_lines(), _client(args) as client:
            return _call(client, args)
    except RecordRefused as error:
        _complain(str(error))
        return EXIT_REFUSED
    except PredictError as error:
        _complain(str(error))
        return _EXIT_CODES.get(type(error), EXIT_FAILED)
    except UnicodeError:
        _complain("the payload is not UTF-8")
    except OSError as error:
        _complain(f"cannot read {error.filename or 'the payload'}: {error.strerror or error}")
    except ValueError as error:
        _complain(str(error))
    return EXIT_USAGE


def _check(args: argparse.Namespace) -> None:
    """Checks combinations of flags.

    Raises:
        ValueError: A flag that belongs to --proto is used without it.

    """
    if not args.proto and (args.descriptor_set or args.output != "-"):
        raise ValueError("--descriptor-set and --output work only with --proto; add --proto")


def _call(client: Client, args: argparse.Namespace) -> int:
    """Makes the call that the flags select, prints its answer, and returns the exit code.

    Errors of the call are raised.
    """
    if args.health is not None:
        timeout_s = HEALTH_TIMEOUT_S if args.timeout is None else args.timeout
        status = client.health(args.health, timeout_s=timeout_s)
        return _write(status) or (0 if status == "SERVING" else EXIT_UNAVAILABLE)
    if args.list or args.describe is not None:
        return _write("\n".join(_model_lines(client, args)))
    if args.proto:
        return _proto(client, args)
    if args.stream:
        return _stream(client, args) if args.payload in (None, "-") else _chunks(client, args)
    if args.typed:
        return _write(_typed_answer(client, args))
    answer = client.predict_text(
        _payload(args.payload), content_type=args.content_type, request_id=args.request_id, model=args.model
    )
    return _write(answer)


def _model_lines(client: Client, args: argparse.Namespace) -> list[str]:
    """Returns the lines for --list or --describe.

    Raises:
        ValueError: The model does not exist.

    """
    models = client.models(timeout_s=HEALTH_TIMEOUT_S if args.timeout is None else args.timeout)
    if args.list:
        return [_printable("  ".join(_summary(model))) for model in models]
    for model in models:
        if args.describe in (model.name, model.label):
            connection = Connection(args.address, _tls(args))
            return [_printable(line) for line in describe(model, connection, _contract_of(client, model))]
    raise ValueError(f"there is no model {args.describe}; there are: {', '.join(model.label for model in models)}")


def _proto(client: Client, args: argparse.Namespace) -> int:
    """Writes the .proto file of the server's typed RPCs, or its descriptor set."""
    proto_file = client.proto_file(timeout_s=HEALTH_TIMEOUT_S if args.timeout is None else args.timeout)
    data = proto_file.descriptor_set if args.descriptor_set else proto_file.text.encode()
    if args.output == "-":
        return _write_bytes(data)
    try:
        Path(args.output).write_bytes(data)
    except OSError as error:
        _complain(f"cannot write {args.output}: {error.strerror or error}")
        return EXIT_FAILED
    return 0


def _contract_of(client: Client, model: Model) -> Contract | None:
    """Returns the types of a model, or None if it has none or the server does not offer them."""
    try:
        return client.model(model.label).contract()
    except PredictError:
        return None


def _stream(client: Client, args: argparse.Namespace) -> int:
    """Sends each line as a payload and writes each answer or error as a line, in the same order.

    Raises:
        ValueError: A line cannot be sent.

    """
    failed, lines = False, _Lines()
    if args.typed:
        model = _typed_model(client, args)
        contract = model.contract()
        records = (typed_json.record_in(line, contract) for line in lines)
        answers = model.predict_many(records, on_error="return")
    else:
        answers = client.stream_text(
            lines,
            content_type=args.content_type,
            on_error="return",
            timeout_s=args.timeout,
            request_id=args.request_id,
            model=args.model,
        )
    with answers:
        try:
            for answer in answers:
                failed = failed or isinstance(answer, PredictError)
                if code := _write(_error_line(answer) if isinstance(answer, PredictError) else _line(answer, args)):
                    return code
        except (TypeError, ValueError) as error:  # A line cannot be sent, which ends the stream.
            problem = "it is not UTF-8" if isinstance(error, UnicodeError) else _without_index(str(error))
            raise ValueError(f"line {lines.number}: {problem}") from None
    return EXIT_FAILED if failed else 0


def _chunks(client: Client, args: argparse.Namespace) -> int:
    """Sends one payload and writes each part of its answer on a line as soon as it arrives."""
    text = _payload(args.payload)
    if args.typed:
        model = _typed_model(client, args)
        answers = _call_with_record(
            lambda rows, params: model.predict_stream(rows, params=params), text, model.contract()
        )
    else:
        answers = client.predict_stream_text(
            text,
            content_type=args.content_type,
            timeout_s=args.timeout,
            request_id=args.request_id,
            model=args.model,
        )
    with answers:
        for answer in answers:
            if code := _write(_line(answer, args)):
                return code
    return 0


class RecordRefused(Exception):
    """A record does not fit the model's types."""


def _typed_model(client: Client, args: argparse.Namespace) -> TypedModel:
    """Returns the model for a typed call.

    Raises:
        ValueError: --content-type is not JSON.

    """
    if args.content_type not in (None, "application/json"):
        raise ValueError(f"--typed takes records in JSON, and --content-type is {args.content_type}; leave it out")
    return client.model(args.model or "", timeout_s=args.timeout, request_id=args.request_id)


def _typed_answer(client: Client, args: argparse.Namespace) -> str:
    """Returns the answer to a record or to rows as JSON.

    Raises the errors of `_typed_model` and `_call_with_record`.
    """
    model = _typed_model(client, args)
    contract = model.contract()
    text = _payload(args.payload)
    return typed_json.dumps(_call_with_record(lambda rows, params: model.predict(rows, params=params), text, contract))


def _call_with_record(call: Callable[[Any, dict[str, Any] | None], Any], text: str, contract: Contract) -> Any:
    """Calls a function with the record or rows in a text, and with the params beside them.

    Raises:
        RecordRefused: The record, the rows or the params do not fit the model's types.

    """
    try:
        return call(*typed_json.input_of(text, contract))
    except (TypeError, ValueError) as error:
        raise RecordRefused(str(error)) from None


def _without_index(text: str) -> str:
    """Removes the record's index from an error of a stream, because the number of the line differs from it."""
    return re.sub(r"^\[\d+\]: ", "", text)


def _line(answer: Any, args: argparse.Namespace) -> str:
    """Formats an answer of a stream as a line."""
    return typed_json.dumps(answer) if args.typed else _one_line(answer)


class _Lines:
    """The lines of stdin that are not blank, each as soon as it arrives."""

    def __init__(self) -> None:
        self.number = 0
        """Number of the last line read, counted from 1."""

    def __iter__(self) -> Iterator[str]:
        # A file of its own, because the interpreter closes sys.stdin at exit, and hangs while gRPC's thread reads it.
        with os.fdopen(os.dup(0), "rb") as stdin:
            for self.number, line in enumerate(stdin, 1):
                if line.strip():
                    yield line.decode().rstrip("\r\n")


def _one_line(answer: str) -> str:
    """Formats an answer as a line: a text of several lines becomes a JSON string."""
    return json.dumps(answer, ensure_ascii=False) if "\n" in answer or "\r" in answer else answer


def _error_line(error: PredictError) -> str:
    """Formats an error as a line of JSON."""
    violations = [{"field": item.field, "description": item.description} for item in error.violations]
    texts = {
        "code": error.code.name, "message": error.message, "reason": error.reason, "error_class": error.error_class,
    }  # fmt: skip
    return json.dumps({"error": {**{key: text for key, text in texts.items() if text}, "violations": violations}})


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Prints IgnoredColumns warnings as lines, without a location in this package's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", IgnoredColumns)
        show_other = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *location: Any) -> None:
            if issubclass(category, IgnoredColumns):
                _complain(str(message), "warning")
            else:
                show_other(message, category, *location)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)


def _summary(model: Model) -> list[str]:
    texts = [model.label, model.state, ", ".join(model.flavors), model.error or model.description]
    return [text for text in texts if text]


def _client(args: argparse.Namespace) -> Client:
    return Client(
        args.address,
        timeout_s=DEFAULT_TIMEOUT_S if args.timeout is None else args.timeout,
        tls=_tls(args),
    )


def _tls(args: argparse.Namespace) -> TLS | None:
    tls = TLS(args.tls_ca, args.tls_cert, args.tls_key, args.tls_server_name)
    return tls if args.tls or tls != TLS() else None


def _payload(argument: str | None) -> str:
    if argument is None or argument == "-":
        if sys.stdin is None:
            raise ValueError("no payload is given and stdin is closed")
        return sys.stdin.buffer.read().decode()
    if argument.startswith("@"):
        return Path(argument[1:]).read_bytes().decode()
    return argument


def _write(text: str) -> int:
    """Prints a line to stdout. Returns 0, or the exit code if writing fails."""
    return _write_bytes(text.encode() + b"\n")


def _write_bytes(data: bytes) -> int:
    """Writes bytes to stdout. Returns 0, or the exit code if writing fails."""
    if sys.stdout is None:
        _complain("cannot write the answer: stdout is closed")
        return EXIT_FAILED
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes again at exit, and would report the error a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # The reader closed the pipe on purpose, as `head` does.
            _complain(f"cannot write the answer: {error.strerror}")
        return EXIT_FAILED
    return 0


def _complain(text: str, severity: str = "error") -> None:
    """Prints one line to stderr, and escapes control characters in a server's text."""
    line = _printable(text)
    with contextlib.suppress(OSError, ValueError):
        print(f"{severity}: {line}", file=sys.stderr)


def _silence_grpc() -> None:
    """Keeps the log of gRPC's C core off stderr, unless GRPC_VERBOSITY is set, because the error line is clearer.

    The core writes to file descriptor 2, and reads GRPC_VERBOSITY at import, before any line of this module runs. So
    stderr moves to another descriptor.
    """
    if "GRPC_VERBOSITY" in os.environ or sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        copy = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(copy, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlflow-grpc-predict",
        description="Calls a model served by mlflow-grpc and prints its answer.",
        epilog="Exit codes: 0 answered, 1 the call or a line of --stream failed or its answer cannot be written, "
        "2 invalid usage, 3 payload refused, 4 no server answers or it is not serving, 5 deadline passed, "
        "130 interrupted.",
    )
    add = parser.add_argument
    add("payload", nargs="?", help="the payload; @FILE reads a file; - or no payload reads stdin")
    add(
        "-a",
        "--address",
        default="localhost:50051",
        help="host:port of the server (%(default)s), or grpcs://host:port for TLS; separate several servers by commas",
    )
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
    add("--list", action="store_true", help="print the models of the server instead of predicting")
    add("--describe", metavar="NAME", help="print the input and output of a model, and calls that you can paste")
    add("--proto", action="store_true", help="write the .proto file of the server's typed RPCs instead of predicting")
    add(
        "--descriptor-set",
        action="store_true",
        help="with --proto: write a serialised FileDescriptorSet instead of text",
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
    add("--tls", action="store_true", help="encrypt, and trust the system's authorities")
    add("--tls-ca", metavar="FILE", help="encrypt, and trust these authorities (PEM)")
    add("--tls-cert", metavar="FILE", help="the client's certificate (PEM), for mutual TLS")
    add("--tls-key", metavar="FILE", help="the key of --tls-cert (PEM)")
    add("--tls-server-name", metavar="NAME", help="the name in the server's certificate")
    parser.add_argument("--version", action="version", version=__version__)
    return parser
