"""The datatypes of tensors, with their numpy types and their fields in a message.

Source: https://github.com/kserve/open-inference-protocol, "Tensor Data Types"; BF16 is Triton's.

Rule of this module: it is a table without behavior.
"""

from dataclasses import dataclass

import numpy as np

BYTES, BF16 = "BYTES", "BF16"


@dataclass(frozen=True)
class Datatype:
    """A datatype of the protocol."""

    dtype: np.dtype[np.generic]
    """The numpy type of the elements as bytes on the wire. Those of BF16 are 16 bits, those of BYTES are objects."""
    contents: str
    """Field of `InferTensorContents` for the elements; empty if they can only be raw."""


DATATYPES = {
    "BOOL": Datatype(np.dtype("bool"), "bool_contents"),
    "INT8": Datatype(np.dtype("int8"), "int_contents"),
    "INT16": Datatype(np.dtype("<i2"), "int_contents"),
    "INT32": Datatype(np.dtype("<i4"), "int_contents"),
    "INT64": Datatype(np.dtype("<i8"), "int64_contents"),
    "UINT8": Datatype(np.dtype("uint8"), "uint_contents"),
    "UINT16": Datatype(np.dtype("<u2"), "uint_contents"),
    "UINT32": Datatype(np.dtype("<u4"), "uint_contents"),
    "UINT64": Datatype(np.dtype("<u8"), "uint64_contents"),
    "FP16": Datatype(np.dtype("<f2"), ""),
    "FP32": Datatype(np.dtype("<f4"), "fp32_contents"),
    "FP64": Datatype(np.dtype("<f8"), "fp64_contents"),
    BF16: Datatype(np.dtype("<u2"), ""),
    BYTES: Datatype(np.dtype(object), "bytes_contents"),
}
"""All datatypes by their names in messages."""

OF_DTYPE = {datatype.dtype: name for name, datatype in DATATYPES.items() if name not in (BF16, BYTES)}
"""The datatype of arrays, by their numpy type in the byte order of the wire."""
