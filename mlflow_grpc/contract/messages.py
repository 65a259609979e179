"""The file of protobuf messages for all models of a server, made from their contracts.

Rule of this module: it puts together the messages of each model; `mlflow_grpc.contract.message_maker` decides how a
type becomes a message.
"""

import hashlib
from collections.abc import Iterable

from _mlflow_grpc_protocol.field_numbers import ERROR_NUMBER, PARAMS_NUMBER
from _mlflow_grpc_protocol.shapes import FieldShape, MessageShape
from _mlflow_grpc_protocol.typed_terms import RpcKind
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from mlflow_grpc.contract.batches import make_batch
from mlflow_grpc.contract.fields import MAX_FIELDS, PACKAGE, add_field
from mlflow_grpc.contract.lockfile.format import PARAMS_KEY, LockedModel
from mlflow_grpc.contract.lockfile.numbering import ReservedNames
from mlflow_grpc.contract.message_maker import MessageMaker
from mlflow_grpc.contract.names import FileScope, Scope
from mlflow_grpc.contract.shapes import ModelMessages
from mlflow_grpc.contract.types import ANY_CHUNK, Contract, Record

FILE = "model_service.proto"
SERVICE = "ModelgRPCService"

HEADER = "The typed RPCs of a server's models, made by `mlflow-grpc proto` from signatures and schemas."

SHARED_MESSAGES = ("empty", "model", "model_collection", "error", "field_violation")
"""Names of the messages that belong to no model (`mlflow_grpc.contract.service`)."""


class FileMaker:
    """Makes the messages of models, one model after another, in the same file."""

    def __init__(self, locks: Iterable[LockedModel] = ()) -> None:
        """Starts a file without messages.

        Args:
            locks: Locks of models, hosted here or not. Messages of other models do not get their names.

        """
        self.file = FileDescriptorProto(name=FILE, package=PACKAGE, syntax="proto3")
        self.comments: dict[tuple[str, str], str] = {("", ""): HEADER}
        """Comments of messages and fields; see `mlflow_grpc.contract.comments`."""
        self.locks: dict[str, LockedModel] = {}
        """The next lock of each model, by its lock key."""
        self._scope = FileScope(*SHARED_MESSAGES, SERVICE)
        self._reserved: dict[str, ReservedNames] = {}
        for locked in locks:
            if locked.name and locked.name not in self._reserved:
                self._reserved[locked.name] = ReservedNames(locked.name, self._scope, locked)
        self._bases = Scope(*SHARED_MESSAGES, *self._reserved)
        self._used_bases: set[str] = set()

    def add(
        self,
        lock_key: str,
        contract: Contract,
        locked: LockedModel | None = None,
        *,
        streams: bool = False,
        refused: frozenset[RpcKind] = frozenset(),
    ) -> ModelMessages:
        """Makes the messages of a model whose inputs are known.

        Args:
            lock_key: The model's key in lock files, which its messages begin with.
            contract: Inputs and outputs of the model.
            locked: Names and numbers that earlier versions of the model have used.
            streams: True if the model answers in chunks.
            refused: RPCs that the model does not get.

        Raises:
            StartError: The lock has no number left for a new field, or is inconsistent.

        """
        reserved = self._names_of(lock_key, locked)
        first_message, first_enum = len(self.file.message_type), len(self.file.enum_type)
        maker = MessageMaker(self.file, self._scope, reserved, contract, self.comments)
        answers = maker.for_answers()
        inputs = maker.root("input", contract.inputs, reserved.locked.input, "value")
        params = self._add_params(maker, inputs, contract.params) if contract.params is not None else None
        outputs = answers.root("output", contract.outputs, reserved.locked.output, "prediction")
        chunk_type = _chunk_type(contract, reserved.locked) if streams else None
        chunk = None
        if chunk_type is not None:
            chunk = answers.root("chunk", chunk_type, reserved.locked.chunk, "prediction")
        lock = maker.numbering.close(self.file, inputs.name, outputs.name, chunk.name if chunk else None)
        error_field = self._add_error(maker, outputs, reserved.base)
        batch = make_batch(answers, contract, inputs, outputs, params)
        descriptors = [*self.file.message_type[first_message:], *self.file.enum_type[first_enum:]]
        data = b"".join(descriptor.SerializeToString(deterministic=True) for descriptor in descriptors)
        model_messages = ModelMessages(
            base=reserved.base,
            input=inputs,
            output=outputs,
            params=params.shape if params is not None and isinstance(params.shape, MessageShape) else None,
            params_field=params.name if params is not None else "",
            error_field=error_field,
            batch=batch,
            streams=streams,
            chunk=chunk,
            refused=refused,
            model_names=maker.model_names,
            fingerprint=hashlib.sha256(data).hexdigest()[:16],
        )
        self.locks[lock_key] = lock.model_copy(update={"rpcs": tuple(map(str, model_messages.rpcs))})
        return model_messages

    def _names_of(self, lock_key: str, locked: LockedModel | None) -> ReservedNames:
        """The names that the lock reserves for a model; new ones if there is no lock, or its names are in use."""
        reserved = self._reserved.get(locked.name) if locked is not None else None
        if reserved is None or reserved.locked != locked or reserved.base in self._used_bases:
            reserved = ReservedNames(self._bases.name(lock_key, "model"), self._scope, locked or LockedModel())
        self._used_bases.add(reserved.base)
        return reserved

    def _add_params(self, maker: MessageMaker, inputs: MessageShape, params: Record) -> FieldShape:
        numbers = maker.numbering.fields_of(inputs.name)
        name = numbers.name(PARAMS_KEY, "params", "params")
        shape = maker.message(params, "params", numbers.role(PARAMS_KEY))
        field = FieldShape(name, "", shape, number=PARAMS_NUMBER)
        self.comments[inputs.name, name] = "Params of the model. A param that is left out has its default."
        return maker.add(maker.descriptor(inputs.name), PARAMS_KEY, field)

    def _add_error(self, maker: MessageMaker, outputs: MessageShape, base: str) -> str:
        name = maker.numbering.fields_of(outputs.name).error_field()
        add_field(maker.descriptor(outputs.name), name, ERROR_NUMBER, MessageShape("error"))
        self.comments[outputs.name, name] = f"Set in answers of {base}_predict_many only, for a record that failed."
        return name


def _chunk_type(contract: Contract, locked: LockedModel) -> Record | None:
    """The type of a chunk; None if a chunk is an output.

    For a model that does not declare its chunks, clients keep what the lock has: an output, or any JSON.
    """
    if contract.chunks is None:
        return ANY_CHUNK if locked.chunk else None
    was_output = RpcKind.STREAM in locked.rpcs and not locked.chunk
    return None if contract.chunks is ANY_CHUNK and was_output else contract.chunks


def obstacle(contract: Contract) -> str:
    """The reason why no messages can be made for a model; empty if they can."""
    if contract.obstacle:
        return contract.obstacle
    for root in (contract.inputs, contract.outputs, contract.params):
        fields = root.fields if isinstance(root, Record) else []
        if len(fields) > MAX_FIELDS:
            return f"it has more than {MAX_FIELDS} columns"
        names = [field.name for field in fields if field.name]
        if len(set(names)) < len(names):
            return "two of its columns have the same name"
    return ""
