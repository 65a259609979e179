"""The settings of the HTTP port, which `mlflow_grpc.settings.Settings` inherits.

Rule of this module: it only declares settings. None of them has an effect without `http_port`.
"""

import re
from typing import Annotated

from pydantic import BaseModel, field_validator

from mlflow_grpc.addresses import MAX_PORT, host_alone
from mlflow_grpc.declarations import Flag, setting


class HttpSettings(BaseModel):
    """Settings of the HTTP port."""

    http_port: Annotated[int | None, Flag(("--http-port",), metavar="PORT")] = setting(
        None,
        "MLFLOW_GRPC_HTTP_PORT",
        text="The port for HTTP: MLflow's REST contract (/invocations), health and more. 0 selects a free port, shown "
        "in the ready line. There is no HTTP port if it is not set.",
        ge=0,
        le=MAX_PORT,
    )
    http_host: Annotated[str | None, Flag(("--http-host",), metavar="HOST")] = setting(
        None, "MLFLOW_GRPC_HTTP_HOST", text="The address that the HTTP port listens on. If not set, the same as --host."
    )
    http_cors_origin: Annotated[str, Flag(("--http-cors-origin",), metavar="ORIGIN")] = setting(
        "",
        "MLFLOW_GRPC_HTTP_CORS_ORIGIN",
        text="The origins of web pages that may call the HTTP port, separated by commas, such as "
        "https://app.example.com. * stands for all. None by default.",
    )
    page: Annotated[bool, Flag(("--page",), off="--no-page")] = setting(
        True, "MLFLOW_GRPC_PAGE", text="Shows a page at / of the HTTP port, where models can be tried in a browser."
    )

    def page_line(self, url: str) -> str:
        """Returns the line that says where the page is; empty if there is no page.

        Args:
            url: Address of the HTTP port; empty if there is none.

        """
        # Not every browser opens an address that stands for all of the machine.
        reachable = re.sub(r"//(0\.0\.0\.0|\[::\])(?=:)", "//localhost", url)
        return f"Open {reachable} in a browser to try the model" if self.page and url else ""

    @field_validator("http_host")
    @classmethod
    def _is_http_host(cls, value: str | None) -> str | None:
        return host_alone(value) if value is not None else None

    @field_validator("http_cors_origin")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for origin in filter(None, map(str.strip, value.split(","))):
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(
                    f"{origin!r} is not an origin; write one like https://app.example.com or http://localhost:3000"
                )
        return value
