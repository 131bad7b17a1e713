"""A collector of OpenTelemetry spans.

otlp_collector.py http FILE PORT: OTLP over HTTP.
otlp_collector.py grpc FILE PORT: OTLP over gRPC.

Each span becomes a line of JSON in FILE. Requests to /refuse get 400; to /later 503 the first time.
"""

import json
import os
import sys
import threading
import types
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Another package has an old form of these modules, and wins by having an __init__.py.
OTLP = types.ModuleType("opentelemetry")
OTLP.__path__ = [os.path.join(sys.prefix, "otlp", "opentelemetry")]
sys.modules["opentelemetry"] = OTLP

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

LOCK = threading.Lock()
PUT_OFF = set()


def value(any_value):
    kind = any_value.WhichOneof("value")
    return getattr(any_value, kind) if kind else None


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def take(request, path):
    with LOCK, open(FILE, "a", encoding="utf-8") as out:
        for of_resource in request.resource_spans:
            resource = attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    line = {
                        "path": path,
                        "resource": resource,
                        "scope": of_scope.scope.name,
                        "trace": span.trace_id.hex(),
                        "span": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "name": span.name,
                        "kind": span.kind,
                        "nanos": span.end_time_unix_nano - span.start_time_unix_nano,
                        "begun": span.start_time_unix_nano,
                        "attributes": attributes(span.attributes),
                        "events": [event.name for event in span.events],
                        "status": span.status.code,
                    }
                    out.write(json.dumps(line) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = 200, b""
        if self.path == "/refuse":
            status = 400
        elif self.path == "/later" and self.path not in PUT_OFF:
            PUT_OFF.add(self.path)
            status = 503
        elif self.headers["Content-Type"] != "application/x-protobuf" or self.headers.get("Api-Key") == "wrong":
            status = 401
        else:
            take(service.ExportTraceServiceRequest.FromString(content), self.path)
            answer = service.ExportTraceServiceResponse().SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def serve_grpc(port):
    import grpc

    def export(request, _):
        take(request, "grpc")
        return service.ExportTraceServiceResponse()

    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {
            "Export": grpc.unary_unary_rpc_method_handler(
                export,
                request_deserializer=service.ExportTraceServiceRequest.FromString,
                response_serializer=service.ExportTraceServiceResponse.SerializeToString,
            )
        },
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((handler,))
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    KIND, FILE, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if KIND == "grpc":
        serve_grpc(PORT)
    else:
        ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
