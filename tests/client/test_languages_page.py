"""docs/languages.md: its commands and its code run, with the output that the page shows."""

import json
import re
import shlex
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from mlflow_grpc_client import Client

from tests.client.test_interop import GO_LIBRARIES, JARS, run, sources, tool
from tests.support.node import install_buf
from tests.support.servers import ROOT

PAGE = (ROOT / "docs" / "languages.md").read_text()
PAYLOAD = '{"dataframe_records": [{"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2}]}'
CSV = "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm\n5.1,3.5,1.4,0.2\n"
ANSWER = '{"predictions": ["setosa"]}'

__all__ = ["sources"]

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


def block(language: str) -> str:
    """Returns the only code block of the page in a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(code)


def commands(program: str) -> list[str]:
    """Returns the commands on the page that use a program."""
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    return [line for line in text.splitlines() if program in line]


def test_payloads(iris: Any) -> None:
    """The payloads for grpcurl and Node are valid for the example server."""
    written = [json.loads(text) for text in re.findall(r"'(\{\".*\})'", PAGE)]
    texts = [message.get("value") or json.dumps(message) for message in written if "sepal_length_cm" not in message]
    assert len(texts) == 3
    with Client(iris.address) as client:
        assert [client.predict_text(text) for text in texts] == [ANSWER] * 3


def test_node_code() -> None:
    """The Node code is an excerpt of the example, which other tests run."""
    example = (ROOT / "client" / "examples" / "node" / "typed.mjs").read_text()
    assert textwrap.indent(block("js"), "  ") in example


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
    code = block("go").replace("localhost:50051", iris.address)
    for shown, older in GO_FOR_DEBIAN.items():
        assert code.count(shown) == 1
        code = code.replace(shown, older)
    (module / "main.go").write_text(code + GO_CODEC)
    go = {"GO111MODULE": "off", "GOPATH": f"{tmp_path}:{GO_LIBRARIES}", "GOFLAGS": ""}
    run(tool("go"), "build", "-o", tmp_path / "program", "example.com/you", cwd=tmp_path, **go)
    printed = run(tmp_path / "program", PAYLOAD, cwd=tmp_path)
    assert printed.splitlines() == re.findall(r"Println\(.*\) // (.*)$", block("go"), re.MULTILINE)


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
    code = block("java").replace("localhost:50051", iris.address)
    (tmp_path / "Main.java").write_text(code)
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.java")]
    run(tool("javac"), "-nowarn", "-cp", f"{JARS}/*", "-d", "classes", *files, cwd=tmp_path)
    printed = run(tool("java"), "-cp", f"classes:{JARS}/*", "Main", PAYLOAD, cwd=tmp_path)
    assert printed.splitlines() == re.findall(r"println\(.*\); // (.*)$", code, re.MULTILINE)


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
