"""The command `mlflow-grpc-predict`, which sends a payload and prints the answer. `--help` lists its exit codes."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import grpc

from mlflow_grpc_client import (
    Client,
    DeadlineExceeded,
    InvalidInput,
    PredictError,
    TypedModel,
    Unavailable,
)
from mlflow_grpc_client._cli import typed_json
from mlflow_grpc_client._cli.arguments import parser, tls_of, token_of
from mlflow_grpc_client._cli.describe import Connection, describe
from mlflow_grpc_client._cli.output import (
    EXIT_FAILED,
    complain,
    error_line,
    one_line,
    printable,
    silence_grpc,
    warnings_of_a_call,
    write,
    write_bytes,
)
from mlflow_grpc_client._cli.timing import ASKS_FOR_TIMES, Timing
from mlflow_grpc_client._models import Model
from mlflow_grpc_client._options import DEFAULT_TIMEOUT_S, HEALTH_TIMEOUT_S
from mlflow_grpc_client._payloads import as_text
from mlflow_grpc_client._requests import InvalidRecord
from mlflow_grpc_client._score import command as score
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client.errors import failure

EXIT_USAGE, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_DEADLINE = 2, 3, 4, 5
EXIT_INTERRUPTED = 130

_EXIT_CODES: dict[type[PredictError], int] = {
    InvalidInput: EXIT_REFUSED,
    Unavailable: EXIT_UNAVAILABLE,
    DeadlineExceeded: EXIT_DEADLINE,
}


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command and exits."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if score.is_command(arguments):
            sys.exit(score.main(arguments[1:]))
        args = parser().parse_args(arguments)
        silence_grpc()
        code = run(args)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)


def run(args: argparse.Namespace) -> int:
    """Makes the call, prints the answer or the error, and returns the exit code."""
    try:
        _check(args)
        timing = Timing() if args.timing else None
        with warnings_of_a_call(), _client(args, timing) as client, _shown(timing):
            return _call(client, args)
    except RecordRefused as error:
        complain(str(error))
        _suggest(args)
        return EXIT_REFUSED
    except PredictError as error:
        complain(str(error))
        if isinstance(error, InvalidInput):
            _suggest(args)
        return _EXIT_CODES.get(type(error), EXIT_FAILED)
    except UnicodeError:
        complain("the payload is not UTF-8")
    except OSError as error:
        complain(f"cannot read {error.filename or 'the payload'}: {error.strerror or error}")
    except ValueError as error:
        complain(str(error))
    return EXIT_USAGE


def _suggest(args: argparse.Namespace) -> None:
    """Says how to send a file, if the refused payload is the path of one, or a CSV file that was sent as JSON."""
    payload = args.payload or ""
    if payload.startswith("@") and payload.lower().endswith(".csv") and args.content_type is None and not args.typed:
        complain(f"{payload[1:]} was sent as JSON; for CSV add --content-type text/csv", "warning")
    with contextlib.suppress(OSError, ValueError):  # A payload may be too long for a path, or have a null byte.
        if payload and Path(payload).is_file():
            complain(f"{payload} is a file, and its name was sent; write @{payload} to send the file", "warning")


def _check(args: argparse.Namespace) -> None:
    """Checks combinations of flags."""
    if not args.proto and (args.descriptor_set or args.output != "-"):
        raise ValueError("--descriptor-set and --output work only with --proto; add --proto")


def _call(client: Client, args: argparse.Namespace) -> int:
    """Makes the call that the flags select, prints its answer, and returns the exit code.

    Errors of the call are raised.
    """
    if args.health is not None:
        status = client.health(args.health, timeout_s=_info_timeout_s(args))
        return write(status) or (0 if status == "SERVING" else EXIT_UNAVAILABLE)
    if args.list or args.describe is not None:
        return write("\n".join(_model_lines(client, args)))
    if args.proto:
        return _proto(client, args)
    if args.stream:
        return _stream(client, args) if args.payload in (None, "-") else _chunks(client, args)
    if args.typed:
        return write(typed_json.dumps(_typed_answer(client, args, TypedModel.predict)))
    return write(client.predict_text(_payload(args.payload), **_options(args)))


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a call of a payload. A stream has the timeout of the flag, a single call that of the client."""
    names = {"content_type": "content_type", "request_id": "request_id", "model": "model", "timeout_s": "timeout"}
    return {name: getattr(args, flag) for name, flag in names.items()}


def _info_timeout_s(args: argparse.Namespace) -> float:
    """The timeout in seconds of calls that are not predictions."""
    return HEALTH_TIMEOUT_S if args.timeout is None else float(args.timeout)


def _model_lines(client: Client, args: argparse.Namespace) -> list[str]:
    """Returns the lines for --list or --describe."""
    models = client.models(timeout_s=_info_timeout_s(args))
    if args.list:
        return [printable("  ".join(_summary(model))) for model in models]
    for model in models:
        if args.describe in (model.name, model.label):
            connection = Connection(args.address, tls_of(args))
            return [printable(line) for line in describe(model, connection, _contract_of(client, model))]
    labels = ", ".join(model.label for model in models)
    raise failure(grpc.StatusCode.NOT_FOUND, f"There is no model {args.describe} here. There are: {labels}.")


def _proto(client: Client, args: argparse.Namespace) -> int:
    """Writes the .proto file of the server's typed RPCs, or its descriptor set."""
    proto_file = client.proto_file(timeout_s=_info_timeout_s(args))
    data = proto_file.descriptor_set if args.descriptor_set else proto_file.text.encode()
    if args.output == "-":
        return write_bytes(data)
    try:
        Path(args.output).write_bytes(data)
    except OSError as error:
        complain(f"cannot write {args.output}: {error.strerror or error}")
        return EXIT_FAILED
    return 0


def _contract_of(client: Client, model: Model) -> Contract | None:
    """Returns the types of a model, or None if it has none, is not ready, or the server does not offer them."""
    if model.state != "READY":
        return None
    try:
        return client.model(model.label).contract()
    except PredictError:
        return None


def _stream(client: Client, args: argparse.Namespace) -> int:
    """Sends each line as a payload and writes each answer or error as a line, in the same order."""
    if args.typed:
        model = _typed_model(client, args)
        contract = model.contract()
        answers = model.predict_many((_record(line, contract) for line in _lines()), on_error="return")
    else:
        answers = client.stream_text(_lines(), on_error="return", **_options(args))
    failed = False
    with answers:
        for answer in answers:
            failed = failed or isinstance(answer, PredictError)
            if code := write(error_line(answer) if isinstance(answer, PredictError) else _line(answer, args)):
                return code
    return EXIT_FAILED if failed else 0


def _chunks(client: Client, args: argparse.Namespace) -> int:
    """Sends one payload and writes each part of its answer on a line as soon as it arrives."""
    if args.typed:
        answers = _typed_answer(client, args, TypedModel.predict_stream)
    else:
        answers = client.predict_stream_text(_payload(args.payload), **_options(args))
    with answers:
        for answer in answers:
            if code := write(_line(answer, args)):
                return code
    return 0


class RecordRefused(Exception):
    """A record does not fit the model's types."""


def _typed_model(client: Client, args: argparse.Namespace) -> TypedModel:
    """Returns the model for a typed call."""
    if args.content_type not in (None, "application/json"):
        raise ValueError(f"--typed takes records in JSON, and --content-type is {args.content_type}; leave it out")
    return client.model(args.model or "", timeout_s=args.timeout, request_id=args.request_id)


def _typed_answer(client: Client, args: argparse.Namespace, predict: Callable[..., Any]) -> Any:
    """The answer of a method of TypedModel to the record or rows in the payload, and to the params beside them.

    Raises RecordRefused if they do not fit the model's types.
    """
    model = _typed_model(client, args)
    contract = model.contract()
    text = _payload(args.payload)
    try:
        rows, params = typed_json.input_of(text, contract)
        return predict(model, rows, params=params)
    except (TypeError, ValueError) as error:
        raise RecordRefused(str(error)) from None


def _line(answer: Any, args: argparse.Namespace) -> str:
    """Formats an answer of a stream as a line."""
    return typed_json.dumps(answer) if args.typed else one_line(answer)


def _lines() -> Iterator[bytes]:
    """The lines of stdin that are not blank, each as soon as it arrives."""
    # A file of its own, because the interpreter closes sys.stdin at exit, and hangs while gRPC's thread reads it.
    with os.fdopen(os.dup(0), "rb") as stdin:
        yield from (line.rstrip(b"\r\n") for line in stdin if line.strip())


def _record(line: bytes, contract: Contract) -> Any:
    """The record in a line of stdin; an InvalidRecord for a line without one."""
    try:
        return typed_json.record_in(as_text(line), contract)
    except (TypeError, ValueError) as error:
        return InvalidRecord(error)


def _summary(model: Model) -> list[str]:
    texts = [model.label, model.state, ", ".join(model.flavors), model.error or model.description]
    return [text for text in texts if text]


def _client(args: argparse.Namespace, timing: Timing | None) -> Client:
    timeout_s = DEFAULT_TIMEOUT_S if args.timeout is None else args.timeout
    options = token_of(args)
    if timing is not None:
        options |= {"interceptors": [timing], "metadata": ASKS_FOR_TIMES}
    return Client(args.address, timeout_s=timeout_s, tls=tls_of(args), **options)


@contextlib.contextmanager
def _shown(timing: Timing | None) -> Iterator[None]:
    """Prints the times of the call after its answer or its error status."""
    try:
        yield
    except PredictError as error:
        if timing is not None and error.reason:  # Only a server of ours sends reasons.
            timing.show()
        raise
    if timing is not None:
        timing.show()


def _payload(argument: str | None) -> str:
    if argument is None or argument == "-":
        if sys.stdin is None:
            raise ValueError("no payload is given and stdin is closed")
        return sys.stdin.buffer.read().decode()
    if argument.startswith("@"):
        return Path(argument[1:]).read_bytes().decode()
    return argument
