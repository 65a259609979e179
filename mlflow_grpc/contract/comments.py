"""Comments of the .proto file: their texts for fields, and their locations in a descriptor.

Rule of this module: comments are for people, and no code reads them.
"""

import json
from collections.abc import Iterator, Mapping

from _mlflow_grpc_protocol import proto_text
from _mlflow_grpc_protocol.shapes import ScalarShape, Shape, TensorShape, TimestampShape
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from mlflow_grpc.contract.types import Field

WIDTH = 100
"""Maximum length of a line with a comment, in characters."""

Comments = Mapping[tuple[str, str], str]
"""Comments by the name of a message, enum or service, and the name of a field, value or RPC in it. The second name is
empty for the comment of a whole message, enum or service; both are empty for that of the file.
"""


def field_comment(field: Field, name: str, shape: Shape) -> str:
    """Makes the comment of a field.

    Args:
        field: The column, record field or param.
        name: Name of the field in the message.
        shape: Shape of the field's values.

    """
    sentences = [field.description]
    if field.name and field.name != name:
        sentences.append(f"In the model: {json.dumps(field.name, ensure_ascii=False)}.")
    if field.needs_value:
        sentences.append("Required.")
    if not field.required and field.default is not None:
        sentences.append(f"Default: {json.dumps(field.default, ensure_ascii=False)}.")
    elif field.has_default:
        sentences.append("Has a default, which the model generates.")
    if isinstance(shape, TimestampShape):
        sentences.append("A point in time, in UTC.")
    elif isinstance(shape, ScalarShape) and shape.format:
        sentences.append(f"Format: {shape.format}.")
    elif isinstance(shape, TensorShape):
        sentences.append(f"{shape.dtype}, of the shape {list(shape.shape)}; -1 is any size.")
    return " ".join(filter(None, sentences))


def described(file: FileDescriptorProto, comments: Comments) -> FileDescriptorProto:
    """Copies a file and puts comments into its source_code_info, in lines of WIDTH, as protoc reads them from a text.

    The copy takes about as long as making the file: half a second for a model of 4,000 columns.
    """
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    indents = {path: span[1] for path, span in proto_text.spans_of(file).items()}
    leading = {}
    for path, names in _declarations(file):
        if text := comments.get(names):
            leading[path] = "".join(_wrap(text, indents[path]))
            copy.source_code_info.location.add(path=path, leading_comments=leading[path])
    spans = proto_text.spans_of(copy)
    copy.ClearField("source_code_info")
    for path, span in spans.items():
        copy.source_code_info.location.add(path=path, span=span, leading_comments=leading.get(path))
    return copy


def _declarations(file: FileDescriptorProto) -> Iterator[tuple[proto_text.Path, tuple[str, str]]]:
    """Returns the declarations of a file that can have a comment: paths, and keys of `Comments`."""
    yield (proto_text.SYNTAX,), ("", "")
    declarations = [
        *(((proto_text.SERVICE, i), s.name, [m.name for m in s.method]) for i, s in enumerate(file.service)),
        *(((proto_text.MESSAGE, i), m.name, [f.name for f in m.field]) for i, m in enumerate(file.message_type)),
        *(((proto_text.ENUM, i), e.name, [v.name for v in e.value]) for i, e in enumerate(file.enum_type)),
    ]
    for path, name, members in declarations:
        yield path, (name, "")
        for index, member in enumerate(members):
            yield (*path, proto_text.MEMBER, index), (name, member)


def _wrap(text: str, indent: int) -> Iterator[str]:
    """Breaks a comment into lines of at most WIDTH characters."""
    width = WIDTH - indent - len("//")
    for paragraph in text.splitlines():
        line = ""
        for word in map(proto_text.visible, paragraph.split()):
            if line and len(line) + 1 + len(word) > width:
                yield f"{line}\n"
                line = ""
            line = f"{line} {word}"
        yield f"{line}\n"
