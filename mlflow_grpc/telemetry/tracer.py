"""The tracer of a server, made from its settings.

Rule of this module: without an endpoint it does not import OpenTelemetry.
"""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow_grpc.choices import OtlpProtocol
from mlflow_grpc.distribution import install_source
from mlflow_grpc.errors import StartError
from mlflow_grpc.naming import without_secrets
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.settings import Settings, spelling
from mlflow_grpc.telemetry.traces import Tracer
from mlflow_grpc.telemetry_settings import OWN_PROTOCOL

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

logger = get_logger(__name__)

TRACES_PATH = "/v1/traces"
"""Path on a collector for OTLP over HTTP, if the endpoint has no path."""


def make_tracer(settings: Settings) -> Tracer | None:
    """Returns the tracer; None if tracing is off. Called in the process that answers the calls.

    Raises:
        StartError: The exporter is not installed, lacks the protocol, or the endpoint is not a URL. If the endpoint is
            in a variable of OpenTelemetry, which may be meant for other programs, this is a warning.

    """
    if settings.otlp_endpoint is None:
        return None
    source = settings.source("otlp_endpoint")
    is_of_sdk = source.startswith("OTEL_")
    if not is_of_sdk and urlsplit(settings.otlp_endpoint).scheme not in ("http", "https"):
        raise StartError(f"{source} {settings.otlp_endpoint!r}: write it as a URL, such as http://localhost:4317")
    try:
        # The SDK reads its own variables, because the path that it derives depends on the variable.
        exporter = _exporter(settings, None if is_of_sdk else settings.otlp_endpoint)
    except (ImportError, ValueError) as error:
        reason = str(error)
        if isinstance(error, ImportError):
            reason = f"the extra tracing is not installed: pip install {install_source('tracing')}"
        if not is_of_sdk:
            raise StartError(f"{source}: {reason}") from None
        # The variable may be meant for other programs.
        logger.warning("%s is set, and calls are not traced: %s", source, reason)
        return None
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import NoOpTracer

    from mlflow_grpc.telemetry.otlp import OtlpTracer

    if isinstance(TracerProvider(shutdown_on_exit=False).get_tracer("mlflow_grpc"), NoOpTracer):
        logger.info("calls are not traced: OTEL_SDK_DISABLED is set")
        return None
    return OtlpTracer(exporter, f"the collector at {without_secrets(settings.otlp_endpoint)} ({source})")


def _exporter(settings: Settings, endpoint: str | None) -> "SpanExporter":
    if settings.unsupported_protocol:
        raise ValueError(
            f"{settings.unsupported_protocol} is not supported: set {OWN_PROTOCOL} or {spelling('otlp_protocol')} to "
            f"{' or '.join(OtlpProtocol)}, and the endpoint to the collector's port for it"
        )
    if settings.otlp_protocol is OtlpProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    if endpoint is not None and urlsplit(endpoint).path in ("", "/"):
        endpoint = endpoint.rstrip("/") + TRACES_PATH
    return HttpExporter(endpoint=endpoint)
