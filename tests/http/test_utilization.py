"""Utilization of a server: at /metrics, and in the trailer that load balancers read."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from mlflow_grpc import protos
from mlflow_grpc.calls.backend_metrics import KEY, load_report
from mlflow_grpc.services.in_process import CallError, InProcessCaller, Metadata
from tests.support.models import FunctionModel, GatedModel, PlainCodec, judge
from tests.support.scrapes import Scrape
from tests.support.servers import Caller, InProcess, serving


def report_class() -> Any:
    """Returns the class of OrcaLoadReport, with the fields of its .proto file that a server sends."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="xds.data.orca.v3", syntax="proto3")
    message = file.message_type.add(name="OrcaLoadReport")
    for name, number in (("rps_fractional", 6), ("eps", 7), ("application_utilization", 9)):
        double = descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE
        message.field.add(name=name, number=number, type=double, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("xds.data.orca.v3.OrcaLoadReport"))


OrcaLoadReport = report_class()


def trailer(server: InProcess, text: str) -> Any:
    """Returns the load report that comes with an answer or an error; None if there is none.

    gRPC's clients keep the trailer for themselves, so the call is made without a port.
    """

    async def call() -> Metadata:
        try:
            message = protos.Input(value=text).SerializeToString()
            return (await InProcessCaller(server.server.host.handlers).unary("/MLflow/predict", message)).trailers
        except CallError as error:
            return error.trailers

    trailers = dict(server.run(call))
    return OrcaLoadReport.FromString(trailers[KEY]) if KEY in trailers else None


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.deep), 2])
def test_utilization_is_the_share_of_busy_threads(threads):
    """Calls that run in the model count with the time that they take, also before they have ended."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=threads, http_port=0) as server:
        utilization = server.server.host.utilization
        server.start_task(server.server.watch)
        with ThreadPoolExecutor(threads) as pool, Caller(server.address) as call:
            for busy in range(1, threads + 1):
                pool.submit(call, "hold")
                expected = busy / threads
                server.wait_until(lambda: abs(utilization.value - expected) < 0.02)  # noqa: B023 - waits in the loop
                scraped = Scrape(server.url).total("mlflow_grpc_utilization")
                assert scraped == pytest.approx(expected, abs=0.05)
            model.let_go()
        server.wait_until(lambda: utilization.value < 0.2)


def test_backend_metrics_are_sent_if_they_are_turned_on():
    """Answers and errors have them: calls and errors per second that are not the caller's fault, and the utilization."""
    with serving(FunctionModel(judge), PlainCodec(), backend_metrics=True) as server:
        server.start_task(server.server.watch)
        server.wait_until(lambda: server.server.host.dispatcher.backend_metrics)
        for text in ("x", "bad", "broken") * 20:
            assert trailer(server, text) is not None
        server.wait_until(lambda: current(server).rps_fractional > 20)
        report = current(server)
    assert 0 <= report.application_utilization <= 1
    assert report.eps == pytest.approx(report.rps_fractional / 3, rel=0.3)


def test_backend_metrics_are_off_by_default():
    with serving(FunctionModel(judge), PlainCodec()) as server:
        server.start_task(server.server.watch)
        server.wait_until(lambda: server.server.host.utilization.value)
        assert trailer(server, "x") is None


def current(server: InProcess) -> Any:
    ((_, report),) = server.server.host.dispatcher.backend_metrics
    return OrcaLoadReport.FromString(report)


def test_grpc_sends_calls_to_servers_that_are_less_busy():
    """The policy weighted_round_robin splits 1,000 calls 800 to 200 between servers at 0.2 and at 0.8."""
    policy = {"weighted_round_robin": {"blackoutPeriod": "0s", "weightUpdatePeriod": "0.1s"}}
    config = json.dumps({"loadBalancingConfig": [policy]})
    with (
        serving(FunctionModel(judge), PlainCodec()) as idle,
        serving(FunctionModel(judge), PlainCodec()) as busy,
    ):
        for server, utilization in ((idle, 0.2), (busy, 0.8)):
            server.server.host.dispatcher.backend_metrics = ((KEY, load_report(100.0, 0.0, utilization)),)
        options = [("grpc.service_config", config), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"ipv4:{idle.address},{busy.address}", options) as channel:
            predict: Any = channel.unary_unary("/MLflow/predict")
            message = protos.Input(value="x").SerializeToString()

            def calls_to_idle(total: int) -> int:
                before = idle.server.host.open_calls.ended_calls
                for _ in range(total):
                    predict(message, timeout=30)
                return idle.server.host.open_calls.ended_calls - before

            deadline = time.monotonic() + 30
            while not 35 < calls_to_idle(50) < 45:  # Until both are connected, and the weights are set.
                assert time.monotonic() < deadline
            assert calls_to_idle(1000) == pytest.approx(800, abs=20)


def test_the_report_has_doubles_in_the_order_of_their_numbers():
    """The same bytes that protobuf writes."""
    report = OrcaLoadReport(rps_fractional=12.5, eps=1.0, application_utilization=0.75)
    assert load_report(12.5, 1.0, 0.75) == report.SerializeToString()
