"""Services that decide whether a request may pass.

ext_authz.py grpc PORT: envoy.service.auth.v3.Authorization.
ext_authz.py http PORT: an answer per request, as forward-auth has it.

Both go by the path of the client's request: /allow/..., /deny/..., /late/..., /broken/.... Content that contains "evil" is
refused whatever the path. What was asked is counted and told in x-asked.
"""

import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()
COUNT = 0


def asked():
    global COUNT
    with LOCK:
        COUNT += 1
        return COUNT


def serve_grpc(port):
    import grpc
    from envoy.config.core.v3 import base_pb2
    from envoy.service.auth.v3 import external_auth_pb2 as auth
    from envoy.service.auth.v3 import external_auth_pb2_grpc
    from envoy.type.v3 import http_status_pb2
    from google.protobuf import struct_pb2, wrappers_pb2

    def option(key, value, append=None):
        header = base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=key, value=value))
        if append is not None:
            header.append.CopyFrom(wrappers_pb2.BoolValue(value=append))
        return header

    class Service(external_auth_pb2_grpc.AuthorizationServicer):
        def Check(self, request, context):
            number = asked()
            http = request.attributes.request.http
            kind = http.path.split("/")[1]
            if kind == "late":
                time.sleep(10)
            if kind == "broken":
                context.abort(grpc.StatusCode.INTERNAL, "broken")
            facts = "|".join(
                [
                    http.method,
                    http.host,
                    http.path,
                    http.scheme,
                    http.headers.get("x-a", ""),
                    str(http.size),
                    http.body,
                    request.attributes.source.address.socket_address.address,
                    request.attributes.context_extensions.get("tenant", ""),
                    http.headers[":authority"],
                ]
            )
            response = auth.CheckResponse()
            if kind == "deny" or "evil" in http.body:
                response.status.code = 7
                response.denied_response.status.code = http_status_pb2.StatusCode.Unauthorized
                response.denied_response.headers.append(option("www-authenticate", 'Bearer realm="x"'))
                response.denied_response.body = "not you"
                return response
            ok = response.ok_response
            ok.headers.append(option("x-user", "ann"))
            ok.headers.append(option("x-facts", facts))
            ok.headers.append(option("x-list", "b", append=True))
            ok.headers_to_remove.append("x-secret")
            ok.response_headers_to_add.append(option("x-asked", str(number)))
            metadata = struct_pb2.Struct()
            metadata.update({"sub": "ann@example.com", "level": 3, "roles": ["admin", {"deep": True}]})
            response.dynamic_metadata.CopyFrom(metadata)
            return response

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(Service(), server)
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    server.wait_for_termination()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        number = asked()
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        uri = self.headers.get("X-Forwarded-Uri", "")
        kind = uri.split("/")[1]
        if kind == "late":
            time.sleep(10)
        status, body, fields = 200, b"", []
        if kind == "broken":
            status = 500
        elif kind == "login":
            status, fields = 302, [("Location", "https://id.test/login")]
        elif kind == "deny" or b"evil" in content:
            status, body = 401, b"not you\n"
            fields = [("WWW-Authenticate", "Basic"), ("Content-Type", "text/plain")]
        else:
            facts = [self.command, self.path]
            for name in ("Method", "Host", "Uri", "Proto", "For"):
                facts.append(self.headers.get("X-Forwarded-" + name, ""))
            facts.append(self.headers.get("Authorization", ""))
            facts.append(content.decode())
            fields = [("X-User", "ann"), ("X-Facts", "|".join(facts)), ("Set-Cookie", "s=1")]
        self.send_response(status)
        for name, value in fields + [("X-Asked", str(number)), ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "grpc":
        serve_grpc(port)
    else:
        ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
