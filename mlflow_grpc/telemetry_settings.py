"""The settings of traces, times and load reports, which `mlflow_grpc.settings.Settings` inherits.

Rule of this module: it declares settings, and compares variables that it is given.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel

from mlflow_grpc.choices import OtlpProtocol
from mlflow_grpc.declarations import Flag, setting

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's variables with the address of a collector, in order of precedence."""

PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
"""OpenTelemetry's variables with the protocol of a collector, in order of precedence."""

OWN_PROTOCOL = "MLFLOW_GRPC_OTLP_PROTOCOL"


class TelemetrySettings(BaseModel):
    """Settings of what callers, load balancers and collectors learn about calls."""

    server_timing: Annotated[bool, Flag(("--server-timing",), off="--no-server-timing")] = setting(
        False,
        "MLFLOW_GRPC_SERVER_TIMING",
        text="Sends the times of a call in server-timing to all callers. Otherwise only callers that send "
        "server-timing: 1 get them.",
    )
    backend_metrics: Annotated[bool, Flag(("--backend-metrics",), off="--no-backend-metrics")] = setting(
        False,
        "MLFLOW_GRPC_BACKEND_METRICS",
        text="Sends the utilization of the server to all gRPC callers, in the trailer endpoint-load-metrics-bin "
        "(ORCA). Load balancers use it to send more calls to the servers that are less busy.",
    )
    otlp_endpoint: Annotated[str | None, Flag(("--otlp-endpoint",), metavar="URL")] = setting(
        None,
        "MLFLOW_GRPC_OTLP_ENDPOINT",
        *ENDPOINTS,
        text="The collector that gets a trace of each call, over OTLP, such as http://localhost:4317. Needs "
        "mlflow-grpc[tracing]. If not set, calls are not traced.",
    )
    otlp_protocol: Annotated[OtlpProtocol, Flag(("--otlp-protocol",))] = setting(
        OtlpProtocol.GRPC,
        OWN_PROTOCOL,
        *PROTOCOLS,
        text="The protocol for sending traces: grpc (usually port 4317) or http/protobuf (usually port 4318).",
    )


def unsupported_protocol(environment: Mapping[str, str]) -> str:
    """Returns OpenTelemetry's variable and its value if this server lacks its protocol (`http/json`); otherwise "".

    The variable may be meant for other programs, so by itself it does not end the start.

    Args:
        environment: Names and values of variables.

    """
    names = (name for name in (OWN_PROTOCOL, *PROTOCOLS) if environment.get(name))
    if (name := next(names, OWN_PROTOCOL)) == OWN_PROTOCOL or environment[name] in list(OtlpProtocol):
        return ""
    return f"{name}={environment[name]}"


def diverted_traces(environment: Mapping[str, str]) -> list[str]:
    """Returns a log line if MLflow sends the traces of its models to a collector instead of its tracking server.

    Source: `mlflow.tracing.utils.otlp.should_use_otlp_exporter`.

    Args:
        environment: Names and values of variables.

    """
    variable = next(filter(environment.get, ENDPOINTS), None)
    is_kept = environment.get("MLFLOW_ENABLE_OTLP_EXPORTER", "true").lower() in ("false", "0")
    has_both = environment.get("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", "false").lower() in ("true", "1")
    if variable is None or is_kept or has_both:
        return []
    return [
        f"{variable} makes MLflow send the traces of models to that collector instead of the tracking server. To have "
        "them in the tracking server, set MLFLOW_ENABLE_OTLP_EXPORTER=false; the collector still gets those of sampled "
        "calls"
    ]
