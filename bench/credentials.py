"""The token and the key of the scenarios with policies, and what contenders need to check them."""

import base64
import functools
import json
import os
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rhumb" / "bench"
KEY = CACHE / "certs" / "jwt.key"
PUBLIC = CACHE / "certs" / "jwt.pub"

ISSUER = "https://id.bench.test"
AUDIENCE = "api"
ORIGIN = "https://app.example.test"
API_KEY = "bench-4f9d2c7a1e6b8035-key"
# Far beyond any run; what is measured is not how a limit refuses.
LIMIT_PER_SECOND = 1_000_000


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def openssl(*arguments: str, content: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=content, capture_output=True, check=True).stdout


def ensure_key() -> None:
    if not PUBLIC.exists():
        KEY.parent.mkdir(parents=True, exist_ok=True)
        openssl("genrsa", "-out", str(KEY), "2048")
        openssl("rsa", "-in", str(KEY), "-pubout", "-out", str(PUBLIC))


@functools.cache
def jwt_token() -> str:
    """RS256, as most issuers sign."""
    ensure_key()
    header = {"alg": "RS256", "typ": "JWT", "kid": "bench"}
    claims = {"iss": ISSUER, "aud": [AUDIENCE], "sub": "user-17", "role": "reader", "iat": 1_700_000_000, "exp": 4_000_000_000}
    signed = ".".join(encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return f"{signed}.{encoded(openssl('dgst', '-sha256', '-sign', str(KEY), content=signed.encode()))}"


@functools.cache
def jwks() -> dict:
    ensure_key()
    text = openssl("rsa", "-pubin", "-in", str(PUBLIC), "-noout", "-modulus").decode()
    modulus = bytes.fromhex(text.strip().removeprefix("Modulus="))
    return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "bench", "n": encoded(modulus), "e": "AQAB"}]}
