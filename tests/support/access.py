"""Callers for tests: files of tokens, an identity provider with a real endpoint for its keys, certificates with names.

An identity provider signs with keys of its own, and can be slow, wrong or away.
"""

import datetime as dt
import hashlib
import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import jwt
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.http_server import run_in_thread

ISSUER, AUDIENCE = "https://login.example.org", "models"

TOKENS = {"batch": "token-of-batch-0123456789", "web": "token-of-web-0123456789"}

MAKERS: dict[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS384": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def lines_of(tokens: dict[str, str]) -> str:
    """Returns the content of a file of tokens, made without the server's code."""
    return "".join(f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n" for name, token in tokens.items())


def bearer(token: str) -> dict[str, Any]:
    """Returns metadata, or headers, with a token."""
    return {"authorization": f"Bearer {token}"}


class IdentityProvider:
    """Signs JWTs, and publishes its keys over HTTP."""

    def __init__(self) -> None:
        self.private: dict[str, tuple[str, Any]] = {}
        self.listed: list[dict[str, Any]] = []
        self.fetches = 0
        self.answer: bytes | None = None
        """What is published instead of the keys; None for the keys."""
        self.may_answer = threading.Event()
        self.may_answer.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches += 1
                provider.may_answer.wait(60)
                body = provider.answer if provider.answer is not None else provider.document
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Writes nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    @property
    def document(self) -> bytes:
        return json.dumps({"keys": self.listed}).encode()

    def add_key(
        self, kid: str, algorithm: str = "ES256", *, is_published: bool = True, names_algorithm: bool = True
    ) -> None:
        """Makes a key, and publishes it."""
        key = MAKERS[algorithm]()
        self.private[kid] = (algorithm, key)
        if is_published:
            described = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
            named = {"alg": algorithm} if names_algorithm else {}
            self.listed.append({**described, "kid": kid, "use": "sig", **named})

    def sign(self, kid: str = "first", *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Returns a JWT that is valid for five minutes, with other claims where they are given; None leaves one out."""
        algorithm, key = self.private[kid]
        full = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 300, **claims}
        present = {name: value for name, value in full.items() if value is not None}
        return jwt.encode(present, key, algorithm=algorithm, headers={"kid": kid, **(headers or {})})

    def __enter__(self) -> Self:
        run_in_thread(self._server)
        return self

    def __exit__(self, *error: object) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()


class Authority:
    """An authority for certificates of servers and clients, with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def server(
        self,
        name: str = "server",
        *,
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
        is_of_child: bool = False,
    ) -> tuple[Path, Path]:
        """Returns the files of a new certificate for this machine, and of its key; with a chain of two if it is of a
        child of the authority.
        """
        issuer = self._authority.create_child_ca() if is_of_child else self._authority
        issued = issuer.issue_cert(
            "127.0.0.1", "localhost", common_name=name, not_before=not_before, not_after=not_after
        )
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return cert, key

    def write_key(self, file: Path) -> None:
        """Writes the key of the authority, with which other programs can issue certificates."""
        self._authority.private_key_pem.write_to_path(file)

    def client(self, *names: x509.GeneralName, common_name: str = "client") -> tuple[Path, Path]:
        """Returns the files of a certificate with subject alternative names, and of its key.

        trustme has no names that are URIs, such as SPIFFE ids.
        """
        signer = serialization.load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        issuer = x509.load_pem_x509_certificate(self._authority.cert_pem.bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
        stem = f"client-{certificate.serial_number}"
        cert_file, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}-key.pem"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_file, key_file


def common_name(address: str, authority: Authority, client: tuple[Path, Path]) -> str | bytes:
    """The name in the certificate that a port shows to a new connection, which names no server."""
    host, port = address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.load_cert_chain(*client)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        certificate = encrypted.getpeercert(binary_form=True)
    assert certificate is not None
    subject = x509.load_der_x509_certificate(certificate).subject
    return subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
