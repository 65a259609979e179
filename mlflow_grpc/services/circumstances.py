"""What the log line of a call says besides its outcome: who called, in which trace, how many rows, and what took time.

Rule of this module: it is asked only when a line is written. A key whose value is not known is left out.
"""

from typing import TYPE_CHECKING, Any

from mlflow_grpc.services import traceparent

if TYPE_CHECKING:
    from mlflow_grpc.services.calls import Call


def circumstances(call: "Call") -> dict[str, Any]:
    """The fields: `waited_ms`, `model_ms`, `rows`, `peer` (as gRPC writes it, `ipv4:10.0.0.7:4242`) and `trace_id`."""
    usage = call.usage
    fields: dict[str, Any] = {}
    if usage.waited_s is not None:
        fields["waited_ms"] = round(usage.waited_s * 1000, 3)
    if usage.model_s is not None:
        fields["model_ms"] = round(usage.model_s * 1000, 3)
    if usage.rows is not None:
        fields["rows"] = usage.rows
    fields["peer"] = call.context.peer()
    header = call.metadata(traceparent.KEY)
    if header is not None and (trace_id := traceparent.trace_id(header)) is not None:
        fields["trace_id"] = trace_id
    return fields
