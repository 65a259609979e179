"""Requests of one row that differ from an earlier one in nothing but their numbers and their id.

Clients send such requests again and again. Their bytes are compared with those of the earlier request, and only the
numbers are read, which takes a fraction of the time of parsing all tensors.

Rule of this module: a request that is not exactly of this form is parsed by protobuf. Nothing is guessed: the compared
bytes are whole fields, and protobuf parses what stands before them.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from mlflow_grpc.payload.tensors.datatypes import DATATYPES

MAX_FORMS = 8
"""Maximum number of forms that are remembered. A request is compared with all of them, the latest first."""

MAX_FRONT_BYTES = 4_096
"""Maximum size of what is remembered of the fields before those of a form."""

_RAW_TAG = 7 << 3 | 2
"""Tag of `raw_input_contents` on the wire: its field number, and the wire type of bytes."""


class RowForm:
    """What requests of one row have in common."""

    def __init__(self, message: Any, names: list[str], datatype: str) -> None:
        """Takes the form of a request.

        Args:
            message: The ModelInferRequest, whose tensors have one element of raw contents, and no parameters.
            names: Names of its inputs.
            datatype: Datatype of all its inputs.

        """
        shared = type(message)(inputs=message.inputs, outputs=message.outputs)
        self.names, self.datatype = names, datatype
        self.inputs, self.outputs = shared.inputs, shared.outputs
        self._fields: bytes = shared.SerializeToString()
        self._dtype = DATATYPES[datatype].dtype
        step, count = self._dtype.itemsize + 2, len(names)
        self._element = np.dtype({"names": ["value"], "formats": [self._dtype], "offsets": [2], "itemsize": step})
        self._step, self._tail = step, step * count
        self._tags, self._lengths = bytes([_RAW_TAG]) * count, bytes([self._dtype.itemsize]) * count
        self.size = len(self._fields) + self._tail
        """Size of these fields and the numbers, in bytes."""

    def matches(self, data: bytes) -> bool:
        """Returns True if the bytes of a request end with these fields and a number for each of the inputs."""
        tail = len(data) - self._tail
        return (
            tail >= 0
            and data.endswith(self._fields, 0, tail)
            and data[tail :: self._step] == self._tags
            and data[tail + 1 :: self._step] == self._lengths
        )

    def values(self, data: bytes) -> npt.NDArray[Any]:
        """Returns the numbers of a request that matches, in the order of its inputs."""
        return np.frombuffer(data, self._element, offset=len(data) - self._tail)["value"]

    def is_of(self, message: Any, names: list[str]) -> bool:
        """Returns True if a parsed request has this form."""
        return self.names == names and self.inputs == message.inputs and self.outputs == message.outputs


class RepeatedRequest:
    """A request of a known form, with the attributes of ModelInferRequest that are read for a row."""

    __slots__ = ("_data", "_front", "_request_class", "form")

    def __init__(self, data: bytes, front: Any, form: RowForm, request_class: Any) -> None:
        self._data, self._front, self.form, self._request_class = data, front, form, request_class

    @property
    def model_name(self) -> str:
        """Name of the model."""
        name: str = self._front.model_name
        return name

    @property
    def model_version(self) -> str:
        """Version of the model."""
        version: str = self._front.model_version
        return version

    @property
    def id(self) -> str:
        """Id of the request."""
        text: str = self._front.id
        return text

    @property
    def parameters(self) -> Any:
        """Parameters of the request."""
        return self._front.parameters

    @property
    def outputs(self) -> Any:
        """Requested outputs."""
        return self.form.outputs

    @property
    def inputs(self) -> Any:
        """Inputs, whose data is in `values`."""
        return self.form.inputs

    def values(self) -> npt.NDArray[Any]:
        """Returns the number of each input, in the order of the inputs."""
        return self.form.values(self._data)

    def parsed(self) -> Any:
        """Returns the ModelInferRequest."""
        return self._request_class.FromString(self._data)

    def ByteSize(self) -> int:  # noqa: N802 - the name of protobuf's method
        """Returns the size in bytes."""
        return len(self._data)

    def SerializeToString(self, *, deterministic: bool) -> bytes:  # noqa: N802 - the name of protobuf's method
        """Returns the bytes that arrived."""
        return self._data


class RequestReader:
    """Parser of requests, which remembers the forms of rows. It takes the place of the class of the message."""

    def __init__(self, request_class: Any) -> None:
        self._request_class = request_class
        self._forms: list[RowForm] = []
        self._front_bytes: bytes | None = None
        self._front: Any = None  # The message for these bytes, which most requests have in common.

    @property
    def DESCRIPTOR(self) -> Any:  # noqa: N802 - the name of protobuf's attribute
        """Descriptor of the message."""
        return self._request_class.DESCRIPTOR

    def FromString(self, data: bytes) -> Any:  # noqa: N802 - the name of protobuf's method
        """Returns a RepeatedRequest if its form is known, and a ModelInferRequest otherwise; raises DecodeError."""
        for form in self._forms:
            if form.matches(data):
                front = self._read_front(data[: len(data) - form.size])
                if front is not None:
                    return RepeatedRequest(data, front, form, self._request_class)
                break
        return self._request_class.FromString(data)

    def _read_front(self, data: bytes) -> Any:
        """Returns the fields before those of the form as a message; None if there is more than there may be."""
        if data == self._front_bytes:
            return self._front
        try:
            front = self._request_class.FromString(data)
        except DecodeError:
            return None
        if front.inputs or front.outputs or front.raw_input_contents:
            return None
        if len(data) <= MAX_FRONT_BYTES:
            self._front_bytes, self._front = data, front
        return front

    def remember(self, message: Any, names: list[str], datatype: str) -> RowForm:
        """Remembers the form of a request, and returns it; see `RowForm`."""
        form = next((known for known in self._forms if known.is_of(message, names)), None)
        if form is None:
            form = RowForm(message, names, datatype)
            self._forms.insert(0, form)
            del self._forms[MAX_FORMS:]
        return form


def parsed(message: Any) -> Any:
    """Returns a ModelInferRequest for one in either form."""
    return message.parsed() if type(message) is RepeatedRequest else message
