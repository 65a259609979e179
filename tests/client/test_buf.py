"""buf curl as an independent client of the typed service, with only reflection."""

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.support.node import install_buf
from tests.support.servers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.deep]

SERVICE = "model_grpc_service.ModelgRPCService"


@pytest.fixture(scope="session")
def buf(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command, in a pinned version."""
    return install_buf(tmp_path_factory.mktemp("buf"))


def curl(buf: str, address: str, *arguments: str) -> tuple[int, str]:
    """Returns exit code and output of buf curl."""
    command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    command.append(
        f"http://{address}/{SERVICE}/iris_predict" if "--list-methods" not in arguments else f"http://{address}"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=Path("/"))
    return done.returncode, done.stdout + done.stderr


def test_methods_are_listed(buf, iris):
    """All services are listed, including the typed one."""
    code, out = curl(buf, iris.address, "--list-methods")
    assert code == 0
    assert {f"{SERVICE}/get_models", f"{SERVICE}/iris_predict", "MLflow/predict"} <= set(out.split())


def test_the_typed_rpc_is_called(buf, iris):
    """The record in the README has the answer in the README, which the model gives in Python too."""
    (record,) = re.findall(r"-d '(\{.*\})' \\", (ROOT / "docs" / "typed.md").read_text())
    code, out = curl(buf, iris.address, "-d", record)
    (expected,) = iris.model.predict(pd.DataFrame([json.loads(record)]), None)
    assert (code, json.loads(out)) == (0, {"prediction": expected})


def test_missing_columns_are_named(buf, iris):
    """The error names the missing columns."""
    code, out = curl(buf, iris.address, "-d", '{"sepal_length_cm": 5.1}')
    assert code != 0
    assert json.loads(out)["code"] == "invalid_argument"
    assert "petal_width_cm: missing" in json.loads(out)["message"]


def test_error_details_are_decodable_by_reflection(buf, iris):
    """buf prints error details as types and bytes unless it was compiled with them; the types from reflection decode
    them."""
    code, out = curl(buf, iris.address, "-H", "x-request-id: order-17", "-d", '{"sepal_length_cm": 5.1}')
    assert code != 0
    with grpc.insecure_channel(iris.address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        read: list[Any] = [
            message_factory.GetMessageClass(pool.FindMessageTypeByName(detail["type"])).FromString(
                base64.b64decode(detail["value"] + "==")
            )
            for detail in json.loads(out)["details"]
        ]
    info, bad_request = read
    assert (info.reason, info.metadata["request_id"]) == ("INVALID_PARAMETER_VALUE", "order-17")
    violations = bad_request.field_violations
    assert [violation.field for violation in violations] == ["sepal_width_cm", "petal_length_cm", "petal_width_cm"]
    assert all(violation.description.startswith("missing") for violation in violations)
