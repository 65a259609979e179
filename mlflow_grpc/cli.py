"""The command line: turns flags into settings, and outcomes into lines and exit codes.

Rule of this module: it decides nothing about serving.

Exit codes of `serve`: 0 stopped by a signal, 1 address already in use, 2 invalid settings or unusable model, 128 + n
ended by a second signal n. Exit codes of `proto`: 0 written or compatible, 1 not written or incompatible, 2 invalid
settings, unusable model or lock. Exit codes of `openapi` and `dockerfile`: 0 written, 1 not written, 2 invalid settings
or model.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from pydantic.fields import FieldInfo

from mlflow_grpc import __version__, config, declarations, logs, settings
from mlflow_grpc.addresses import exposure
from mlflow_grpc.arguments import arguments_of
from mlflow_grpc.contract.lockfile import io as lock_io
from mlflow_grpc.contract.lockfile.format import FILE_NAME
from mlflow_grpc.errors import StartError, writing
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import (
    demote_warnings,
    end_process,
    end_with_stdin,
    raise_open_files_limit,
    reopen_standard_streams,
)
from mlflow_grpc.settings import EnvManager, Settings

if TYPE_CHECKING:
    from mlflow_grpc.contract.lockfile.compatibility import Verdict
    from mlflow_grpc.typed_contract import TypedContract


logger = get_logger(__name__)


@click.group(context_settings={"help_option_names": ["--help"]})
@click.version_option(__version__, prog_name="mlflow-grpc")
def main() -> None:
    """Serves MLflow models over gRPC, with the answers of `mlflow models serve`."""


def _serve(no_conda: bool, install_mlflow: bool, **flags: Any) -> None:
    reopen_standard_streams()
    demote_warnings()
    options = {name: value for name, value in flags.items() if value is not None}
    if no_conda:
        options["env_manager"] = EnvManager.LOCAL
    try:
        loaded = Settings.load(options)
        configuration = config.load(loaded)
        logs.configure(
            loaded.log_format, loaded.log_level, libraries=loaded.log_level_libraries, extra=configuration.logging
        )
        for line in settings.ignored_environment(options):
            logger.warning("%s", line)
        _log_warnings(configuration)
        if loaded.end_with_stdin:
            end_with_stdin()
        if loaded.env_manager is not EnvManager.LOCAL:
            _restart(loaded, options, install_mlflow=install_mlflow)
        code, last_words = _run(loaded, configuration), ""
    except StartError as error:
        code, last_words = error.exit_code, f"Error: {logs.escape(str(error))}"
    end_process(code, last_words)


def _log_warnings(configuration: config.Configuration) -> None:
    for line in configuration.warnings:
        logger.warning("%s", line)


def _restart(loaded: Settings, flags: dict[str, Any], *, install_mlflow: bool) -> NoReturn:
    """Replaces this process by the server in the model's environment.

    A signal during the build of the environment ends the process with exit code 0.
    """
    from mlflow_grpc.environments import commands, restarting

    try:
        directory = restarting.prepare(loaded, install_mlflow=install_mlflow)
    except commands.Ended:
        end_process(0)
    restarting.start(directory, arguments_of(flags))


def _run(loaded: Settings, configuration: config.Configuration) -> int:
    settings.prepare_grpc_core()
    raise_open_files_limit()
    hosts = dict.fromkeys([loaded.host, *([loaded.http_host or loaded.host] if loaded.http_port is not None else [])])
    if loaded.tls_cert is None and (reached := " and ".join(filter(None, map(exposure, hosts)))):
        logger.warning(
            "listening on %s without TLS: anyone who reaches the port can call the models and read the traffic. "
            "Turn on TLS with %s and %s; add %s to accept only clients with a certificate",
            reached,
            *map(settings.spelling, ("tls_cert", "tls_key", "tls_client_ca")),
        )
    if loaded.workers > 1:
        from mlflow_grpc import workers

        return workers.supervise(loaded, configuration)
    # Imported late, because grpc reads its environment at import, and a supervisor must not import it.
    from mlflow_grpc import lifecycle, runner

    stdout = sys.stdout

    async def announce(server: lifecycle.Server) -> None:
        for line in filter(None, (server.ready_line, loaded.page_line(server.http_url))):
            logs.announce(line, loaded.log_format, stdout)

    return runner.run(loaded, configuration, when_loaded=announce)


def choices(info: FieldInfo) -> list[str] | None:
    """Returns the legal values of a setting with an enum type, otherwise None."""
    annotation = info.annotation
    return (
        [item.value for item in annotation]
        if isinstance(annotation, type) and issubclass(annotation, StrEnum)
        else None
    )


def default_text(info: FieldInfo) -> str:
    """Formats the default of a setting as a user would write it."""
    value = info.default
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, bool):
        return "on" if value else "off"
    if info.default_factory is declarations.default_threads:
        return "min(32, cores + 4)"
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _option(name: str, info: FieldInfo) -> click.Option:
    """Makes the flag of a setting from its declaration."""
    flag, legal = declarations.flag(info), choices(info)
    default = default_text(info)
    note = f"default: {default}" if default else "no default"
    return click.Option(
        [name, *([f"{flag.names[0]}/{flag.off}"] if flag.off else flag.names)],
        default=None,
        metavar=flag.metavar or (f"[{'|'.join(legal)}]" if legal else None),
        help=f"{info.description}  [env: {', '.join(declarations.env_names(info))}; {note}]",
    )


main.add_command(
    click.Command(
        "serve",
        callback=_serve,
        help="Serves one model, or the models of a configuration file, until SIGTERM, SIGINT or SIGHUP.",
        context_settings={"help_option_names": ["--help"]},
        params=[
            *(_option(name, info) for name, info in settings.fields()),
            click.Option(["--no-conda"], is_flag=True, help="Same as --env-manager local, as in MLflow."),
            click.Option(
                ["--install-mlflow"],
                is_flag=True,
                help="Installs the MLflow version of this environment into the model's environment, instead of the "
                "version that the model requires. No effect with --env-manager local, as in MLflow.",
            ),
        ],
    )
)


def _end_after(work: Callable[[], int]) -> NoReturn:
    """Runs a command that serves nothing, and ends the process with the exit code of the command or of its error."""
    reopen_standard_streams()
    demote_warnings()
    try:
        code = work()
    except StartError as error:
        click.echo(f"Error: {logs.escape(str(error))}", err=True)
        code = error.exit_code
    end_process(code)


def _proto(output: str, descriptor_set: bool, check: bool, **flags: Any) -> None:
    def work() -> int:
        loaded = Settings.load({name: value for name, value in flags.items() if value is not None})
        configuration = config.load(loaded)
        logs.configure(loaded.log_format, loaded.log_level)
        _log_warnings(configuration)
        settings.prepare_grpc_core()
        from mlflow_grpc.typed_contract import typed_contract

        if check:
            contract = typed_contract(loaded, configuration, make_lock=False)
            return _checked(contract.verdicts, has_file=loaded.lock is not None)
        contract = _locked(loaded, configuration, output)
        with writing(output), click.open_file(output, "wb") as file:
            file.write(contract.data if descriptor_set else contract.text.encode())
        return 0

    _end_after(work)


def _locked(loaded: Settings, configuration: config.Configuration, output: str) -> "TypedContract":
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


def _output_option() -> click.Option:
    return click.Option(
        ["-o", "--output"], default="-", metavar="FILE", help="The file to write; - is stdout.", show_default=True
    )


_OF_PROTO = ("model_uri", "config", "model_name", "requirements", "lock")

main.add_command(
    click.Command(
        "proto",
        callback=_proto,
        help="Writes the typed RPCs of a server's models as a .proto file, for clients that compile it.",
        params=[
            *(_option(name, info) for name, info in settings.fields() if name in _OF_PROTO),
            _output_option(),
            click.Option(
                ["--descriptor-set"], is_flag=True, help="Writes a serialised FileDescriptorSet instead of text."
            ),
            click.Option(
                ["--check"],
                is_flag=True,
                help="Reports the changes since the lock was written, and whether old clients still work. Writes "
                "nothing. Exit code 0 if they work, otherwise 1.",
            ),
        ],
    )
)


def _openapi(output: str, **flags: Any) -> None:
    def work() -> int:
        loaded = Settings.load({name: value for name, value in flags.items() if value is not None})
        configuration = config.load(loaded)
        logs.configure(loaded.log_format, loaded.log_level)
        _log_warnings(configuration)
        settings.prepare_grpc_core()
        from mlflow_grpc.openapi import openapi_text

        text = openapi_text(loaded, configuration)
        with writing(output), click.open_file(output, "w", encoding="utf-8") as file:
            file.write(text)
        return 0

    _end_after(work)


_OF_OPENAPI = ("model_uri", "config", "model_name", "requirements", "payload")

main.add_command(
    click.Command(
        "openapi",
        callback=_openapi,
        help="Writes the OpenAPI 3.1 document of a server's HTTP port, as it is at /openapi.json.",
        params=[
            *(_option(name, info) for name, info in settings.fields() if name in _OF_OPENAPI),
            _output_option(),
        ],
    )
)


def _dockerfile(output: Path, force: bool, **flags: Any) -> None:
    def work() -> int:
        loaded = Settings.load({name: value for name, value in flags.items() if value is not None})
        logs.configure(loaded.log_format, loaded.log_level)
        from mlflow_grpc.environments import context

        tag = output.resolve().name.lower()
        context.write(loaded.model_uri, output, name=loaded.model_name, tag=tag, overwrite=force)
        click.echo(f"{output} is written. Next: docker build -t {tag} {output} && docker run -p 50051:50051 {tag}")
        return 0

    _end_after(work)


main.add_command(
    click.Command(
        "dockerfile",
        callback=_dockerfile,
        help="Writes the build context of an image that serves a model: a Dockerfile, the model and the server.",
        context_settings={"help_option_names": ["--help"]},
        params=[
            *(_option(name, info) for name, info in settings.fields() if name in ("model_uri", "model_name")),
            click.Option(
                ["-o", "-d", "--output-directory", "output"],
                type=click.Path(path_type=Path, file_okay=False),
                default=Path("mlflow-dockerfile"),
                metavar="DIR",
                help="The directory to write; mlflow-dockerfile by default, as in `mlflow models generate-dockerfile`.",
            ),
            click.Option(["--force"], is_flag=True, help="Overwrites the output of an earlier run."),
        ],
    )
)
