"""Who may call over gRPC: tokens, JWTs, certificates, rules, and what a refusal reveals."""

import functools
import logging
import threading
from typing import Any

import grpc
import pytest
import requests
from cryptography import x509
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from mlflow_grpc import logs, protos
from mlflow_grpc.access_config import AccessRule
from mlflow_grpc.choices import Service
from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.settings import Settings
from tests.support.access import AUDIENCE, ISSUER, TOKENS, Authority, IdentityProvider, bearer, lines_of
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.scrapes import Scrape
from tests.support.servers import Caller, InProcess, serving

HEALTH = "/grpc.health.v1.Health/Check"
LIST = "/mlflow_grpc.v1.Models/ListModels"
GET = "/mlflow_grpc.v1.Models/GetModel"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# callers\n\n{lines_of(TOKENS)}")
    return path


@pytest.fixture
def provider():
    with IdentityProvider() as running:
        running.add_key("first")
        yield running


def echo(**settings):
    return serving(FunctionModel(lambda text: text), PlainCodec(), **settings)


def with_jwts(provider, **settings):
    return echo(auth_jwt_issuer=ISSUER, auth_jwt_audience=AUDIENCE, auth_jwt_jwks=provider.url, **settings)


def refusal(call, *args, **more):
    """Returns the status of a refused call, and the reason and error class of its ErrorInfo."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **more)
    error: Any = caught.value
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert status.message == error.details()
    return error.code().name, info.reason, info.metadata["error_class"]


def raw(caller, path, data=b"", **metadata):
    return caller.channel.unary_unary(path)(data, timeout=20, metadata=tuple(metadata.items()))


def test_a_token_of_the_file_is_needed(tokens):
    """Each token of the file works; no token, a wrong one and another scheme do not, and nothing of them is shown."""
    with echo(auth_tokens=tokens) as server, Caller(server.address) as caller:
        for token in TOKENS.values():
            assert caller("x", **bearer(token)) == "x"
            assert caller("x", authorization=f"bearer  {token}") == "x"
        expected = "UNAUTHENTICATED", "UNAUTHENTICATED"
        assert refusal(caller, "x") == (*expected, "NO_CREDENTIALS")
        assert refusal(caller, "x", **bearer("wrong")) == (*expected, "UNKNOWN_TOKEN")
        assert refusal(caller, "x", **bearer("")) == (*expected, "UNKNOWN_TOKEN")
        assert refusal(caller, "x", authorization="Basic d2ViOng=") == (*expected, "NOT_BEARER")
        assert refusal(caller, "x", authorization=TOKENS["web"]) == (*expected, "NOT_BEARER")
        assert "wrong" not in (caller.outcome("x", **bearer("wrong"))[1] or "")


GOOD = TOKENS["web"]


@pytest.mark.parametrize(
    ("values", "error_class"),
    [
        ((f"Bearer {GOOD}",), ""),
        ((f"BEARER {GOOD}",), ""),
        ((f"bEARER   {GOOD}  ",), ""),
        ((f"Bearer{GOOD}",), "NOT_BEARER"),
        (("Bearer",), "NOT_BEARER"),
        (("",), "NOT_BEARER"),
        ((f"Bearer {GOOD} {GOOD}",), "UNKNOWN_TOKEN"),
        ((f"Bearer {GOOD}, Bearer {GOOD}",), "UNKNOWN_TOKEN"),
        ((f"Bearer {GOOD.upper()}",), "UNKNOWN_TOKEN"),
        ((f"Bearer {'x' * 7000}",), "UNKNOWN_TOKEN"),
        ((f"Bearer {GOOD}", f"Bearer {GOOD}"), "SEVERAL_AUTHORIZATIONS"),
        ((f"Bearer {GOOD}", "Bearer wrong"), "SEVERAL_AUTHORIZATIONS"),
        (("Bearer wrong", f"Bearer {GOOD}"), "SEVERAL_AUTHORIZATIONS"),
        (("Basic eDp5", f"Bearer {GOOD}"), "SEVERAL_AUTHORIZATIONS"),
    ],
)
def test_forms_of_an_authorization(tokens, values, error_class):
    """The scheme has any case and spaces after it; a call with several authorizations is refused, even if all are valid,
    for methods of each protocol.
    """
    data = protos.Input(value="x").SerializeToString()
    metadata = tuple(("authorization", value) for value in values)
    with echo(auth_tokens=tokens) as server, Caller(server.address) as caller:
        for path, request in (
            ("/MLflow/predict", data),
            (LIST, b""),
            ("/inference.GRPCInferenceService/RepositoryIndex", b""),
            ("/arrow.flight.protocol.FlightService/ListFlights", b""),
        ):
            call: Any = functools.partial(caller.channel.stream_stream(path), timeout=20, metadata=metadata)
            if error_class:
                refused = refusal(lambda call=call, request=request: list(call(iter([request]))))
                assert refused == ("UNAUTHENTICATED", "UNAUTHENTICATED", error_class)
            else:
                list(call(iter([request])))


def test_a_token_that_is_too_large(tokens):
    """gRPC refuses metadata of any size above its limit, and calls on other connections are answered."""
    with echo(auth_tokens=tokens) as server, Caller(server.address) as caller, Caller(server.address) as other:
        for size in (20_000, 1_000_000):
            assert caller.outcome("x", **bearer("x" * size))[0] in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
        assert other("x", **bearer(GOOD)) == "x"


def test_only_health_is_open(tokens):
    """Models and reflection need a token, health does not, and an unknown method is unknown to everyone."""
    with echo(auth_tokens=tokens) as server, Caller(server.address) as caller:
        assert raw(caller, HEALTH)
        assert refusal(raw, caller, LIST)[0] == "UNAUTHENTICATED"
        assert raw(caller, LIST, **bearer(TOKENS["web"]))
        reflect: Any = caller.channel.stream_stream(REFLECTION)
        assert refusal(lambda: list(reflect(iter([b""]), timeout=20)))[0] == "UNAUTHENTICATED"
        for metadata in ({}, bearer(TOKENS["web"])):
            with pytest.raises(grpc.RpcError) as caught:
                raw(caller, "/MLflow/other", **metadata)
            error: Any = caught.value
            assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def test_streams_are_refused_before_a_request_is_read(tokens):
    """A stream of a caller without a token ends, although no request has been sent."""
    with echo(auth_tokens=tokens) as server, Caller(server.address) as caller:
        forever = threading.Event()

        def requests_of_stream():
            forever.wait(60)
            yield b""

        stream: Any = caller.channel.stream_stream("/MLflowStream/predict_many")
        try:
            assert refusal(lambda: list(stream(requests_of_stream(), timeout=20)))[2] == "NO_CREDENTIALS"
        finally:
            forever.set()
        values = [protos.Input(value=text).SerializeToString() for text in "ab"]
        metadata = tuple(bearer(TOKENS["web"]).items())
        answers = [protos.Output.FromString(data).value for data in stream(iter(values), timeout=20, metadata=metadata)]
        assert answers == ["a", "b"]


def test_a_refusal_takes_no_room(tokens):
    """A caller without a token is refused as such while the queue of the model is full."""
    model = GatedModel()
    with serving(model, PlainCodec(), auth_tokens=tokens, queue_calls=1, threads=1) as server:
        with Caller(server.address) as caller:
            data = protos.Input(value="hold").SerializeToString()
            held = caller.raw.future(data, timeout=30, metadata=tuple(bearer(TOKENS["web"]).items()))
            model.wait_until_entered()
            assert caller.outcome("2", **bearer(TOKENS["web"]))[0] == "RESOURCE_EXHAUSTED"
            assert caller.outcome("3", **bearer("wrong"))[0] == "UNAUTHENTICATED"
            assert caller.outcome("4")[0] == "UNAUTHENTICATED"
            model.let_go()
            answer: Any = protos.Output.FromString(held.result())
            assert answer.value == "<hold>"
        assert model.calls == ["hold"]


def test_the_log_has_the_caller_and_never_a_token(tokens, caplog):
    """The line of a call has the name of its caller; refused ones are counted in a line, and are lines at DEBUG."""
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("mlflow_grpc.call")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    secret = "a-secret-that-nobody-knows"
    try:
        with echo(auth_tokens=tokens) as server, Caller(server.address) as caller:
            caller("x", **bearer(TOKENS["batch"]))
            for _ in range(3):
                caller.outcome("x", **bearer(secret))
        logs.calls.flush()
    finally:
        logger.setLevel(before)
    lines = [(record.msg, record.fields) for record in caplog.records if hasattr(record, "fields")]
    called = [fields for message, fields in lines if message == "call"]
    assert [(fields["status"], fields.get("caller")) for fields in called] == [
        ("OK", "batch"),
        *[("UNAUTHENTICATED", None)] * 3,
    ]
    (counted,) = [fields for message, fields in lines if message == "refused"]
    assert (counted["calls"], counted["status"], counted["reason"]) == (3, "UNAUTHENTICATED", "UNAUTHENTICATED")
    assert counted["last_peer"] == called[-1]["peer"]
    everything = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert secret not in everything
    assert TOKENS["batch"] not in everything


def test_the_span_has_the_caller(tokens, collector):
    """The span of a call has the caller's name as enduser.id, and nothing of the token."""
    settings = {"auth_tokens": tokens, "otlp_endpoint": collector.url}
    with echo(**settings) as server, Caller(server.address) as caller:
        caller("x", **bearer(TOKENS["batch"]))
    (span,) = collector.wait_for("MLflow/predict")
    assert span.attributes["enduser.id"] == "batch"
    assert TOKENS["batch"] not in str(span)


def test_jwts(provider):
    """The subject of a valid JWT is the caller; each kind of invalid one has its own error class."""
    provider.add_key("other", "RS256")
    provider.add_key("secret", "ES256", is_published=False)
    with with_jwts(provider) as server, Caller(server.address) as caller:
        watching = server.start_task(server.server.watch)
        wait_for_keys(server)
        for kid in ("first", "other"):
            assert caller("x", **bearer(provider.sign(kid))) == "x"
        assert caller("x", **bearer(provider.sign(aud=["something", AUDIENCE]))) == "x"
        wrong = {
            "INVALID_JWT": [
                provider.sign(iss="https://evil.example"),
                provider.sign(aud="another"),
                provider.sign(exp=None),
                provider.sign(sub=None),
                provider.sign(aud=None),
                provider.sign(iss=None),
                provider.sign(exp="soon"),
                provider.sign()[:-4] + "AAAA",
                provider.sign("secret", headers={"kid": "first"}),
                "a.b.c",
            ],
            "EXPIRED": [provider.sign(exp=1)],
            "NOT_YET_VALID": [provider.sign(nbf=2**33)],
            "UNKNOWN_KEY": [provider.sign("secret")],
            "UNKNOWN_TOKEN": ["not-a-jwt"],
        }
        for error_class, texts in wrong.items():
            for text in texts:
                for _ in range(2):  # The second answer is remembered.
                    assert refusal(caller, "x", **bearer(text)) == ("UNAUTHENTICATED", "UNAUTHENTICATED", error_class)
        watching.cancel()


def wait_for_keys(server):
    source = server.server.host.gate._jwts._source
    server.wait_until(lambda: source.keys is not None)


def test_calls_do_not_wait_for_keys(provider):
    """Before the first keys, JWTs are UNAVAILABLE; later, a provider that hangs delays no call, known key or not."""
    provider.add_key("new", is_published=False)
    provider.may_answer.clear()
    with with_jwts(provider) as server, Caller(server.address) as caller:
        watching = server.start_task(server.server.watch)
        server.wait_until(lambda: provider.fetches == 1)
        assert caller.outcome("x", **bearer(provider.sign()), timeout=5)[0] == "UNAVAILABLE"
        provider.may_answer.set()
        wait_for_keys(server)
        provider.may_answer.clear()
        assert caller("x", **bearer(provider.sign()), timeout=5) == "x"
        assert refusal(caller, "x", **bearer(provider.sign("new")), timeout=5)[2] == "UNKNOWN_KEY"
        assert caller("x", **bearer(provider.sign(sub="bob")), timeout=5) == "x"
        watching.cancel()


RULES = (
    AccessRule(callers=("web",), models=("churn", "iris/2")),
    AccessRule(callers=("batch",), services=(Service.PREDICT,)),
    AccessRule(callers=("prom*",), services=(Service.METRICS,)),
)


@pytest.fixture
def ruled(tmp_path):
    """A server with three models, rules, and an HTTP port."""
    path = tmp_path / "tokens"
    path.write_text(lines_of({**TOKENS, "prometheus": "token-of-prometheus", "nobody": "token-of-nobody"}))
    models = tuple(
        ModelConfig(uri="(in process)", name=name, version=version, endpoint=True)
        for name, version in (("churn", "1"), ("iris", "1"), ("iris", "2"))
    )
    settings = Settings(model_uri="(in process)", port=0, http_port=0, auth_tokens=path)
    running = InProcess(settings, Configuration(models=models, access=RULES))
    running.start(None, None)

    async def host_all() -> None:
        for entry in running.server.catalog.entries:
            running.server.host.add(entry, ServableModel(FunctionModel(lambda text: text), PlainCodec()))
        running.server.open()

    running.run(host_all)
    yield running
    running.stop()


def test_rules_hold_for_the_open_inference_protocol_over_http(ruled):
    """A caller sees and calls the models that a rule for it names; others are 403, and not listed."""
    headers = bearer(TOKENS["web"])

    def status(path: str) -> int:
        return requests.get(f"{ruled.url}/v2/models/{path}", headers=headers, timeout=30).status_code

    for path in ("", "/config", "/stats"):
        assert [status(f"{name}{path}") for name in ("churn", "iris/versions/2", "iris/versions/1")] == [200, 200, 403]
    index = requests.post(f"{ruled.url}/v2/repository/index", headers=headers, timeout=30).json()
    assert [(model["name"], model["version"]) for model in index] == [("churn", "1"), ("iris", "2")]
    statistics = requests.get(f"{ruled.url}/v2/models/stats", headers=headers, timeout=30).json()["model_stats"]
    assert [(model["name"], model["version"]) for model in statistics] == [("churn", "1"), ("iris", "2")]
    infer = f"{ruled.url}/v2/models/iris/versions/1/infer"
    assert requests.post(infer, data="{}", headers=headers, timeout=30).status_code == 403


def test_rules_decide_who_calls_which_model(ruled):
    """A caller calls the models that a rule for it names, all models without names, and none without a rule."""

    def outcome(caller, name, model):
        return caller.outcome("x", mlflow_model=model, **bearer({**TOKENS, "nobody": "token-of-nobody"}[name]))[0]

    with Caller(ruled.address) as caller:
        called = {
            (name, model): outcome(caller, name, model)
            for name in ("web", "batch", "nobody")
            for model in ("churn", "iris/1", "iris/2")
        }
        assert {pair for pair, status in called.items() if status == "OK"} == {
            ("web", "churn"),
            ("web", "iris/2"),
            *(("batch", model) for model in ("churn", "iris/1", "iris/2")),
        }
        assert {status for status in called.values() if status != "OK"} == {"PERMISSION_DENIED"}
        denied = refusal(caller, "x", mlflow_model="iris/1", **bearer(TOKENS["web"]))
        assert denied == ("PERMISSION_DENIED", "PERMISSION_DENIED", "NOT_PERMITTED")
        assert caller.outcome("x", mlflow_model="iris/1", **bearer(TOKENS["web"]))[1] == (
            "The caller web may not call the model iris. The operator of the server allows it in the key access of the "
            "configuration file."
        )


def test_rules_decide_who_sees_what(ruled):
    """A caller sees the models that it may; without the service it sees none, over gRPC and HTTP."""
    response_class = protos.message_named("mlflow_grpc.v1.ListModelsResponse")
    with Caller(ruled.address) as caller:
        listed = response_class.FromString(raw(caller, LIST, **bearer(TOKENS["web"]))).models
        assert [(model.name, model.version) for model in listed] == [("churn", "1"), ("iris", "2")]
        request = protos.message_named("mlflow_grpc.v1.GetModelRequest")(name="iris", version="1")
        assert refusal(raw, caller, GET, request.SerializeToString(), **bearer(TOKENS["web"]))[0] == "PERMISSION_DENIED"
        assert refusal(raw, caller, LIST, **bearer(TOKENS["batch"]))[0] == "PERMISSION_DENIED"
    over_http = requests.get(f"{ruled.url}/models", headers=bearer(TOKENS["web"]), timeout=30).json()["models"]
    assert [(model["name"], model["version"]) for model in over_http] == [("churn", "1"), ("iris", "2")]


def test_rules_decide_who_reloads_which_model(ruled):
    """A caller reloads the models of a rule with the service reload; to see or to call them is not enough."""
    load = protos.message_named("inference.RepositoryModelLoadRequest")
    path = "/inference.GRPCInferenceService/RepositoryModelLoad"
    with Caller(ruled.address) as caller:
        churn, iris = (load(model_name=name).SerializeToString() for name in ("churn", "iris"))
        assert refusal(raw, caller, path, churn)[0] == "UNAUTHENTICATED"
        assert refusal(raw, caller, path, churn, **bearer(TOKENS["batch"]))[2] == "NOT_PERMITTED"
        assert refusal(raw, caller, path, iris, **bearer(TOKENS["web"]))[2] == "NOT_PERMITTED"  # It has iris/2 only.
        assert refusal(raw, caller, path, churn, **bearer(TOKENS["web"]))[0] == "UNAVAILABLE"  # Allowed, but starting.


def test_rules_hold_for_every_protocol(ruled):
    """The Open Inference Protocol and Arrow Flight have the same rules: what may be called, and what may be seen."""
    names = ("ModelInferRequest", "ModelMetadataRequest", "RepositoryIndexRequest", "RepositoryIndexResponse")
    infer, metadata, index, indexed = (protos.message_named(f"inference.{name}") for name in names)
    service = "/inference.GRPCInferenceService"
    web = bearer(TOKENS["web"])
    with Caller(ruled.address) as caller:
        assert raw(caller, f"{service}/ServerLive")
        for name in (
            "ModelReady",
            "ModelInfer",
            "ServerMetadata",
            "ModelMetadata",
            "RepositoryIndex",
            "ModelStatistics",
        ):
            assert refusal(raw, caller, f"{service}/{name}")[0] == "UNAUTHENTICATED"
        denied = infer(model_name="iris", model_version="1").SerializeToString()
        assert refusal(raw, caller, f"{service}/ModelInfer", denied, **web)[2] == "NOT_PERMITTED"
        allowed = infer(model_name="iris", model_version="2").SerializeToString()
        assert refusal(raw, caller, f"{service}/ModelInfer", allowed, **web)[0] != "PERMISSION_DENIED"
        denied = metadata(name="iris", version="1").SerializeToString()
        assert refusal(raw, caller, f"{service}/ModelMetadata", denied, **web)[2] == "NOT_PERMITTED"
        models = indexed.FromString(
            raw(caller, f"{service}/RepositoryIndex", index().SerializeToString(), **web)
        ).models
        assert [(model.name, model.version) for model in models] == [("churn", "1"), ("iris", "2")]

        flight = "/arrow.flight.protocol.FlightService"
        descriptor = protos.message_named("arrow.flight.protocol.FlightDescriptor")
        path = descriptor(type=descriptor.PATH, path=["iris", "1"]).SerializeToString()
        assert refusal(raw, caller, f"{flight}/GetSchema", path)[0] == "UNAUTHENTICATED"
        assert refusal(raw, caller, f"{flight}/GetSchema", path, **web)[2] == "NOT_PERMITTED"
        data = protos.message_named("arrow.flight.protocol.FlightData")
        first = data(flight_descriptor=descriptor.FromString(path)).SerializeToString()
        exchange: Any = caller.channel.stream_stream(f"{flight}/DoExchange")
        assert refusal(lambda: list(exchange(iter([first]), timeout=20)))[0] == "UNAUTHENTICATED"
        sent = tuple(web.items())
        assert refusal(lambda: list(exchange(iter([first]), timeout=20, metadata=sent)))[2] == "NOT_PERMITTED"


def test_refusals_are_counted_by_reason(ruled):
    """The metric has a series for each reason, whatever callers send; a caller with the service metrics may scrape."""
    with Caller(ruled.address) as caller:
        for number in range(20):
            caller.outcome("x", **bearer(f"wrong-{number}"))
        caller.outcome("x")
        caller.outcome("x", mlflow_model="iris/1", **bearer(TOKENS["web"]))
    assert requests.get(f"{ruled.url}/metrics", timeout=30).status_code == 401
    text = requests.get(f"{ruled.url}/metrics", headers=bearer("token-of-prometheus"), timeout=30).text
    counted = dict(
        line.removeprefix('mlflow_grpc_refused_callers_total{reason="').split('"} ')
        for line in text.splitlines()
        if line.startswith("mlflow_grpc_refused_callers_total")
    )
    assert {reason: count for reason, count in counted.items() if count != "0"} == {
        "UNKNOWN_TOKEN": "20",
        "NO_CREDENTIALS": "2",
        "NOT_PERMITTED": "1",
    }


def test_metrics_have_no_such_series_without_authentication():
    """A server without authentication has no metric of refused callers."""
    with echo(http_port=0) as server:
        assert "refused_callers" not in Scrape(server.url).text


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "tls")


def credentials(authority, files):
    cert, key = files
    return grpc.ssl_channel_credentials(authority.ca.read_bytes(), key.read_bytes(), cert.read_bytes())


def mutual(authority, **settings):
    cert, key = authority.server()
    return {"tls_cert": cert, "tls_key": key, "tls_client_ca": authority.ca, **settings}


def test_names_in_certificates(authority, tokens):
    """SPIFFE ids and DNS names that fit a pattern call, by their name; others, and common names, do not.

    A certificate does not make a wrong token good, and a token replaces the name of the certificate.
    """
    spiffe = "spiffe://example.org/ns/prod/sa/web"
    prod = authority.client(x509.UniformResourceIdentifier(spiffe))
    dev = authority.client(x509.UniformResourceIdentifier("spiffe://example.org/ns/dev/sa/web"))
    several = authority.client(x509.DNSName("other.example"), x509.DNSName("batch.clients.example"))
    nameless = authority.client(common_name="batch.clients.example")
    patterns = "spiffe://example.org/ns/prod/*, *.clients.example"
    rules = (AccessRule(callers=(spiffe, "batch.clients.example", "web")),)
    settings = mutual(authority, auth_tls_san=patterns, auth_tokens=tokens)
    running = InProcess(
        Settings(model_uri="(in process)", model_name="m", port=0, **settings),
        Configuration(models=(ModelConfig(uri="(in process)", name="m", endpoint=True),), access=rules),
    )
    running.start(FunctionModel(lambda text: text), PlainCodec())
    try:
        for files, expected in ((prod, "OK"), (several, "OK"), (dev, "UNAUTHENTICATED"), (nameless, "UNAUTHENTICATED")):
            with Caller(running.address, credentials(authority, files)) as caller:
                assert caller.outcome("x")[0] == expected
                assert caller.outcome("x", **bearer("wrong"))[0] == "UNAUTHENTICATED"
                assert caller.outcome("x", **bearer(TOKENS["web"]))[0] == "OK"
                assert caller.outcome("x", **bearer(TOKENS["batch"]))[0] == "PERMISSION_DENIED"
    finally:
        running.stop()


def test_only_certificates(authority):
    """Without tokens, the error for another certificate is about its names."""
    other = authority.client(x509.DNSName("other.example"))
    with (
        echo(**mutual(authority, auth_tls_san="*.clients.example")) as server,
        Caller(server.address, credentials(authority, other)) as caller,
    ):
        assert refusal(caller, "x")[2] == "WRONG_CERTIFICATE"
