"""docs/languages.md: its commands and its code run, with the output that the page shows."""

import json
import re
import shlex
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from _mlflow_grpc_protocol import metadata
from google.rpc import status_pb2 as google_rpc
from mlflow_grpc_client import Client, InvalidInput

from tests.client.test_interop import GO_LIBRARIES, JARS, run, sources, tool
from tests.client.test_node import example
from tests.support.node import install_buf
from tests.support.node import tool as node_tool
from tests.support.servers import ROOT

PAGE = (ROOT / "docs" / "languages.md").read_text()
PAYLOAD = '{"dataframe_records": [{"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2}]}'
CSV = "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm\n5.1,3.5,1.4,0.2\n"
ANSWER = '{"predictions": ["setosa"]}'
INCOMPLETE = '{"dataframe_records": [{"sepal_length_cm": 5.1}]}'
FAULTS = [
    f"{name}: missing; must be double (required): a number, such as 1.5"
    for name in ("sepal_width_cm", "petal_length_cm", "petal_width_cm")
]
"""The details of the error for this payload, as the programs print them."""

__all__ = ["example", "sources"]

GO_CODEC = """
// Debian's gRPC marshals with a protobuf that does not know messages of its protoc-gen-go.
type codec struct{}

func (codec) Marshal(message interface{}) ([]byte, error) { return proto.Marshal(message.(proto.Message)) }

func (codec) Unmarshal(data []byte, message interface{}) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

func (codec) Name() string { return "proto" }
"""
# Debian's gRPC is older than NewClient and the package of credentials.
GO_FOR_DEBIAN = {
    '\t"google.golang.org/grpc/credentials/insecure"\n': "",
    "grpc.NewClient(": "grpc.Dial(",
    "grpc.WithTransportCredentials(insecure.NewCredentials())": (
        "grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}))"
    ),
}


def blocks(language: str) -> list[str]:
    """Returns the code blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


GO, GO_METADATA, GO_DETAILS = blocks("go")
JAVA, JAVA_METADATA, JAVA_DETAILS = blocks("java")
NODE_PROGRAM, TYPED_NODE, NODE_METADATA = blocks("js")
"""The programs, the lines that send metadata, and those that read the details of an error."""


def commands(program: str) -> list[str]:
    """Returns the commands on the page that use a program."""
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    return [line for line in text.splitlines() if program in line]


def test_payloads(iris: Any) -> None:
    """The payloads for grpcurl and Node are valid for the example server, except for the one that Node is to be refused."""
    written = [json.loads(text) for text in re.findall(r"'(\{\".*\})'", PAGE)]
    texts = [message.get("value") or json.dumps(message) for message in written if "sepal_length_cm" not in message]
    valid, (refused,) = [text for text in texts if '"x"' not in text], [text for text in texts if '"x"' in text]
    with Client(iris.address) as client:
        assert [client.predict_text(text) for text in valid] == [ANSWER] * 3
        with pytest.raises(InvalidInput, match=r"sepal_length_cm: .* is a string; must be double"):
            client.predict_text(refused)


def test_node_code() -> None:
    """The Node code is an excerpt of the example, which other tests run."""
    example = (ROOT / "client" / "examples" / "node" / "typed.mjs").read_text()
    assert textwrap.indent(TYPED_NODE, "  ") in example


@pytest.mark.slow
def test_the_node_program(example: Path, iris: Any, tmp_path: Path) -> None:
    """The program of the page runs in a folder with mlflow.proto, and prints what its comment says."""
    assert NODE_PROGRAM.count("localhost:50051") == 1
    (tmp_path / "call.mjs").write_text(NODE_PROGRAM.replace("localhost:50051", iris.address))
    shutil.copy(ROOT / "mlflow.proto", tmp_path)
    (tmp_path / "node_modules").symlink_to(example / "node_modules")
    assert run(node_tool("node"), "call.mjs", cwd=tmp_path) == f"{ANSWER}\n"
    assert f"console.log(answer.value); // {ANSWER}\n" in NODE_PROGRAM
    (install,) = commands("npm install")
    locked = json.loads((example / "package.json").read_text())["dependencies"]
    assert install.split()[2:] == list(locked)


NODE = """
import {{ createRequire }} from "node:module";
const require = createRequire("{example}/");
const grpc = require("@grpc/grpc-js");
const {{ MLflow }} = grpc.loadPackageDefinition(require("@grpc/proto-loader").loadSync("{proto}"));
const client = new MLflow("{address}", grpc.credentials.createInsecure());
const [payload, deadline] = ["{{}}", Date.now() + 60_000];
const callback = (error) => {{
  console.log(grpc.status[error.code], ...error.metadata.get("x-request-id"));
  client.close();
}};
"""


@pytest.mark.slow
@pytest.mark.parametrize(("model", "status"), [("iris", "INVALID_ARGUMENT"), ("nobody", "NOT_FOUND")])
def test_metadata_in_node(example: Path, iris: Any, tmp_path: Path, model: str, status: str) -> None:
    """The lines send the name of the model, and the request id that comes back."""
    assert NODE_METADATA.count('"iris"') == 1
    start = NODE.format(example=example, proto=ROOT / "mlflow.proto", address=iris.address)
    (tmp_path / "call.mjs").write_text(start + NODE_METADATA.replace('"iris"', f'"{model}"'))
    assert run(node_tool("node"), "call.mjs", cwd=tmp_path) == f"{status} order-17\n"


def test_the_table_of_metadata() -> None:
    """The table has each key that a caller can send."""
    keys = {metadata.MODEL_KEY, metadata.CONTENT_TYPE_KEY, metadata.CONTRACT_KEY, metadata.REQUEST_ID_KEY}
    keys |= {metadata.AUTHORIZATION_KEY, metadata.SERVER_TIMING_KEY}
    table = PAGE.partition("## Metadata that you can send")[2].partition("\n\nThe trailers")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == keys


@pytest.mark.interop
def test_grpcurl(iris: Any, tmp_path: Path) -> None:
    """Each command of grpcurl succeeds, and those that predict print the answer of the model."""
    tool("grpcurl")
    tool("jq")
    shutil.copy(ROOT / "mlflow.proto", tmp_path)
    for line in commands("> payload"):
        run("/bin/bash", "-euo", "pipefail", "-c", line, cwd=tmp_path)
    assert json.loads((tmp_path / "payload.json").read_text()) == json.loads(PAYLOAD)
    assert (tmp_path / "payload.csv").read_text() == CSV
    lines = commands("grpcurl")
    assert len(lines) == 7
    for line in lines:
        printed = run(
            "/bin/bash", "-euo", "pipefail", "-c", line.replace("localhost:50051", iris.address), cwd=tmp_path
        )
        answer = json.loads(printed) if printed.startswith("{") else {}
        if "MLflow/predict" in line:
            assert json.loads(answer.get("value") or printed) == json.loads(ANSWER), line
        else:
            assert printed.strip(), line


@pytest.mark.slow
@pytest.mark.deep
def test_buf_curl(iris: Any, tmp_path: Path) -> None:
    """`buf curl` lists the methods and makes the typed call of the page."""
    buf = install_buf(tmp_path)
    lines = [shlex.split(line.replace("localhost:50051", iris.address)) for line in commands("buf curl")]
    listed, called = (run(buf, *line[1:], cwd=tmp_path) for line in lines)
    assert {"MLflow/predict", "model_grpc_service.ModelgRPCService/iris_predict"} <= set(listed.split())
    assert json.loads(called) == {"prediction": "setosa"}


@pytest.mark.interop
@pytest.mark.timeout(900)
def test_go(sources: Path, iris: Any, tmp_path: Path) -> None:
    """The command generates packages in one's own module, and the program prints what its comments say."""
    module = tmp_path / "src" / "example.com" / "you"
    module.mkdir(parents=True)
    for name in ("mlflow.proto", "model_service.proto"):
        shutil.copy(sources / name, module)
    (names,) = commands("NAMES=module")
    (generate,) = commands("--go_out")
    run("/bin/bash", "-euo", "pipefail", "-c", f"{names}\n{generate}", cwd=module)
    assert {path.name for path in module.iterdir() if path.is_dir()} == {"mlflowpb", "modelspb"}

    def printed_by(code: str, payload: str) -> list[str]:
        code = code.replace("localhost:50051", iris.address)
        for shown, older in GO_FOR_DEBIAN.items():
            assert code.count(shown) == 1
            code = code.replace(shown, older)
        (module / "main.go").write_text(code + GO_CODEC)
        go = {"GO111MODULE": "off", "GOPATH": f"{tmp_path}:{GO_LIBRARIES}", "GOFLAGS": ""}
        run(tool("go"), "build", "-o", tmp_path / "program", "example.com/you", cwd=tmp_path, **go)
        return run(tmp_path / "program", payload, cwd=tmp_path).splitlines()

    assert printed_by(GO, PAYLOAD) == re.findall(r"Println\(.*\) // (.*)$", GO, re.MULTILINE)
    # The lines that send metadata, and those that print the details of the first error.
    packages = ["google.golang.org/genproto/googleapis/rpc/errdetails", "google.golang.org/grpc/metadata"]
    assert all(f"`{name}`" in PAGE for name in packages)
    code = GO.replace('\t"fmt"\n', "".join(f'\t"{name}"\n' for name in ["fmt", *packages]))
    code = code.replace("defer cancel()\n", f"defer cancel()\n{GO_METADATA}")
    first = '\t\tlog.Fatalf("%s: %s", status.Code(err), status.Convert(err).Message())\n'
    code = code.replace(first, f"{GO_DETAILS}fmt.Println(status.Code(err))\nreturn\n", 1)
    assert printed_by(code, INCOMPLETE) == [*FAULTS, "InvalidArgument"]
    assert printed_by(code.replace('"iris"', '"nobody"'), INCOMPLETE) == ["NotFound"]


@pytest.mark.interop
@pytest.mark.timeout(900)
def test_java(sources: Path, iris: Any, tmp_path: Path) -> None:
    """The Java code prints what its comments say."""
    for name in ("mlflow.proto", "model_service.proto"):
        shutil.copy(sources / name, tmp_path)
    (make_folder,) = commands("mkdir")
    (generate,) = commands("--java_out")
    plugin = f"--plugin=protoc-gen-grpc-java={tool('grpc_java_plugin')}"
    run("/bin/bash", "-euo", "pipefail", "-c", f"{make_folder}\n{generate} {plugin}", cwd=tmp_path)
    # The classes of google.rpc, which grpc-protobuf brings from Maven, and not from Debian.
    google = Path(google_rpc.__file__).parents[2]
    run(
        tool("protoc"),
        f"-I{google}",
        "--java_out=src",
        "google/rpc/status.proto",
        "google/rpc/error_details.proto",
        cwd=tmp_path,
    )

    def printed_by(code: str, payload: str) -> list[str]:
        (tmp_path / "Main.java").write_text(code.replace("localhost:50051", iris.address))
        files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.java")]
        run(tool("javac"), "-nowarn", "-cp", f"{JARS}/*", "-d", "classes", *files, cwd=tmp_path)
        return run(tool("java"), "-cp", f"classes:{JARS}/*", "Main", payload, cwd=tmp_path).splitlines()

    assert printed_by(JAVA, PAYLOAD) == re.findall(r"println\(.*\); // (.*)$", JAVA, re.MULTILINE)
    # The lines that send metadata, and those that print the details of the first error.
    names = ["com.google.protobuf.Any", "com.google.rpc.BadRequest", "io.grpc.protobuf.StatusProto"]
    names += ["io.grpc.Metadata", "io.grpc.stub.MetadataUtils"]
    code = "".join(f"import {name};\n" for name in names) + JAVA
    assert all(f"`{name}`" in PAGE for name in names)
    code = code.replace("arguments) {", "arguments) throws Exception {", 1)
    code = code.replace("    try {\n", f"{JAVA_METADATA}    try {{\n", 1)
    code = code.replace(
        "      System.err.println(error.getStatus());\n",
        f"{JAVA_DETAILS}System.out.println(error.getStatus().getCode());\n",
    )
    printed = printed_by(code, INCOMPLETE)
    assert printed[:-1] == [*FAULTS, "INVALID_ARGUMENT"]
    assert printed_by(code.replace('"iris"', '"nobody"'), INCOMPLETE)[0] == "NOT_FOUND"


@pytest.mark.interop
def test_the_table_of_names(sources: Path) -> None:
    """The table has the names that the files set."""
    texts = [(sources / name).read_text() for name in ("mlflow.proto", "model_service.proto")]
    for language, option in {
        "Java, Kotlin": "java_package",
        "Go": "go_package",
        "C#": "csharp_namespace",
        "Ruby": "ruby_package",
        "PHP": "php_namespace",
    }.items():
        names = [re.findall(rf'^option {option} = "(.*)";$', text, re.MULTILINE)[0] for text in texts]
        shown = " | ".join(f"`{name}`" for name in names).replace("\\\\", "\\")
        assert f"| {language} | {shown} |" in PAGE
