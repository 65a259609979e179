"""The rows of the comparison, and the trial of each."""

from collections.abc import Callable

from benchmarks.peers.features import load_trials, operation_trials, protocol_trials
from benchmarks.peers.features.stand import Observation, Stand

ROWS: dict[str, Callable[[Stand], Observation]] = {
    "an MLflow model is served by": protocol_trials.serving,
    "MLflow's JSON payloads": protocol_trials.mlflow_json,
    "Open Inference Protocol, as tritonclient speaks it": protocol_trials.open_inference,
    "gRPC streams": protocol_trials.streams,
    "Arrow Flight": protocol_trials.flight,
    "`grpc.health.v1`, reflection": protocol_trials.health_and_reflection,
    "TLS for gRPC": operation_trials.tls,
    "callers' tokens": operation_trials.tokens,
    "waiting calls whose callers have gone": load_trials.abandoned_calls,
    "single calls in batches": load_trials.batches,
    "200 calls at once to a slow model": load_trials.overload,
    "SIGTERM: a call in flight": operation_trials.shutdown,
    "models per server": operation_trials.two_models,
    "another model while running": operation_trials.loading,
    "Prometheus metrics": operation_trials.metrics,
    "OpenTelemetry traces of calls": operation_trials.traces,
}
