"""What the .proto text says of a field beside its type, and where a descriptor holds that.

Rule of this module: words for people. Nothing is read out of them again.
"""

import json
from collections.abc import Iterator, Mapping

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from mlflow_grpc.contract import proto_text
from mlflow_grpc.contract.shapes import Array, Plain, Shape, Timestamp
from mlflow_grpc.contract.types import Field

WIDTH = 100

Comments = Mapping[tuple[str, str], str]
"""What is said of a message and its fields, an enum and its values, the service and its RPCs: by the names of the one
and the other; the other is empty for what is said of the whole, both for what is said of the file.
"""


def words_of(each: Field, name: str, shape: Shape) -> str:
    """What a comment says of a field."""
    said = [each.description]
    if each.name != name:
        said.append(f"In the model: {json.dumps(each.name, ensure_ascii=False)}." if each.name else "")
    said.append("Required." if each.needs_value else "")
    if not each.required and each.default is not None:
        said.append(f"Default: {json.dumps(each.default, ensure_ascii=False)}.")
    elif each.has_default:
        said.append("Has a default, which the model makes.")
    if isinstance(shape, Timestamp):
        said.append("A point in time, in UTC.")
    elif isinstance(shape, Plain) and shape.format:
        said.append(f"Format: {shape.format}.")
    elif isinstance(shape, Array):
        said.append(f"{shape.dtype}, of the shape {list(shape.shape)}; -1 is any size.")
    return " ".join(filter(None, said))


def described(file: FileDescriptorProto, comments: Comments) -> FileDescriptorProto:
    """A copy of a file with comments in its source_code_info, in lines of WIDTH, as protoc finds them in its text.

    About as much work as to make the file: half a second for a model of 4,000 columns.
    """
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    indents = {path: span[1] for path, span in proto_text.spans_of(file).items()}
    said = {}
    for path, of in _declarations(file):
        if words := comments.get(of):
            said[path] = "".join(_lines(words, indents[path]))
            copy.source_code_info.location.add(path=path, leading_comments=said[path])
    spans = proto_text.spans_of(copy)
    copy.ClearField("source_code_info")
    for path, span in spans.items():
        copy.source_code_info.location.add(path=path, span=span, leading_comments=said.get(path))
    return copy


def _declarations(file: FileDescriptorProto) -> Iterator[tuple[proto_text.Path, tuple[str, str]]]:
    """What comments are of: paths, and the names of the one and the other."""
    yield (proto_text.SYNTAX,), ("", "")
    for kind, parts in (
        (proto_text.SERVICE, [(part.name, [each.name for each in part.method]) for part in file.service]),
        (proto_text.MESSAGE, [(part.name, [each.name for each in part.field]) for part in file.message_type]),
        (proto_text.ENUM, [(part.name, [each.name for each in part.value]) for part in file.enum_type]),
    ):
        for place, (name, members) in enumerate(parts):
            yield (kind, place), (name, "")
            for number, member in enumerate(members):
                yield (kind, place, proto_text.MEMBER, number), (name, member)


def _lines(words: str, indent: int) -> Iterator[str]:
    """A comment in lines that are not too long."""
    most = WIDTH - indent - len("//")
    for paragraph in words.splitlines():
        line = ""
        for word in map(proto_text.visible, paragraph.split()):
            if line and len(line) + 1 + len(word) > most:
                yield f"{line}\n"
                line = ""
            line = f"{line} {word}"
        yield f"{line}\n"
