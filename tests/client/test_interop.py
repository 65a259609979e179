"""mlflow.proto and the .proto file of a server's typed RPCs, compiled for other languages, and called from Java, Go and
grpcurl.

Not part of `make test`; `make interop` lists what it needs.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow_grpc_client import Client

from tests.support.servers import ROOT

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

PUBLISHED_PROTOS = ("mlflow.proto", "mlflow_grpc/v1/models.proto")
JARS = Path("/usr/share/java")
GO_LIBRARIES = Path("/usr/share/gocode")
PAYLOAD = (
    '{"dataframe_records": [{"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, '
    '"petal_width_cm": 0.2}]}'
)

JAVA = """
package com.example.app;

import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import mlflow.grpc.Input;
import mlflow.grpc.MLflowGrpc;
import mlflow.grpc.models.ModelgRPCServiceGrpc;
import mlflow.grpc.models.iris_input;
import mlflow.grpc.models.iris_inputs;
import mlflow.grpc.models.iris_output;

public final class Main {
  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel = ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext().build();
    MLflowGrpc.MLflowBlockingStub plain =
        MLflowGrpc.newBlockingStub(channel).withDeadlineAfter(60, TimeUnit.SECONDS);
    System.out.println(plain.predict(Input.newBuilder().setValue(arguments[1]).build()).getValue());
    try {
      plain.predict(Input.newBuilder().setValue("no JSON").build());
    } catch (StatusRuntimeException refused) {
      System.out.println(refused.getStatus().getCode());
    }
    iris_input flower =
        iris_input.newBuilder().setSepalLengthCm(5.1).setSepalWidthCm(3.5).setPetalLengthCm(1.4).setPetalWidthCm(0.2)
            .build();
    ModelgRPCServiceGrpc.ModelgRPCServiceBlockingStub typed =
        ModelgRPCServiceGrpc.newBlockingStub(channel).withDeadlineAfter(60, TimeUnit.SECONDS);
    System.out.println(typed.irisPredict(flower).getPrediction());
    iris_inputs rows =
        iris_inputs.newBuilder().addSepalLengthCm(5.1).addSepalWidthCm(3.5).addPetalLengthCm(1.4).addPetalWidthCm(0.2)
            .addSepalLengthCm(6.7).addSepalWidthCm(3.0).addPetalLengthCm(5.2).addPetalWidthCm(2.3).build();
    System.out.println(String.join(" ", typed.irisPredictBatch(rows).getPredictionList()));
    CountDownLatch ended = new CountDownLatch(1);
    StreamObserver<iris_input> records =
        ModelgRPCServiceGrpc.newStub(channel).irisPredictMany(
            new StreamObserver<iris_output>() {
              public void onNext(iris_output answer) {
                System.out.println(answer.hasError() ? answer.getError().getReason() : answer.getPrediction());
              }

              public void onError(Throwable error) {
                System.out.println(error);
                ended.countDown();
              }

              public void onCompleted() {
                ended.countDown();
              }
            });
    records.onNext(flower);
    records.onNext(iris_input.getDefaultInstance());
    records.onCompleted();
    ended.await(60, TimeUnit.SECONDS);
    channel.shutdownNow();
  }
}
"""

GO = """
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"mlflow_grpc/mlflowpb"
	"mlflow_grpc/modelspb"
)

// Debian's gRPC marshals with a protobuf that does not know messages of its protoc-gen-go.
type codec struct{}

func (codec) Marshal(message interface{}) ([]byte, error) { return proto.Marshal(message.(proto.Message)) }

func (codec) Unmarshal(data []byte, message interface{}) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

func (codec) Name() string { return "proto" }

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	channel, err := grpc.DialContext(ctx, os.Args[1], grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	check(err)
	plain := mlflowpb.NewMLflowClient(channel)
	answer, err := plain.Predict(ctx, &mlflowpb.Input{Value: os.Args[2]})
	check(err)
	fmt.Println(answer.GetValue())
	_, err = plain.Predict(ctx, &mlflowpb.Input{Value: "no JSON"})
	fmt.Println(status.Code(err))
	flower := &modelspb.IrisInput{
		SepalLengthCm: proto.Float64(5.1), SepalWidthCm: proto.Float64(3.5),
		PetalLengthCm: proto.Float64(1.4), PetalWidthCm: proto.Float64(0.2),
	}
	typed := modelspb.NewModelgRPCServiceClient(channel)
	one, err := typed.IrisPredict(ctx, flower)
	check(err)
	fmt.Println(one.GetPrediction())
	rows, err := typed.IrisPredictBatch(ctx, &modelspb.IrisInputs{
		SepalLengthCm: []float64{5.1, 6.7}, SepalWidthCm: []float64{3.5, 3.0},
		PetalLengthCm: []float64{1.4, 5.2}, PetalWidthCm: []float64{0.2, 2.3},
	})
	check(err)
	fmt.Println(strings.Join(rows.GetPrediction(), " "))
	many, err := typed.IrisPredictMany(ctx)
	check(err)
	check(many.Send(flower))
	check(many.Send(&modelspb.IrisInput{}))
	check(many.CloseSend())
	for {
		each, err := many.Recv()
		if err == io.EOF {
			return
		}
		check(err)
		if each.GetError() != nil {
			fmt.Println(each.GetError().GetReason())
		} else {
			fmt.Println(each.GetPrediction())
		}
	}
}
"""


def tool(name: str) -> str:
    path = shutil.which(name)
    assert path, f"{name} is not on the PATH: `make interop` says which packages have it"
    return path


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(iris: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our .proto files, and the one fetched from the example's server."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / PUBLISHED_PROTOS[1]).parent.mkdir(parents=True)
    shutil.copy(ROOT / PUBLISHED_PROTOS[0], folder)
    shutil.copy(ROOT / "mlflow_grpc" / "protos" / PUBLISHED_PROTOS[1], folder / PUBLISHED_PROTOS[1])
    with Client(iris.address) as client:
        proto_file = client.proto_file()
    (folder / proto_file.name).write_text(proto_file.text)
    return folder


def compile_all(sources: Path, *flags: str) -> None:
    run(tool("protoc"), *flags, *PUBLISHED_PROTOS, "model_service.proto", cwd=sources)


@pytest.fixture(scope="module")
def expected(iris: Any) -> list[str]:
    """Expected output of each program: a prediction as JSON, a refusal, one record, two rows, and a stream with an
    error."""
    columns = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
    frame = pd.DataFrame([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], columns=columns)
    label, probabilities = iris.model.predict(frame, None)
    assert label != probabilities
    return [f'{{"predictions": ["{label}"]}}', "", label, f"{label} {probabilities}", label, "INVALID_PARAMETER_VALUE"]


def assert_printed(printed: str, expected: list[str]) -> None:
    lines = printed.splitlines()
    assert lines[1].replace("_", "").lower() == "invalidargument"
    assert [lines[0], "", *lines[2:]] == expected


def test_java(sources: Path, iris: Any, expected: list[str], tmp_path: Path) -> None:
    """A class in its own package makes JSON and typed calls with classes in the packages that the files set."""
    compile_all(
        sources,
        f"--plugin=protoc-gen-grpc-java={tool('grpc_java_plugin')}",
        f"--java_out={tmp_path}",
        f"--grpc-java_out={tmp_path}",
    )
    for name in ("mlflow/grpc/Input", "mlflow/grpc/v1/ModelsProto", "mlflow/grpc/models/iris_input"):
        assert (tmp_path / f"{name}.java").is_file()
    main = tmp_path / "com" / "example" / "app" / "Main.java"
    main.parent.mkdir(parents=True)
    main.write_text(JAVA)
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.java")]
    run(tool("javac"), "-nowarn", "-cp", f"{JARS}/*", "-d", "classes", *files, cwd=tmp_path)
    command = [tool("java"), "-cp", f"classes:{JARS}/*", "com.example.app.Main", iris.address, PAYLOAD]
    assert_printed(run(*command, cwd=tmp_path), expected)


def test_go(sources: Path, iris: Any, expected: list[str], tmp_path: Path) -> None:
    """A program makes JSON and typed calls with packages at the paths that the files set, without mapping flags."""
    output = tmp_path / "src"
    output.mkdir()
    tool("protoc-gen-go")
    tool("protoc-gen-go-grpc")
    compile_all(sources, f"--go_out={output}", f"--go-grpc_out={output}")
    assert sorted(path.name for path in (output / "mlflow_grpc").rglob("*pb")) == ["mlflowpb", "modelspb", "modelspb"]
    (output / "app").mkdir()
    (output / "app" / "main.go").write_text(GO)
    go = {"GO111MODULE": "off", "GOPATH": f"{tmp_path}:{GO_LIBRARIES}", "GOFLAGS": ""}
    run(tool("go"), "build", "mlflow_grpc/v1/modelspb", cwd=tmp_path, **go)
    run(tool("go"), "build", "-o", tmp_path / "program", "app", cwd=tmp_path, **go)
    assert_printed(run(tmp_path / "program", iris.address, PAYLOAD, cwd=tmp_path), expected)


LANGUAGES = {
    "csharp": ("*.cs", r"^namespace (MlflowGrpc[.\w]*) \{", {"MlflowGrpc", "MlflowGrpc.V1", "MlflowGrpc.Models"}),
    "ruby": ("*.rb", r"^ *module (\w+)$", {"MlflowGrpc", "V1", "Models"}),
    "php": (
        "*.php",
        r"^namespace (MlflowGrpc[\\\w]*);",
        {
            *("MlflowGrpc", "MlflowGrpc\\V1", "MlflowGrpc\\Models"),
            *("MlflowGrpc\\Metadata", "MlflowGrpc\\V1\\Metadata", "MlflowGrpc\\Models\\Metadata"),
        },
    ),
    "objc": ("*.h", r"@interface (MLF[GVM])\w+ : GPBMessage", {"MLFG", "MLFV", "MLFM"}),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_other_languages(sources: Path, tmp_path: Path, language: str) -> None:
    """protoc's own generators compile all files together, each into its namespace."""
    compile_all(sources, f"--{language}_out={tmp_path}")
    pattern, namespace, expected = LANGUAGES[language]
    output = [path.read_text(errors="replace") for path in tmp_path.rglob(pattern)]
    assert len(output) >= 3
    namespaces = {name for text in output for name in re.findall(namespace, text, re.MULTILINE)}
    assert namespaces >= expected


def test_grpcurl_decodes_error_details(iris: Any, tmp_path: Path) -> None:
    """grpcurl decodes the details of a refusal with only reflection."""
    command = [tool("grpcurl"), "-plaintext", "-H", "x-request-id: order-17", "-d", '{"sepal_length_cm": 5.1}']
    command += [iris.address, "model_grpc_service.ModelgRPCService/iris_predict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode != 0
    info, bad_request = map(json.loads, re.findall(r"^ *\d\)\s*(\{.*\})$", done.stderr, re.MULTILINE))
    assert info["@type"].endswith("/google.rpc.ErrorInfo")
    assert (info["reason"], info["metadata"]["request_id"]) == ("INVALID_PARAMETER_VALUE", "order-17")
    fields = [item["field"] for item in bad_request["field_violations"]]
    assert fields == ["sepal_width_cm", "petal_length_cm", "petal_width_cm"]


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [("MLflow", "  // Scores one payload."), (".model_grpc_service.iris_input", "  // Required.")],
)
def test_grpcurl_describes_with_comments(iris: Any, tmp_path: Path, symbol: str, expected: str) -> None:
    """grpcurl shows comments of our own services and of the typed messages."""
    printed = run(tool("grpcurl"), "-plaintext", iris.address, "describe", symbol, cwd=tmp_path)
    assert any(line.startswith(expected) for line in printed.splitlines())
