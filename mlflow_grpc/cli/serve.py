"""The command `mlflow-grpc serve`.

Exit codes: 0 stopped by a signal, 1 address already in use, 2 invalid settings or unusable model, 128 + n ended by a
second signal n.
"""

import logging
import sys
from typing import Any, NoReturn

import click

from mlflow_grpc import config, logs, settings
from mlflow_grpc.addresses import exposure
from mlflow_grpc.arguments import arguments_of
from mlflow_grpc.choices import EnvManager, LogFormat
from mlflow_grpc.cli.commands import Command, log_warnings, set_flags
from mlflow_grpc.cli.options import setting_options
from mlflow_grpc.distribution import protobuf_problem
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import (
    demote_warnings,
    end_process,
    end_with_stdin,
    prepare_grpc_core,
    raise_open_files_limit,
    reopen_standard_streams,
)
from mlflow_grpc.rollout.configuration import may_replace_workers, tracked
from mlflow_grpc.settings import Settings

logger = get_logger(__name__)


def _serve(no_conda: bool, install_mlflow: bool, **flags: Any) -> None:
    reopen_standard_streams()
    demote_warnings()
    options = set_flags(flags)
    if no_conda:
        options["env_manager"] = EnvManager.LOCAL
    ignored = settings.ignored_environment(options)
    log_format = LogFormat(options.get("log_format", LogFormat.AUTO))
    try:
        loaded = Settings.load(options)
        log_format = loaded.log_format
        configuration = tracked(config.load(loaded), loaded)
        logs.configure(
            loaded.log_format, loaded.log_level, libraries=loaded.log_level_libraries, extra=configuration.logging
        )
        while ignored:
            logger.warning("%s", ignored.pop(0))
        log_warnings(configuration)
        if loaded.end_with_stdin:
            end_with_stdin()
        if loaded.env_manager is not EnvManager.LOCAL:
            _restart(loaded, options, install_mlflow=install_mlflow)
        if problem := protobuf_problem():
            raise StartError(problem)  # noqa: TRY301 - reported like every reason not to start
        code, last_words = _run(loaded, configuration), ""
        logger.info("ended with exit code %d", code)
    except StartError as error:
        # If the settings are invalid, no line was logged, and an ignored variable may be why.
        lines = [*((logging.WARNING, line) for line in ignored), (logging.CRITICAL, str(error))]
        code, last_words = error.exit_code, "\n".join(logs.last_line(*line, log_format) for line in lines)
    end_process(code, last_words)


def _restart(loaded: Settings, flags: dict[str, Any], *, install_mlflow: bool) -> NoReturn:
    """Replaces this process by the server in the model's environment.

    A signal during the build of the environment ends the process with exit code 0.
    """
    from mlflow_grpc.environments import commands, restarting

    try:
        directory, uri = restarting.prepare(loaded, install_mlflow=install_mlflow)
    except commands.Ended:
        end_process(0)
    restarting.start(directory, arguments_of({**flags, "model_uri": uri}))


def _run(loaded: Settings, configuration: config.Configuration) -> int:
    prepare_grpc_core()
    raise_open_files_limit()
    hosts = dict.fromkeys([loaded.host, *([loaded.http_host or loaded.host] if loaded.http_port is not None else [])])
    if loaded.tls_cert is None and (reached := " and ".join(filter(None, map(exposure, hosts)))):
        fields = ("tls_cert", "tls_key", "tls_client_ca", "auth_tokens")
        tls_cert, tls_key, client_ca, tokens = map(settings.spelling, fields)
        lacks, risk, advice = (
            "TLS and authentication",
            "can call the models and read the traffic",
            f"; add {client_ca} to accept only clients with a certificate, or {tokens} for tokens",
        )
        if loaded.recognizes_callers:
            lacks, risk, advice = "TLS", "can read the traffic and the tokens in it", ""
        logger.warning(
            "listening on %s without %s: anyone who reaches the port %s. Turn on TLS with %s and %s%s",
            *(reached, lacks, risk, tls_cert, tls_key, advice),
        )
    if loaded.workers > 1 or may_replace_workers(configuration, loaded):
        from mlflow_grpc import workers

        return workers.supervise(loaded, configuration)
    # Imported late, because grpc reads its environment at import, and a supervisor must not import it.
    from mlflow_grpc import lifecycle, runner

    stdout = sys.stdout

    async def announce(server: lifecycle.Server) -> None:
        for line in filter(None, (server.ready_line, loaded.page_line(server.http_url))):
            logs.announce(line, loaded.log_format, stdout)

    return runner.run(loaded, configuration, when_loaded=announce)


command = Command(
    "serve",
    callback=_serve,
    help="Serves one model, or the models of a configuration file, until SIGTERM, SIGINT or SIGHUP.",
    params=[
        *setting_options(),
        click.Option(["--no-conda"], is_flag=True, help="Same as --env-manager local, as in MLflow."),
        click.Option(
            ["--install-mlflow"],
            is_flag=True,
            help="Installs the MLflow version of this environment into the model's environment, instead of the "
            "version that the model requires. No effect with --env-manager local, as in MLflow.",
        ),
    ],
)
