"""What a Kubernetes API server says about its service accounts: OpenID Connect discovery over HTTPS, for callers that have a token.

cluster_peer.py serve STATE CERTIFICATE KEY PORT     serves what is published in the directory STATE
cluster_peer.py publish STATE NAME...                from here on these are the keys
cluster_peer.py token STATE NAME ISSUER ACCOUNT      a token for the service account, signed with that key

Keys are made when they are first named. Callers show "of-the-control-plane", as with the role of service accounts.
"""

import http.server
import json
import pathlib
import ssl
import sys
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

does, state, *rest = sys.argv[1:]
STATE = pathlib.Path(state)


def key(name):
    path = STATE / f"{name}.pem"
    if path.exists():
        return serialization.load_pem_private_key(path.read_bytes(), None)
    made = rsa.generate_private_key(65537, 2048)
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(made.private_bytes(*kinds))
    return made


def publish(names):
    keys = []
    for name in names:
        described = jwt.algorithms.RSAAlgorithm.to_jwk(key(name).public_key(), as_dict=True)
        keys.append({**described, "kid": name, "alg": "RS256", "use": "sig"})
    fresh = STATE / "keys.new"
    fresh.write_text(json.dumps({"keys": keys}))
    fresh.rename(STATE / "keys.json")


def token(name, issuer, account):
    subject = f"system:serviceaccount:default:{account}"
    times = {"iat": int(time.time()), "nbf": int(time.time()), "exp": int(time.time()) + 3600}
    claims = {"iss": issuer, "aud": ["rhumb"], "sub": subject, **times}
    print(jwt.encode(claims, key(name), "RS256", {"kid": name}), end="")


def serve(certificate, private_key, port):
    origin = f"https://localhost:{port}"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answers = {
                "/.well-known/openid-configuration": lambda: json.dumps(
                    {"issuer": origin, "jwks_uri": f"{origin}/openid/v1/jwks"}
                ),
                "/openid/v1/jwks": (STATE / "keys.json").read_text,
            }
            answer = answers.get(self.path)
            is_known = self.headers["Authorization"] == "Bearer of-the-control-plane"
            text = answer().encode() if answer and is_known else b""
            self.send_response(200 if text else 404 if is_known else 403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if does == "serve":
    serve(*rest)
elif does == "publish":
    publish(rest)
else:
    token(*rest)
