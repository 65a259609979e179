"""The service config of docs/clients.md in Go, Java and Node, set by the code that the page has for each.

Go and Java are not part of `make test`; `make interop` lists what they need.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.test_interop import GO_LIBRARIES, JARS, run, tool
from tests.client.test_node import example  # noqa: F401 - a fixture
from tests.support.retries import CALLS, CONFIG, code_for, failing_server

JAVA = """
import com.google.gson.Gson;
import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.TimeUnit;

public final class Retries {
  private static final MethodDescriptor.Marshaller<String> TEXT =
      new MethodDescriptor.Marshaller<String>() {
        public InputStream stream(String text) {
          return new ByteArrayInputStream(text.getBytes());
        }

        public String parse(InputStream stream) {
          try {
            return new String(stream.readAllBytes());
          } catch (java.io.IOException error) {
            throw new UncheckedIOException(error);
          }
        }
      };

  public static void main(String[] arguments) throws Exception {
    ManagedChannelBuilder<?> builder = ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext();
    if (!arguments[1].isEmpty()) {
      String config = Files.readString(Path.of(arguments[1]));
      CODE;
    }
    ManagedChannel channel = builder.build();
    for (int i = 2; i < arguments.length; i += 2) {
      MethodDescriptor<String, String> method =
          MethodDescriptor.newBuilder(TEXT, TEXT)
              .setType(MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(arguments[i].substring(1))
              .build();
      CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(20, TimeUnit.SECONDS);
      try {
        System.out.println(ClientCalls.blockingUnaryCall(channel, method, options, arguments[i + 1]));
      } catch (StatusRuntimeException error) {
        System.out.println(error.getStatus().getCode());
      }
    }
    channel.shutdownNow();
  }
}
"""

GO = """
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

type codec struct{}

func (codec) Marshal(text interface{}) ([]byte, error) { return []byte(*text.(*string)), nil }

func (codec) Unmarshal(data []byte, text interface{}) error {
	*text.(*string) = string(data)
	return nil
}

func (codec) Name() string { return "proto" }

func main() {
	options := []grpc.DialOption{grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}))}
	if os.Args[2] != "" {
		data, err := os.ReadFile(os.Args[2])
		if err != nil {
			panic(err)
		}
		config := string(data)
		options = append(options, OPTION)
	}
	channel, err := grpc.Dial(os.Args[1], options...)
	if err != nil {
		panic(err)
	}
	for i := 3; i < len(os.Args); i += 2 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		var answer string
		if err := channel.Invoke(ctx, os.Args[i], &os.Args[i+1], &answer); err != nil {
			fmt.Println(status.Code(err))
		} else {
			fmt.Println(answer)
		}
		cancel()
	}
}
"""

NODE = """
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
const [address, path, ...calls] = process.argv.slice(2);
const { Client, Metadata } = grpc;
const credentials = grpc.credentials.createInsecure();
const config = path && readFileSync(path, "utf8");
const client = path ? CODE : new Client(address, credentials);
const same = (bytes) => bytes;
const call = (method, payload) => new Promise((done) => {
  const options = { deadline: Date.now() + 20000 };
  client.makeUnaryRequest(method, same, same, Buffer.from(payload), new Metadata(), options,
    (error, answer) => done(error ? grpc.status[error.code] : answer.toString()));
});
while (calls.length) console.log(await call(...calls.splice(0, 2)));
"""

Program = Callable[..., str]


def check(program: Program, tmp_path: Path) -> None:
    """Runs a client with the config and without it, and checks how its calls end."""
    (tmp_path / "config.json").write_text(CONFIG)
    calls = [text for call in CALLS for text in call]
    for path in (str(tmp_path / "config.json"), ""):
        with failing_server() as server:
            server.check(program(server.address, path, *calls), has_config=bool(path))


@pytest.mark.interop
def test_java(tmp_path: Path) -> None:
    """The page's line for Java retries as the page says; without it, each call is sent once."""
    (tmp_path / "Retries.java").write_text(JAVA.replace("CODE", code_for("Java")))
    run(tool("javac"), "-nowarn", "-cp", f"{JARS}/*", "-d", "classes", "Retries.java", cwd=tmp_path)
    command = (tool("java"), "-cp", f"classes:{JARS}/*", "Retries")
    check(lambda *arguments: run(*command, *arguments, cwd=tmp_path), tmp_path)


@pytest.mark.interop
def test_go(tmp_path: Path) -> None:
    """The page's option for Go retries as the page says; without it, each call is sent once."""
    # Debian's gRPC has Dial in place of NewClient, and retries only with this variable.
    call, _, option = code_for("Go").removesuffix(", ...)").partition(", ")
    assert call.startswith("grpc.NewClient(")
    main = tmp_path / "src" / "app" / "main.go"
    main.parent.mkdir(parents=True)
    main.write_text(GO.replace("OPTION", option))
    go = {"GO111MODULE": "off", "GOPATH": f"{tmp_path}:{GO_LIBRARIES}", "GOFLAGS": ""}
    run(tool("go"), "build", "-o", tmp_path / "program", "app", cwd=tmp_path, **go)
    check(lambda *arguments: run(tmp_path / "program", *arguments, cwd=tmp_path, GRPC_GO_RETRY="on"), tmp_path)


@pytest.mark.slow
def test_node(example: Path, tmp_path: Path) -> None:  # noqa: F811 - a fixture
    """The page's line for Node retries as the page says; without it, each call is sent once."""
    (example / "retries.mjs").write_text(NODE.replace("CODE", code_for("Node")))
    check(lambda *arguments: run(tool("node"), example / "retries.mjs", *arguments, cwd=example), tmp_path)
