"""The command `mlflow-grpc dockerfile`. Exit codes: 0 written, 1 not written, 2 invalid settings or model."""

from pathlib import Path
from typing import Any

import click

from mlflow_grpc.cli.commands import Command, end_after
from mlflow_grpc.cli.options import setting_options
from mlflow_grpc.config import Configuration
from mlflow_grpc.settings import Settings


def _dockerfile(output: Path, force: bool, **flags: Any) -> None:
    def work(loaded: Settings, _: Configuration) -> int:
        from mlflow_grpc.environments import context

        tag = output.resolve().name.lower()
        context.write(loaded.model_uri, output, name=loaded.model_name, tag=tag, overwrite=force)
        click.echo(
            f"{output} is written. Next: docker build -t {tag} {output} && docker run -p 50051:50051 -p 8080:8080 {tag}"
        )
        return 0

    end_after(work, flags)


command = Command(
    "dockerfile",
    callback=_dockerfile,
    help="Writes the build context of an image that serves a model: a Dockerfile, the model and the server.",
    params=[
        *setting_options(("model_uri", "model_name")),
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
