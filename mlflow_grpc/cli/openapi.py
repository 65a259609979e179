"""The command `mlflow-grpc openapi`. Exit codes: 0 written, 1 not written, 2 invalid settings or model."""

from typing import Any

import click

from mlflow_grpc.cli.commands import Command, end_after
from mlflow_grpc.cli.options import output_option, setting_options
from mlflow_grpc.config import Configuration
from mlflow_grpc.errors import writing
from mlflow_grpc.settings import Settings


def _openapi(output: str, **flags: Any) -> None:
    def work(loaded: Settings, configuration: Configuration) -> int:
        from mlflow_grpc.openapi import openapi_text

        text = openapi_text(loaded, configuration)
        with writing(output), click.open_file(output, "w", encoding="utf-8") as file:
            file.write(text)
        return 0

    end_after(work, flags)


command = Command(
    "openapi",
    callback=_openapi,
    help="Writes the OpenAPI 3.1 document of a server's HTTP port, as it is at /openapi.json.",
    params=[
        *setting_options(("model_uri", "config", "model_name", "requirements", "payload")),
        output_option(),
    ],
)
