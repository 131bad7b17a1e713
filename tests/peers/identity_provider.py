"""An identity provider for tests: tokens by PyJWT, password hashes by bcrypt and argon2-cffi.

    identity_provider.py STATE_DIRECTORY PORT

Keys live in STATE_DIRECTORY, so that the server can end and come back. Requests are POST with JSON:

    /token    {alg, kid?, headers?, claims}: a token that PyJWT signs with the key of that algorithm
    /craft    {header, claims, sign}: header and claims are JSON text, taken as they are; sign is a key, "public" (HMAC with
              the public key as secret), "empty" or "none"
    /rotate   {}: new keys, and the old ones are not published any more
    /hash     {password, kind}: bcrypt or argon2
    /hmac     {secret, text, hash}: base64 of an HMAC
    /sign     {algorithm, method, url, headers, components, secret?}: Signature-Input and Signature of RFC 9421, as
              http-message-signatures makes them
    /public   {key}: a public key in PEM
    /next     {claims}: what the next ID token says otherwise than it would; what is null is left out

and, as a form, /oauth/token (RFC 6749 §4.1.3, with PKCE: RFC 7636) for codes of GET /oauth/authorize, which asks nobody.

and GET /keys, /.well-known/openid-configuration, /hits (how often /keys was asked for).
"""

import base64
import hashlib
import hmac
import http.server
import json
import pathlib
import secrets
import sys
import time
import urllib.parse

import argon2
import bcrypt
import http_message_signatures
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

STATE = pathlib.Path(sys.argv[1])
PORT = int(sys.argv[2])
ISSUER = f"http://127.0.0.1:{PORT}"
MAKERS = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
KEY_OF = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}
HITS = 0
CODES = {}
NEXT = {}


def generation():
    path = STATE / "generation"
    return path.read_text() if path.exists() else "0"


def key(name):
    path = STATE / f"{name}-{generation()}.pem"
    if not path.exists():
        private = MAKERS[name]()
        path.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return serialization.load_pem_private_key(path.read_bytes(), None)


def public_pem(name):
    return key(name).public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def jwks():
    algorithms = get_default_algorithms()
    of = {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
    keys = []
    for name, algorithm in of.items():
        jwk = algorithms[algorithm].to_jwk(key(name).public_key(), as_dict=True)
        jwk.update(kid=f"{name}-{generation()}", use="sig")
        jwk.pop("key_ops", None)
        keys.append(jwk)
    return {"keys": keys}


def token(ask):
    algorithm = ask["alg"]
    name = KEY_OF.get(algorithm, "RSA")
    headers = {"kid": ask.get("kid", f"{name}-{generation()}")} | ask.get("headers", {})
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "api", "sub": "ann", "iat": now, "exp": now + 300} | ask.get("claims", {})
    claims = {name: value for name, value in claims.items() if value is not None}
    secret = ask.get("secret")
    return jwt.encode(claims, secret if secret else key(name), algorithm=algorithm, headers=headers)


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def craft(ask):
    now = int(time.time())
    claims = ask["claims"].replace("$ISSUER", ISSUER).replace('"$EXP"', str(now + 300))
    header = ask["header"].replace("$KID", f"RSA-{generation()}")
    signed = f"{encode(header.encode())}.{encode(claims.encode())}"
    sign = ask["sign"]
    if sign == "none":
        return signed + "."
    if sign == "public":
        signature = hmac.digest(public_pem("RSA"), signed.encode(), "sha256")
    elif sign == "empty":
        signature = hmac.digest(b"", signed.encode(), "sha256")
    else:
        signature = get_default_algorithms()[sign].sign(signed.encode(), key(KEY_OF.get(sign, "RSA")))
    return f"{signed}.{encode(signature)}"


class Request:
    def __init__(self, ask):
        self.method = ask["method"]
        self.url = ask["url"]
        self.headers = ask["headers"]
        self.body = None


def sign(ask):
    """The private key of an algorithm is the one that PyJWT signs with."""
    name = ask["algorithm"]
    of = {"ED25519": "Ed25519", "ECDSA_P256_SHA256": "P-256", "ECDSA_P384_SHA384": "P-384"}

    class Resolver(http_message_signatures.HTTPSignatureKeyResolver):
        def resolve_private_key(self, key_id):
            return ask["secret"].encode() if name == "HMAC_SHA256" else key(of.get(name, "RSA"))

        resolve_public_key = resolve_private_key

    signer = http_message_signatures.HTTPMessageSigner(
        signature_algorithm=getattr(http_message_signatures.algorithms, name), key_resolver=Resolver()
    )
    request = Request(ask)
    signer.sign(request, key_id="caller", covered_component_ids=ask["components"], label="sig1")
    return "".join(f"{field}: {request.headers[field]}\r\n" for field in ("Signature-Input", "Signature"))


def password_hash(ask):
    password = ask["password"].encode()
    if ask["kind"] == "bcrypt":
        return bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()
    return argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(password)


def answer(path, ask):
    global HITS
    if path == "/keys":
        HITS += 1
        return json.dumps(jwks())
    if path == "/.well-known/openid-configuration":
        return json.dumps(
            {
                "issuer": ISSUER,
                "jwks_uri": f"{ISSUER}/keys",
                "authorization_endpoint": f"{ISSUER}/oauth/authorize",
                "token_endpoint": f"{ISSUER}/oauth/token",
            }
        )
    if path == "/next":
        NEXT.clear()
        NEXT.update(ask["claims"])
        return ""
    if path == "/hits":
        return str(HITS)
    if path == "/token":
        return token(ask)
    if path == "/craft":
        return craft(ask)
    if path == "/rotate":
        (STATE / "generation").write_text(str(int(generation()) + 1))
        return ""
    if path == "/hash":
        return password_hash(ask)
    if path == "/hmac":
        digest = hmac.digest(ask["secret"].encode(), ask["text"].encode(), ask["hash"])
        return base64.b64encode(digest).decode()
    if path == "/sign":
        return sign(ask)
    if path == "/public":
        return public_pem(ask["key"]).decode()
    return None


def authorize(query):
    asked = {name: values[0] for name, values in urllib.parse.parse_qs(query).items()}
    assert asked["code_challenge_method"] == "S256" and asked["response_type"] == "code", asked
    code = secrets.token_urlsafe(16)
    CODES[code] = asked
    back = {"code": code, "state": asked["state"], "iss": ISSUER}
    return f"{asked['redirect_uri']}?{urllib.parse.urlencode(back)}"


def redeem(form, authorization):
    """The answer of the token endpoint: status and content."""
    given = {name: values[0] for name, values in urllib.parse.parse_qs(form).items()}
    asked = CODES.pop(given.get("code"), None)
    expected = base64.b64encode(f"{urllib.parse.quote('rhumb')}:{urllib.parse.quote('the secret')}".encode()).decode()
    if asked is None or authorization != f"Basic {expected}":
        return 400, json.dumps({"error": "invalid_client" if asked else "invalid_grant"})
    verifier = encode(hashlib.sha256(given["code_verifier"].encode()).digest())
    if verifier != asked["code_challenge"] or given["redirect_uri"] != asked["redirect_uri"]:
        return 400, json.dumps({"error": "invalid_grant"})
    claims = {"aud": asked["client_id"], "nonce": asked["nonce"]} | NEXT
    id_token = token({"alg": "RS256", "claims": claims})
    return 200, json.dumps({"access_token": "opaque", "token_type": "Bearer", "id_token": id_token})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, ask):
        text = answer(self.path, ask)
        content = (text or "").encode()
        self.send_response(404 if text is None else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path != "/oauth/authorize":
            return self.reply({})
        self.send_response(302)
        self.send_header("location", authorize(query))
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self):
        if self.path == "/oauth/token":
            form = self.rfile.read(int(self.headers["content-length"])).decode()
            status, text = redeem(form, self.headers["authorization"])
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())
            return
        self.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
