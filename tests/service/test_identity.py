"""Tokens of an identity provider: taken when all about them is right, and told what is wrong otherwise."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from app.auth.access import InvalidTokenError
from app.auth.identity import LEEWAY, LONGEST_TOKEN, Provider
from app.auth.keys import LIFETIME, PAUSE, FetchedKeys, KeyFile, KeysUnavailableError
from app.settings import ProviderSettings, SettingError
from tests.service.api import Api, assert_problem

_ISSUER, _AUDIENCE = "https://id.example.com", "chrononaut"
_RSA = rsa.generate_private_key(65537, 2048)
_EC = ec.generate_private_key(ec.SECP256R1())
_ED = ed25519.Ed25519PrivateKey.generate()
_JWKS: dict[str, dict[str, Any]] = {
    "rsa": json.loads(RSAAlgorithm.to_jwk(_RSA.public_key())) | {"use": "sig", "alg": "RS256"},
    "ec": json.loads(ECAlgorithm.to_jwk(_EC.public_key())),
    "ed": json.loads(OKPAlgorithm.to_jwk(_ED.public_key())),
}
_SIGNERS: dict[str, tuple[Any, str]] = {"rsa": (_RSA, "RS256"), "ec": (_EC, "ES256"), "ed": (_ED, "EdDSA")}


def _jwk_set(*key_ids: str) -> str:
    return json.dumps({"keys": [_JWKS[key_id] | {"kid": key_id} for key_id in key_ids]})


def _claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token; of what is changed ``None`` leaves one out."""
    good = {"iss": _ISSUER, "aud": _AUDIENCE, "sub": "42", "exp": int(time.time()) + 300}
    good |= {"email": "ada@example.com", "email_verified": True}
    return {name: value for name, value in (good | {"scope": "write"} | changed).items() if value is not None}


def _token(signer: str = "rsa", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    key, algorithm = _SIGNERS[signer]
    return jwt.encode(_claims(**claims), key, algorithm, headers={"kid": signer} | (headers or {}))


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _made(header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token that no library would make."""
    content = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(_claims()).encode())}"
    return f"{content}.{_encoded(sign(content.encode()))}"


def _hmac_with_public_key(content: bytes) -> bytes:
    public = _RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hmac.new(public, content, hashlib.sha256).digest()


def _provider(key_file: Path, *claims: str) -> Provider:
    return Provider.of(ProviderSettings(_ISSUER, _AUDIENCE, str(key_file), *claims))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(_jwk_set("rsa", "ec", "ed"))
    return path


@pytest.fixture
def provider(key_file: Path) -> Provider:
    return _provider(key_file)


@pytest.mark.parametrize("signer", _SIGNERS)
def test_token_of_the_provider_is_taken(provider: Provider, signer: str) -> None:
    principal = provider.principal(_token(signer))
    assert (principal.get_id(), str(principal.grants)) == ("ada@example.com", "write")


@pytest.mark.parametrize(
    "changed",
    [
        lambda: {"aud": ["another", _AUDIENCE]},
        lambda: {"exp": int(time.time()) - LEEWAY // 3},
        lambda: {"nbf": int(time.time()) + LEEWAY // 3},
        lambda: {"headers": {"typ": "at+jwt"}},
    ],
)
def test_what_is_right_enough_is_taken(provider: Provider, changed: Callable[[], dict[str, Any]]) -> None:
    assert provider.principal(_token(**changed())).email == "ada@example.com"


_WRONG: dict[str, tuple[Callable[[], str], str]] = {
    "expired": (lambda: _token(exp=int(time.time()) - 2 * LEEWAY), "has expired"),
    "not yet valid": (lambda: _token(nbf=int(time.time()) + 2 * LEEWAY), "not valid yet"),
    "made in the future": (lambda: _token(iat=int(time.time()) + 2 * LEEWAY), "not valid yet"),
    "another audience": (lambda: _token(aud="another"), "for another audience"),
    "another issuer": (lambda: _token(iss="https://evil.example.com"), "of another issuer"),
    "an issuer that only begins so": (lambda: _token(iss=f"{_ISSUER}.evil.org"), "of another issuer"),
    "no exp": (lambda: _token(exp=None), "lacks the claim exp"),
    "no aud": (lambda: _token(aud=None), "lacks the claim aud"),
    "no iss": (lambda: _token(iss=None), "lacks the claim iss"),
    "exp that is no number": (lambda: _token(exp="never"), "no JWT"),
    "no user": (lambda: _token(email=None, sub=None), "does not name its user"),
    "an empty user": (lambda: _token(email=""), "does not name its user"),
    "a user of two lines": (lambda: _token(email="a\nb"), "does not name its user"),
    "a user that is too long": (lambda: _token(email="a" * 255), "does not name its user"),
    "a user that is no text": (lambda: _token(email=["ada@example.com"]), "does not name its user"),
    "unknown kid": (lambda: _token(headers={"kid": "another"}), "no key of the token's kid"),
    "kid of another key": (lambda: _token(headers={"kid": "ec"}), "another algorithm"),
    "no kid": (lambda: jwt.encode(_claims(), _RSA, "RS256"), "does not name its key"),
    "kid that is no text": (lambda: _made({"alg": "RS256", "kid": 7}, _RSA_NOTHING), "no JWT"),
    "another type": (lambda: _token(headers={"typ": "logout+jwt"}), "of another type"),
    "an extension that must be known": (lambda: _token(headers={"crit": ["x"], "x": 1}), "no JWT"),
    "signed by another key": (
        lambda: jwt.encode(_claims(), rsa.generate_private_key(65537, 2048), "RS256", headers={"kid": "rsa"}),
        "signature of the token is wrong",
    ),
    "changed after it was signed": (
        lambda: ".".join([_token().split(".")[0], _encoded(json.dumps(_claims(scope="admin")).encode()), "AAAA"]),
        "signature of the token is wrong",
    ),
    "none": (lambda: _made({"alg": "none", "kid": "rsa"}, lambda _: b""), "is not signed with one of"),
    "None": (lambda: _made({"alg": "nOnE", "kid": "rsa"}, lambda _: b""), "is not signed with one of"),
    "HMAC with the public key": (
        lambda: _made({"alg": "HS256", "kid": "rsa"}, _hmac_with_public_key),
        "is not signed with one of",
    ),
    "no algorithm": (lambda: _made({"kid": "rsa"}, lambda _: b""), "is not signed with one of"),
    "another algorithm of the same key": (
        lambda: jwt.encode(_claims(), _RSA, "PS256", headers={"kid": "rsa"}),
        "another algorithm",
    ),
    "too long": (lambda: _token(more="x" * LONGEST_TOKEN), "has more than"),
    "no base64": (lambda: "a.b.c", "no JWT"),
    "no JSON": (lambda: "YQ.YQ.YQ", "no JWT"),
    "too deep": (lambda: f"{_encoded(b'[' * 5000)}.YQ.YQ", "no JWT"),
    "empty": (lambda: "..", "no JWT"),
    "no ASCII": (lambda: "ä.ö.ü", "no JWT"),
}


def _RSA_NOTHING(_: bytes) -> bytes:  # noqa: N802  a signature by the RSA key of nothing
    return b"nothing"


@pytest.mark.parametrize("name", _WRONG)
def test_wrong_token_is_refused_with_what_is_wrong(provider: Provider, name: str) -> None:
    make, reason = _WRONG[name]
    with pytest.raises(InvalidTokenError, match=reason) as refused:
        provider.principal(make())
    # What stands in a header, between quotes (RFC 6750, section 3).
    assert all(" " <= character <= "~" and character not in '"\\' for character in str(refused.value))


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        ({"email_verified": True}, "ada@example.com"),
        ({"email_verified": False}, "42"),
        ({"email_verified": None}, "42"),
        ({"email_verified": []}, "42"),
        ({"email": None}, "42"),
    ],
)
def test_user_is_the_email_only_where_it_is_verified(provider: Provider, claims: dict[str, Any], user: str) -> None:
    assert provider.principal(_token(**claims)).email == user


def test_claims_of_user_and_grants_can_be_others(key_file: Path) -> None:
    provider = _provider(key_file, "preferred_username", "https://example.com/roles")
    claims: dict[str, Any] = {"preferred_username": "ada", "https://example.com/roles": ["read"]}
    principal = provider.principal(_token(**claims))
    assert (principal.email, str(principal.grants)) == ("ada", "read")
    with pytest.raises(InvalidTokenError, match="preferred_username"):
        provider.principal(_token())


@pytest.mark.parametrize(
    ("scope", "grants"),
    [
        ("openid profile read", "read"),
        ("release:write user:read", "release:write user:read"),
        (["read", "release:write", "files.read", 7, None], "read release:write"),
        ("", ""),
        (None, ""),
        ({"read": True}, ""),
        (7, ""),
    ],
)
def test_words_of_other_services_grant_nothing(provider: Provider, scope: Any, grants: str) -> None:
    assert str(provider.principal(_token(scope=scope)).grants) == grants


def test_weak_key_is_refused(key_file: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    key_file.write_text(json.dumps({"keys": [json.loads(RSAAlgorithm.to_jwk(weak.public_key())) | {"kid": "weak"}]}))
    provider = _provider(key_file)
    token = _made({"alg": "RS256", "kid": "weak"}, lambda _: b"a")
    with pytest.raises(InvalidTokenError, match="too weak"):
        provider.principal(token)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "holds no JSON"),
        ("[" * 100_000, "holds no JSON"),
        ("[]", "holds no JWK Set"),
        ('{"keys": {}}', "holds no JWK Set"),
        ('{"keys": []}', "holds no public key"),
        (json.dumps({"keys": [_JWKS["rsa"]]}), "holds no public key"),
        (json.dumps({"keys": [_JWKS["rsa"] | {"kid": "a", "use": "enc"}]}), "holds no public key"),
        (json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}, 7]}), "holds no public key"),
        (json.dumps({"keys": [json.loads(RSAAlgorithm.to_jwk(_RSA)) | {"kid": "a"}]}), "holds no public key"),
        (" " * (256 * 1024) + _jwk_set("rsa"), "more than 262144 bytes"),
    ],
)
def test_file_without_keys_that_verify_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(SettingError, match=f"CHRONONAUT_JWT_JWKS must be the path of a JWK Set .*{message}"):
        _provider(path)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        _provider(tmp_path / "keys.json")


def test_file_is_read_again_when_it_has_changed(key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyFile(key_file)
    key_file.write_text(_jwk_set("ec"))
    assert keys.find("rsa") is None
    key_file.write_text("{")
    assert keys.find("ec") is not None
    assert "the keys that it held before are used" in caplog.text
    key_file.unlink()
    assert keys.find("ec") is not None
    key_file.write_text(_jwk_set("rsa"))
    assert keys.find("rsa") is not None


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class _KeyServer(ThreadingHTTPServer):
    """A provider's keys on loopback: what it answers can be changed, and what it was asked is counted."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.asked: list[str] = []
        self.status, self.content, self.location = 200, _jwk_set("rsa"), ""
        self.release = threading.Event()
        self.release.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/keys"


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _KeyServer)
        server.asked.append(self.path)
        server.release.wait(60)
        self.send_response(server.status)
        if server.location:
            self.send_header("Location", server.location)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that it has in the standard library
        """Say nothing."""


@pytest.fixture
def key_server() -> Iterator[_KeyServer]:
    with _KeyServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


def test_keys_are_fetched_when_they_are_needed_and_kept(key_server: _KeyServer, clock: _Clock) -> None:
    keys = FetchedKeys(key_server.url, clock)
    assert key_server.asked == []
    for _ in range(3):
        assert keys.find("rsa") is not None
        clock.now += LIFETIME / 4
    assert key_server.asked == ["/keys"]
    clock.now += LIFETIME
    assert keys.find("rsa") is not None
    assert len(key_server.asked) == 2


def test_rotated_key_is_found_and_the_old_one_refused(key_server: _KeyServer, clock: _Clock) -> None:
    keys = FetchedKeys(key_server.url, clock)
    assert keys.find("rsa") is not None
    key_server.content = _jwk_set("ec")
    clock.now += PAUSE
    assert keys.find("ec") is not None
    assert keys.find("rsa") is None


def test_flood_of_unknown_keys_does_not_reach_the_provider(key_server: _KeyServer, clock: _Clock) -> None:
    keys = FetchedKeys(key_server.url, clock)
    for number in range(200):
        assert keys.find(f"random {number}") is None
    assert len(key_server.asked) == 1
    clock.now += PAUSE
    for number in range(200):
        assert keys.find(f"random {number}") is None
    assert len(key_server.asked) == 2


@pytest.mark.parametrize(("status", "content"), [(500, ""), (200, "{}"), (302, ""), (200, "x" * 300_000)])
def test_old_keys_are_used_while_no_new_ones_can_be_fetched(
    key_server: _KeyServer, clock: _Clock, caplog: pytest.LogCaptureFixture, status: int, content: str
) -> None:
    keys = FetchedKeys(key_server.url, clock)
    assert keys.find("rsa") is not None
    key_server.status, key_server.content, key_server.location = status, content, "/elsewhere"
    clock.now += LIFETIME + 1
    for _ in range(20):
        assert keys.find("rsa") is not None
    assert key_server.asked == ["/keys", "/keys"]
    assert "the keys that it gave before are used" in caplog.text


def test_provider_that_never_answered_is_asked_now_and_then(key_server: _KeyServer, clock: _Clock) -> None:
    keys = FetchedKeys(key_server.url, clock)
    key_server.status = 503
    for _ in range(20):
        with pytest.raises(KeysUnavailableError) as unavailable:
            keys.find("rsa")
        assert unavailable.value.retry_after == PAUSE
    assert len(key_server.asked) == 1
    key_server.status = 200
    clock.now += PAUSE
    assert keys.find("rsa") is not None


def test_who_has_a_key_does_not_wait_for_one_who_asks(key_server: _KeyServer, clock: _Clock) -> None:
    keys = FetchedKeys(key_server.url, clock)
    assert keys.find("rsa") is not None
    key_server.release.clear()
    clock.now += LIFETIME + 1
    asking = threading.Thread(target=keys.find, args=["rsa"])
    asking.start()
    while len(key_server.asked) < 2:
        time.sleep(0.001)
    assert keys.find("rsa") is not None
    assert asking.is_alive()
    key_server.release.set()
    asking.join()


def test_place_where_nobody_listens_gives_no_keys(clock: _Clock) -> None:
    with pytest.raises(KeysUnavailableError, match="cannot be fetched"):
        FetchedKeys("http://127.0.0.1:1/keys", clock).find("rsa")


def _settings(place: str) -> dict[str, str]:
    return {
        "CHRONONAUT_JWT_ISSUER": _ISSUER,
        "CHRONONAUT_JWT_AUDIENCE": _AUDIENCE,
        "CHRONONAUT_JWT_JWKS": place,
    }


def test_service_takes_tokens_of_the_provider_and_its_own(
    key_server: _KeyServer, app_with: Callable[..., Flask], write_token: str
) -> None:
    client = app_with(**_settings(key_server.url)).test_client()
    api, ours = Api(client, _token()), Api(client, write_token)
    created = api.post("/records/user", {"email": "b@example.com"}, why="Signed up")
    changes = ours.get(created["links"]["history"] + "/changes")["changes"]
    assert changes[0]["change_info"]["user_id"] == "ada@example.com"
    reader = Api(client, _token(scope="user:read"))
    assert reader.get(created["links"]["record"])["key"] == created["key"]
    response = reader.call("DELETE", created["links"]["record"])
    assert_problem(response, 403, "forbidden")
    assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]
    scheme = api.get("/openapi.json")["components"]["securitySchemes"]["token"]
    assert (scheme["scheme"], scheme["bearerFormat"]) == ("bearer", "JWT")
    assert _ISSUER in scheme["description"]


def test_answer_to_a_wrong_token_says_what_is_wrong(key_file: Path, app_with: Callable[..., Flask]) -> None:
    client = app_with(**_settings(str(key_file))).test_client()
    for token, reason in (
        (_token(exp=int(time.time()) - 2 * LEEWAY), "the token has expired"),
        (_token(aud="another"), "the token is for another audience"),
        ("a.b.c", "the token is no JWT"),
        ("chrononaut_a.b.c", "the token is unknown, expired or revoked"),
        ("nonsense", "the token is unknown, expired or revoked"),
    ):
        response = Api(client, token).call("GET", "/records/user")
        problem = assert_problem(response, 401, "unauthenticated")
        assert reason in problem["detail"]
        expected = f'Bearer realm="chrononaut", error="invalid_token", error_description="{reason}"'
        assert response.headers["WWW-Authenticate"] == expected
    response = client.get("/records/user")
    assert_problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="chrononaut"'


def test_service_cannot_tell_without_the_keys_of_the_provider(
    key_server: _KeyServer, app_with: Callable[..., Flask], read_token: str
) -> None:
    key_server.status = 500
    client = app_with(**_settings(key_server.url)).test_client()
    response = Api(client, _token()).call("GET", "/records/user")
    assert_problem(response, 503, "unavailable")
    assert 1 <= int(response.headers["Retry-After"]) <= PAUSE
    assert Api(client, read_token).get("/records/user")["records"] == []
