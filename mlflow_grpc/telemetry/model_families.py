"""The families of the metrics of models: their names, kinds and descriptions.

Rule of this module: it declares. `mlflow_grpc.telemetry.models` counts.
"""

from mlflow_grpc.telemetry.exposition import Family, Kind


class ModelFamilies:
    """The metric families of models."""

    def __init__(self) -> None:
        self.requests = Family(
            "mlflow_grpc_requests",
            Kind.COUNTER,
            "Requests to a model that have ended, over gRPC and HTTP, by gRPC status; each request of a stream counts, "
            "refused ones do not.",
        )
        self.refused = Family("mlflow_grpc_refused", Kind.COUNTER, "Refused requests, by reason.")
        self.in_flight = Family(
            "mlflow_grpc_requests_in_flight", Kind.GAUGE, "Requests in the server, waiting or running."
        )
        self.waiting = Family(
            "mlflow_grpc_requests_waiting", Kind.GAUGE, "Requests that wait for room, for their batch or for a thread."
        )
        self.abandoned = Family(
            "mlflow_grpc_abandoned_calls",
            Kind.GAUGE,
            "Calls of the model that still run, although their callers have cancelled or timed out.",
        )
        self.threads = Family(
            "mlflow_grpc_model_threads",
            Kind.GAUGE,
            "Maximum number of calls of the model that run at a time.",
        )
        self.busy_threads = Family("mlflow_grpc_model_threads_busy", Kind.GAUGE, "Calls of the model that run now.")
        self.waiting_s = Family(
            "mlflow_grpc_waiting_seconds", Kind.HISTOGRAM, "Time that a request waited for its turn, in seconds."
        )
        self.decoding_s = Family(
            "mlflow_grpc_decoding_seconds", Kind.HISTOGRAM, "Time to decode the payload of a request, in seconds."
        )
        self.predicting_s = Family(
            "mlflow_grpc_predicting_seconds",
            Kind.HISTOGRAM,
            "Time in the model for a request, in seconds; each request of a batch counts the full time.",
        )
        self.encoding_s = Family(
            "mlflow_grpc_encoding_seconds", Kind.HISTOGRAM, "Time to encode the answer of a request, in seconds."
        )
        self.batch_calls = Family(
            "mlflow_grpc_batch_calls", Kind.HISTOGRAM, "Requests that were predicted together, per batch."
        )
        self.batch_rows = Family(
            "mlflow_grpc_batch_rows", Kind.HISTOGRAM, "Rows that were predicted together, per batch."
        )
        self.loads = Family("mlflow_grpc_model_loads", Kind.COUNTER, "Loads of a model, by result.")
        self.load_s = Family(
            "mlflow_grpc_model_load_seconds",
            Kind.GAUGE,
            "Time to fetch and load the model, in seconds; the longest of all workers.",
        )
        self.swaps = Family(
            "mlflow_grpc_model_swaps", Kind.COUNTER, "Attempts to serve another version of a tracked model, by result."
        )
        self.polls = Family(
            "mlflow_grpc_registry_polls", Kind.COUNTER, "Queries for the version of a tracked model, by result."
        )
        self.behind = Family(
            "mlflow_grpc_model_behind_registry",
            Kind.GAUGE,
            "Number of workers that serve another version of a tracked model than its registry names.",
        )
        self.shadow_calls = Family(
            "mlflow_grpc_shadow_calls",
            Kind.COUNTER,
            "Calls of a champion that a challenger was to run behind, by what became of them.",
        )
        self.shadow_difference = Family(
            "mlflow_grpc_shadow_difference",
            Kind.HISTOGRAM,
            "Largest absolute difference of two numbers in the predictions of champion and challenger, per call.",
        )
        self.cache_requests = Family(
            "mlflow_grpc_cache_requests", Kind.COUNTER, "Requests that were looked up in a cache of answers, by result."
        )
        self.cache_rows = Family("mlflow_grpc_cache_rows", Kind.GAUGE, "Predicted rows in a cache of answers.")
        self.ready = Family("mlflow_grpc_model_ready", Kind.GAUGE, "Number of workers in which the model is ready.")
        self.info = Family("mlflow_grpc_model", Kind.INFO, "Version and source of a model.")

    @property
    def all(self) -> tuple[Family, ...]:
        """Returns the families in the order of the output."""
        return tuple(vars(self).values())
