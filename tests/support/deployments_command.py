"""The command `mlflow deployments` in a copy of the fork server."""

from mlflow.deployments import cli, interface


def main() -> None:
    """Runs the command with the targets of the copy's PYTHONPATH; MLflow lists targets when it is imported."""
    interface.plugin_store.register_entrypoints()
    cli.commands()
