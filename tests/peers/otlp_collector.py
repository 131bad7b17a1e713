"""A collector of OpenTelemetry spans, log records and metrics.

otlp_collector.py http FILE PORT: OTLP over HTTP.
otlp_collector.py grpc FILE PORT: OTLP over gRPC.

Each span becomes a line of JSON in FILE, each log record one in FILE.logs, each point of a metric one in FILE.metrics. Requests to /refuse get 400; to /later 503 the first time.
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

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

LOCK = threading.Lock()
PUT_OFF = set()


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
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


def take_logs(request, path):
    with LOCK, open(FILE + ".logs", "a", encoding="utf-8") as out:
        for of_resource in request.resource_logs:
            resource = attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_logs:
                for record in of_scope.log_records:
                    line = {
                        "path": path,
                        "resource": resource,
                        "at": record.time_unix_nano,
                        "severity": record.severity_text,
                        "body": value(record.body),
                        "attributes": attributes(record.attributes),
                        "trace": record.trace_id.hex(),
                    }
                    out.write(json.dumps(line) + "\n")


def points(metric):
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    for point in data.data_points:
        line = {"name": metric.name, "unit": metric.unit, "kind": kind, "attributes": attributes(point.attributes)}
        if kind in ("gauge", "sum"):
            line["value"] = getattr(point, point.WhichOneof("value"))
        else:
            line["count"] = point.count
            line["sum"] = point.sum
        if kind == "exponential_histogram":
            assert point.scale == 1 and sum(point.positive.bucket_counts) + point.zero_count == point.count
            line["offset"] = point.positive.offset
        assert 0 < point.start_time_unix_nano <= point.time_unix_nano
        yield line


def take_metrics(request, path):
    with LOCK, open(FILE + ".metrics", "a", encoding="utf-8") as out:
        for of_resource in request.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    for line in points(metric):
                        out.write(json.dumps({"path": path} | line) + "\n")


SERVICES = {
    "trace.v1.TraceService": (service.ExportTraceServiceRequest, service.ExportTraceServiceResponse, take),
    "logs.v1.LogsService": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse, take_logs),
    "metrics.v1.MetricsService": (
        metrics.ExportMetricsServiceRequest,
        metrics.ExportMetricsServiceResponse,
        take_metrics,
    ),
}


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
            name = {"/v1/logs": "logs.v1.LogsService", "/v1/metrics": "metrics.v1.MetricsService"}.get(self.path)
            asked, answered, note = SERVICES[name or "trace.v1.TraceService"]
            note(asked.FromString(content), self.path)
            answer = answered().SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def serve_grpc(port):
    import grpc

    def handler(name, asked, answered, note):
        def export(request, _):
            note(request, "grpc")
            return answered()

        method = grpc.unary_unary_rpc_method_handler(
            export,
            request_deserializer=asked.FromString,
            response_serializer=answered.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(f"opentelemetry.proto.collector.{name}", {"Export": method})

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers([handler(name, *parts) for name, parts in SERVICES.items()])
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    KIND, FILE, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if KIND == "grpc":
        serve_grpc(PORT)
    else:
        ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
