"""JWTs on an injected clock: when they expire, what is remembered, which keys and algorithms count."""

import json
import logging
import math
import socket
import threading

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from mlflow_grpc.access import jwts, keys
from mlflow_grpc.access.check_budget import SAVED_S, SHARE, CheckBudget
from mlflow_grpc.access.keys import KeySource
from mlflow_grpc.access.refusals import Refusal, Refused
from mlflow_grpc.access.tokens import digest_of
from mlflow_grpc.errors import CallerNotChecked
from tests.support.access import AUDIENCE, ISSUER, MAKERS, IdentityProvider

NOW = 1_000_000.0


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Checked:
    """A verifier with a clock and the keys of a provider."""

    def __init__(self, provider: IdentityProvider, location: str | None = None) -> None:
        self.clock = Clock()
        self.source = KeySource(location or provider.url)
        self.unknown = 0
        self.source.when_unknown = self._count
        self.verifier = jwts.JwtVerifier(ISSUER, [AUDIENCE], self.source, self.clock)

    def _count(self) -> None:
        self.unknown += 1

    def __call__(self, token: str) -> str:
        """Returns the caller's name, or the reason of the refusal."""
        try:
            return self.verifier.caller(token, digest_of(token))
        except Refused as refused:
            return refused.refusal.value


@pytest.fixture
def provider():
    with IdentityProvider() as running:
        running.add_key("first")
        yield running


@pytest.fixture
def checked(provider):
    made = Checked(provider)
    made.source.look()
    return made


def test_a_jwt_expires_to_the_second(provider, checked):
    """A JWT is valid before exp and not at it, although it was valid a moment ago; nbf may be 30 s ahead."""
    token = provider.sign(exp=NOW + 10)
    for at, expected in ((NOW, "alice"), (NOW + 9.9, "alice"), (NOW + 10, Refusal.EXPIRED)):
        checked.clock.now = at
        assert checked(token) == expected
    checked.clock.now = NOW
    assert checked(provider.sign(exp=NOW + 100, nbf=NOW + 30)) == "alice"
    assert checked(provider.sign(exp=NOW + 100, nbf=NOW + 31)) == Refusal.NOT_YET_VALID


def test_a_jwt_is_checked_again_after_a_minute(provider, checked, monkeypatch):
    """The signature is checked at most once a minute, of valid and of invalid JWTs, and after each change of keys."""
    checks: list[object] = []
    decode = jwt.decode

    def counted(token, *args, **more):
        checks.append(token)
        return decode(token, *args, **more)

    monkeypatch.setattr(jwt, "decode", counted)
    good, bad = provider.sign(exp=NOW + 1000), provider.sign(exp=NOW + 1000, aud="other")
    for at, count in ((NOW, 2), (NOW + 59, 2), (NOW + 61, 4)):
        checked.clock.now = at
        assert [checked(good), checked(bad), checked(good), checked(bad)] == ["alice", "INVALID_JWT"] * 2
        assert len(checks) == count
    provider.add_key("second")
    checked.source.look()
    assert checked(good) == "alice"
    assert len(checks) == 5


def test_what_is_remembered_has_a_limit(provider, checked, monkeypatch):
    """Any number of JWTs, valid or not, leaves a limited number of results."""
    monkeypatch.setattr(jwts, "MAX_REMEMBERED", 5)
    for number in range(12):
        assert checked(provider.sign(exp=NOW + 1000, sub=f"caller-{number}")) == f"caller-{number}"
        assert checked(provider.sign(exp=NOW + 1000, aud=f"other-{number}")) == Refusal.INVALID_JWT
    assert (len(checked.verifier._callers), len(checked.verifier._refused)) == (5, 5)


@pytest.mark.parametrize("algorithm", sorted(MAKERS))
@pytest.mark.parametrize("names_algorithm", [True, False])
def test_asymmetric_algorithms(algorithm, names_algorithm):
    """RSA, PSS, ECDSA and EdDSA keys work, whether or not the key names its algorithm."""
    with IdentityProvider() as provider:
        provider.add_key("key", algorithm, names_algorithm=names_algorithm)
        checked = Checked(provider)
        checked.source.look()
        assert checked(provider.sign("key", exp=NOW + 100)) == "alice"


def test_no_symmetric_algorithm_and_none_without_a_signature(provider, checked):
    """A JWT signed with the text of a public key as a secret is refused, as are `none` and a symmetric key of a JWKS."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "eve", "exp": NOW + 100}
    public = provider.private["first"][1].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    secret = "0123456789abcdef0123456789abcdef"
    symmetric = {"kty": "oct", "kid": "shared", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY", "alg": "HS256"}
    provider.listed.append(symmetric)
    checked.source.look()
    # PyJWT refuses to sign with a public key, so the signature is made by hand.
    import base64
    import hashlib
    import hmac

    def encoded(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = encoded({"alg": "HS256", "kid": "first"}) + b"." + encoded(claims)
    signature = base64.urlsafe_b64encode(hmac.digest(pem, signed, hashlib.sha256)).rstrip(b"=")
    assert checked((signed + b"." + signature).decode()) == Refusal.INVALID_JWT
    assert checked(jwt.encode(claims, secret, "HS256", headers={"kid": "shared"})) == Refusal.INVALID_JWT
    assert checked(jwt.encode(claims, "", "none")) == Refusal.INVALID_JWT


def test_times_of_any_size(provider, checked):
    """Signed times that no clock can have are refused, or are in the future, without an error of Python."""
    for claims in ({"exp": 10**400}, {"exp": -(10**400)}, {"exp": NOW + 10, "nbf": 10**400}, {"exp": math.nan}):
        assert checked(provider.sign(**claims)) in (Refusal.INVALID_JWT, Refusal.EXPIRED)


def test_texts_that_are_no_jwts(checked):
    """Any text is refused without an error of Python."""
    for text in ("a.b.c", "..", "\udcff.x.y", "e30.e30.e30", "bnVsbA.e30.e30", "W10.W10.W10", "x" * 20_000 + ".y.z"):
        assert checked(text) in (Refusal.INVALID_JWT, Refusal.UNKNOWN_KEY)


def test_subjects_that_are_no_names(provider, checked):
    """A subject with spaces, control characters or any length cannot become a name in the log."""
    for subject in ("a b", "a\nb", "", "n" * 257):
        assert checked(provider.sign(exp=NOW + 100, sub=subject)) == Refusal.INVALID_JWT


def test_a_jwt_without_a_key_id(provider, checked):
    """A JWT that names no key is checked with the only key of its algorithm; of several keys, none is tried."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 100}
    token = jwt.encode(claims, provider.private["first"][1], "ES256")
    assert checked(token) == "alice"
    provider.add_key("second")
    checked.source.look()
    assert checked(token) == Refusal.UNKNOWN_KEY


def test_the_last_good_keys_stay(provider, checked, caplog):
    """A provider that is wrong or away changes nothing; a line says so once, and new keys count once they are there."""
    token = provider.sign(exp=NOW + 100)
    provider.add_key("second", is_published=False)
    later = provider.sign("second", exp=NOW + 100)
    caplog.set_level(logging.ERROR)
    for answer in (b"<html>", b'{"keys": []}', b'{"keys": 5}', b"x" * (keys.MAX_BYTES + 1)):
        provider.answer = answer
        caplog.clear()
        assert checked.source.look() == checked.source.look() == keys.RETRY_INTERVAL_S
        assert len(caplog.records) == 1
        assert "the previous keys stay valid" in caplog.text
        assert checked(token) == "alice"
    assert (checked(later), checked.unknown) == (Refusal.UNKNOWN_KEY, 1)
    provider.answer = None
    public = provider.private["second"][1].public_key()
    provider.listed.append({**jwt.get_algorithm_by_name("ES256").to_jwk(public, as_dict=True), "kid": "second"})
    assert checked.source.look() == keys.FETCH_INTERVAL_S
    assert checked(later) == "alice"


def test_keys_that_change_while_the_provider_is_away(caplog):
    """JWTs of the previous keys stay valid while nobody answers, those of a new key are refused, and count at once after
    the provider is back with it.
    """
    with IdentityProvider() as provider:
        provider.add_key("first")
        checked = Checked(provider)
        checked.source.look()
    before = provider.sign(exp=NOW + 1000)
    provider.add_key("second")
    after = provider.sign("second", exp=NOW + 1000)
    for _ in range(3):
        assert checked.source.look() == keys.RETRY_INTERVAL_S
        assert (checked(before), checked(after)) == ("alice", Refusal.UNKNOWN_KEY)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with IdentityProvider() as returned:
        returned.listed = provider.listed[1:]
        checked.source._location = returned.url
        assert checked.source.look() == keys.FETCH_INTERVAL_S
        assert (checked(before), checked(after)) == (Refusal.UNKNOWN_KEY, "alice")


@pytest.mark.parametrize(
    "sent",
    [
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot-a-length\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"name: value\r\n" * 200 + b"\r\n",
    ],
)
def test_a_provider_that_does_not_speak_http(sent, provider, checked, caplog):
    """The previous keys stay valid, one line says why without what was sent, and the next fetch is not earlier than after
    other failures.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(sent)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        checked.source._location = f"http://127.0.0.1:{listening.getsockname()[1]}/keys"
        caplog.clear()
        for _ in range(2):
            assert checked.source.look() == keys.RETRY_INTERVAL_S
        thread.join(10)
    (record,) = caplog.records
    assert "the previous keys stay valid" in record.message
    assert "the server does not answer with HTTP" in record.message
    assert record.exc_info is None
    assert checked(provider.sign(exp=NOW + 100)) == "alice"


def test_keys_in_a_file(provider, tmp_path):
    """A file of keys is read, and read again when it changes."""
    path = tmp_path / "keys.json"
    checked = Checked(provider, str(path))
    checked.source.look()
    with pytest.raises(CallerNotChecked):
        checked(provider.sign(exp=NOW + 100))
    path.write_bytes(provider.document)
    checked.source.look()
    assert checked(provider.sign(exp=NOW + 100)) == "alice"


def test_short_rsa_keys_do_not_count():
    """An RSA key of 1024 bits is not used."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    short = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - that it is refused is tested
    described = {**jwt.get_algorithm_by_name("RS256").to_jwk(short, as_dict=True), "kid": "short"}
    with pytest.raises(ValueError, match="no key for RSA"):
        keys.parse(json.dumps({"keys": [described]}).encode())


def test_forged_jwts_do_not_use_up_the_time_of_others(provider, checked, monkeypatch):
    """After a number of forged JWTs, only those that were valid before are checked, until some time has passed; also
    those whose memory is over, and after a change of keys. Valid ones do not use up the time.
    """
    clock, processor, decode = Clock(), Clock(), jwt.decode

    def costly(*args, **more):
        processor.now += SAVED_S / 100
        return decode(*args, **more)

    monkeypatch.setattr(jwt, "decode", costly)
    budget = CheckBudget(clock, processor)
    checked.verifier = jwts.JwtVerifier(ISSUER, [AUDIENCE], checked.source, checked.clock, budget)
    known, expired, later = (provider.sign(exp=NOW + exp) for exp in (1000, 50, 1001))
    start = known.rpartition(".")[0]
    forged = (f"{start}.{number:085}A" for number in range(1000))

    def checked_forged() -> int:
        """Returns the number of forged JWTs that are checked until one is not."""
        for number, token in enumerate(forged):
            try:
                assert checked(token) == Refusal.INVALID_JWT
            except CallerNotChecked:
                return number
        raise AssertionError("all were checked")

    assert {checked(provider.sign(exp=NOW + 100, jti=str(number))) for number in range(110)} == {"alice"}
    assert [checked(known), checked(expired)] == ["alice"] * 2
    assert checked_forged() == pytest.approx(100, abs=1)
    with pytest.raises(CallerNotChecked, match="Try again"):
        checked(later)
    assert checked(known) == "alice"
    checked.clock.now = NOW + 61
    assert [checked(known), checked(expired)] == ["alice", Refusal.EXPIRED]
    provider.add_key("second")
    checked.source.look()
    assert checked(known) == "alice"
    clock.now += 10 * SAVED_S / 100 / SHARE
    assert checked(later) == "alice"
    assert checked_forged() == pytest.approx(9, abs=1)  # The expired JWT took the time of one.
    clock.now += 1000.0
    assert checked_forged() == pytest.approx(100, abs=1)
