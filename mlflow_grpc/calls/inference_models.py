"""The models of a server as the Open Inference Protocol describes them, over gRPC and over HTTP.

Rule of this module: it answers what calls no model, as messages of the protocol, and knows no port.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from mlflow_grpc import __version__, protos
from mlflow_grpc.calls import tensor_descriptions
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.errors import Unsupported
from mlflow_grpc.payload.tensors.repeated import RequestReader

if TYPE_CHECKING:  # Imports MLflow's types; health checks are answered before that.
    from mlflow_grpc.payload.tensors.codec import TensorCodec

EXTENSIONS = ("binary_tensor_data", "parameters", "model_configuration")

STATISTICS = "statistics"
"""The extension of servers that have metrics."""

STATES = {State.LOADING: "LOADING", State.READY: "READY", State.FAILED: "UNAVAILABLE"}

REQUEST = protos.message_named("inference.ModelInferRequest")
RESPONSE = protos.message_named("inference.ModelInferResponse")
_Metadata = protos.message_named("inference.ServerMetadataResponse")
_Statistics = protos.message_named("inference.ModelStatisticsResponse")
_Index = protos.message_named("inference.RepositoryIndexResponse")


class InferenceModels:
    """Descriptions, health and tensor codecs of the models of a catalog."""

    def __init__(self, catalog: Catalog, is_serving: Callable[[], bool], serves: Callable[[Entry], bool]) -> None:
        """Takes the models.

        Args:
            catalog: The models.
            is_serving: Returns the server's health.
            serves: Returns the health of a model.

        """
        self.catalog = catalog
        self.is_serving = is_serving
        self._serves = serves
        self.reader = RequestReader(REQUEST)
        """Parses the requests of gRPC."""
        self._codecs: dict[int, TensorCodec] = {}  # By the identity of an entry, until the catalog changes.
        self._revision = catalog.revision

    def is_ready(self, entry: Entry) -> bool:
        """Returns True while a model is loaded and its health is SERVING."""
        return entry.state is State.READY and self._serves(entry)

    def server_metadata(self) -> Message:
        """Returns the ServerMetadataResponse: name, version and extensions."""
        has_metrics = any(entry.engine.metrics is not None for entry in self.catalog.entries)
        extensions = (*EXTENSIONS, STATISTICS) if has_metrics else EXTENSIONS
        metadata: Message = _Metadata(name="mlflow-grpc", version=__version__, extensions=extensions)
        return metadata

    def metadata(self, entry: Entry) -> Message:
        """Returns the ModelMetadataResponse of a model; raises NotReady while it is being loaded."""
        versions = [twin.version for twin in self.catalog.entries if twin.name == entry.name and twin.version]
        return tensor_descriptions.metadata_of(entry, entry.engine.model, versions)

    def config(self, entry: Entry) -> Message:
        """Returns the ModelConfigResponse of a model; raises NotReady while it is being loaded."""
        return tensor_descriptions.config_of(entry, entry.engine.model)

    def statistics(self, entries: list[Entry]) -> Message:
        """Returns the ModelStatisticsResponse of some models.

        Raises:
            Unsupported: The server has no metrics.

        """
        statistics = []
        for entry in entries:
            if entry.engine.metrics is None:
                raise Unsupported(
                    "This server counts nothing, because it has no HTTP port for metrics. Start it with --http-port."
                )
            statistics.append(tensor_descriptions.statistics_of(entry, entry.engine.metrics.totals()))
        response: Message = _Statistics(model_stats=statistics)
        return response

    def index(self, entries: list[Entry], *, only_ready: bool) -> Message:
        """Returns the RepositoryIndexResponse of some models, or of those of them that are ready."""
        index = _Index()
        for entry in entries:
            if entry.state is State.READY or not only_ready:
                reason = entry.error.encode(errors="replace").decode()
                index.models.add(name=entry.name, version=entry.version, state=STATES[entry.state], reason=reason)
        response: Message = index
        return response

    def codec(self, entry: Entry) -> "TensorCodec":
        """Returns the codec of a model, which is made at its first request; raises NotReady before that."""
        if self.catalog.revision != self._revision:  # The codecs of replaced versions would stay in memory.
            self._codecs.clear()
            self._revision = self.catalog.revision
        if (codec := self._codecs.get(id(entry))) is not None:
            return codec
        from mlflow_grpc.payload.tensors.codec import TensorCodec  # Late, because few servers get such requests.

        model = entry.engine.model
        contract = model.model.info.contract
        names = {"name": entry.callers_name, "version": entry.version}
        codec = TensorCodec(model.codec, contract, RESPONSE, **names, reader=self.reader)
        self._codecs[id(entry)] = codec
        return codec
