"""The command `mlflow-grpc proto`.

Exit codes: 0 written or compatible, 1 not written or incompatible, 2 invalid settings, unusable model or lock.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_grpc import logs
from mlflow_grpc.cli.commands import Command, end_after
from mlflow_grpc.cli.options import output_option, setting_options
from mlflow_grpc.config import Configuration
from mlflow_grpc.contract.lockfile import io as lock_io
from mlflow_grpc.contract.lockfile.format import FILE_NAME
from mlflow_grpc.errors import StartError, writing
from mlflow_grpc.settings import Settings

if TYPE_CHECKING:
    from mlflow_grpc.contract.lockfile.compatibility import Verdict
    from mlflow_grpc.typed_contract import TypedContract


def _proto(output: str, descriptor_set: bool, check: bool, **flags: Any) -> None:
    def work(loaded: Settings, configuration: Configuration) -> int:
        from mlflow_grpc.typed_contract import typed_contract

        if check:
            contract = typed_contract(loaded, configuration, make_lock=False)
            return _checked(contract.verdicts, has_file=loaded.lock is not None)
        contract = _locked(loaded, configuration, output)
        with writing(output), click.open_file(output, "wb") as file:
            file.write(contract.data if descriptor_set else contract.text.encode())
        return 0

    end_after(work, flags)


def _locked(loaded: Settings, configuration: Configuration, output: str) -> "TypedContract":
    """Makes the contract and updates the lock file.

    The lock is written before the contract, so that no client can have a number that is missing in the lock.
    """
    from mlflow_grpc.typed_contract import typed_contract

    if loaded.lock is not None and output != "-" and Path(output).resolve() == loaded.lock.resolve():
        raise StartError(
            f"--output and --lock are the same file, {output}: the contract would overwrite the lock; "
            "choose another --output"
        )
    with ExitStack() as stack:
        if loaded.lock is not None:
            with writing(loaded.lock):
                stack.enter_context(lock_io.exclusive(loaded.lock))
        contract = typed_contract(loaded, configuration, make_lock=True)
        for line in [f"{verdict.lock_key}: {change}" for verdict in contract.verdicts for change in verdict.breaking]:
            click.echo(f"Warning: breaks old clients: {logs.escape(line)}", err=True)
        if loaded.lock is not None:
            with writing(loaded.lock):
                lock_io.write(loaded.lock, contract.lock)
    return contract


def _checked(verdicts: "list[Verdict]", *, has_file: bool) -> int:
    """Prints how the models differ from the lock, and returns the exit code."""
    if not has_file and not any(verdict.source for verdict in verdicts):
        raise StartError(
            "there is no lock to check against: make one from the version that clients use, with `mlflow-grpc proto "
            f"--lock {FILE_NAME} -o model_service.proto`"
        )
    for verdict in verdicts:
        click.echo("\n".join(logs.escape(line) for line in str(verdict).split("\n")))
    return 1 if any(verdict.breaking for verdict in verdicts) else 0


command = Command(
    "proto",
    callback=_proto,
    help="Writes the typed RPCs of a server's models as a .proto file, for clients that compile it.",
    params=[
        *setting_options(("model_uri", "config", "model_name", "requirements", "lock")),
        output_option(),
        click.Option(
            ["--descriptor-set"],
            is_flag=True,
            help="Writes a serialised FileDescriptorSet instead of text, with mlflow.proto and the types of error "
            "details, such as Envoy needs to translate JSON.",
        ),
        click.Option(
            ["--check"],
            is_flag=True,
            help="Reports the changes since the lock was written, and whether old clients still work. Writes "
            "nothing. Exit code 0 if they work, otherwise 1.",
        ),
    ],
)
