"""gRPC peers for retries and deadlines, with no retries of their own.

grpc_retry.py server PORT
grpc_retry.py client HOST:PORT CASE...

A case is METHOD:KEY:N:CODE:SECONDS. The server fails the first N calls of a KEY with CODE; METHOD is Fail, FailLate (a
message first), Sleep (N seconds) or Remaining (what is left of the deadline). The client prints one line per case: the
answer, or the code.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

OPTIONS = [("grpc.enable_retries", 0)]


class Flaky(grpc.GenericRpcHandler):
    """The service test.Flaky."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = {}

    def service(self, details):
        name = details.method.removeprefix("/test.Flaky/")
        if name == "FailLate":
            return grpc.unary_stream_rpc_method_handler(self.fail_late)
        unary = {"Fail": self.fail, "Sleep": self.sleep, "Remaining": self.remaining}
        return grpc.unary_unary_rpc_method_handler(unary[name]) if name in unary else None

    def count(self, request, context):
        key, n, code = request.decode().split(":")
        with self.lock:
            call = self.calls[key] = self.calls.get(key, 0) + 1
        return call, call <= int(n), getattr(grpc.StatusCode, code)

    def fail(self, request, context):
        call, fails, code = self.count(request, context)
        if fails:
            context.abort(code, f"call {call}")
        return str(call).encode()

    def fail_late(self, request, context):
        call, fails, code = self.count(request, context)
        yield str(call).encode()
        if fails:
            context.abort(code, f"call {call}")

    def sleep(self, request, context):
        time.sleep(float(request.decode().split(":")[1]))
        return b"late"

    def remaining(self, request, context):
        return f"{context.time_remaining():.3f}".encode()


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((Flaky(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def ask(address, cases):
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        for case in cases:
            method, rest = case.split(":", 1)
            request, seconds = rest.rsplit(":", 1)
            try:
                if method == "FailLate":
                    call = channel.unary_stream(f"/test.Flaky/{method}")(request.encode(), timeout=float(seconds))
                    answer = b",".join(call)
                else:
                    answer = channel.unary_unary(f"/test.Flaky/{method}")(request.encode(), timeout=float(seconds))
                print(answer.decode(), flush=True)
            except grpc.RpcError as error:
                print(error.code().name, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(int(sys.argv[2]))
    else:
        ask(sys.argv[2], sys.argv[3:])
