"""gRPC peers that know nothing of the proxy: a server, and a client that runs checks through it.

grpc_peer.py server PORT
grpc_peer.py client HOST:PORT DIRECT_HOST:PORT [CA_FILE]
grpc_peer.py ask HOST:PORT METHOD MESSAGE
grpc_peer.py hold HOST:PORT STOP_FILE

Messages are plain bytes: no generated code is needed. The client asks the server behind the proxy directly
(DIRECT) what it saw. It prints one line per check and ends with 1 when one failed. `ask` makes one call and prints
status and message, or OK and the answer.
"""

import json
import os
import sys
import threading
import time
from concurrent import futures

import grpc

MIB = 1024 * 1024
LIMITS = [("grpc.max_receive_message_length", 32 * MIB), ("grpc.max_send_message_length", 32 * MIB)]
WAIT = 20


class Echo(grpc.GenericRpcHandler):
    """The service test.Echo."""

    def __init__(self):
        self.begun = 0
        self.cancelled = 0
        self.lock = threading.Lock()

    def service(self, details):
        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(self.health)
        name = details.method.removeprefix("/test.Echo/")
        unary = {"Unary": self.unary, "Fail": self.fail, "Metadata": self.metadata, "Large": self.large,
                 "Hang": self.hang, "Hangs": self.hangs, "Remaining": self.remaining}
        if name in unary:
            return grpc.unary_unary_rpc_method_handler(unary[name])
        if name == "Count":
            return grpc.unary_stream_rpc_method_handler(self.count)
        if name == "FailLate":
            return grpc.unary_stream_rpc_method_handler(self.fail_late)
        if name == "Sum":
            return grpc.stream_unary_rpc_method_handler(self.sum)
        if name == "Chat":
            return grpc.stream_stream_rpc_method_handler(self.chat)
        return None

    def unary(self, request, context):
        return request

    def health(self, request, context):
        """HealthCheckRequest: service is field 1. Serves test.Echo, not test.Ill, and knows no other."""
        name = request[2:].decode() if request else ""
        if name in ("", "test.Echo"):
            return b"\x08\x01"
        if name == "test.Ill":
            return b"\x08\x02"
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")

    def large(self, request, context):
        return b"x" * int(request)

    def metadata(self, request, context):
        context.send_initial_metadata((("x-initial", "i"), ("x-initial-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-trailing", "t"), ("x-trailing-bin", b"\x01\xfe")))
        pairs = [[key, value.hex() if isinstance(value, bytes) else value] for key, value in context.invocation_metadata()]
        return json.dumps(pairs).encode()

    def fail(self, request, context):
        code, message = request.decode().split(" ", 1)
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(getattr(grpc.StatusCode, code), message)

    def fail_late(self, request, context):
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.UNAVAILABLE, "later: \u00e9")

    def hang(self, request, context):
        done = threading.Event()
        context.add_callback(done.set)
        with self.lock:
            self.begun += 1
        done.wait(WAIT)
        with self.lock:
            self.cancelled += 1
        return b""

    def hangs(self, request, context):
        return f"{self.begun} {self.cancelled}".encode()

    def remaining(self, request, context):
        return str(context.time_remaining()).encode()

    def count(self, request, context):
        for n in range(int(request)):
            yield str(n).encode()

    def sum(self, requests, context):
        return str(sum(len(request) for request in requests)).encode()

    def chat(self, requests, context):
        for request in requests:
            yield b"re:" + request


class Relay(grpc.GenericRpcHandler):
    """A service that calls another one with the time that its own caller has left, and says what came of it."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)

    def service(self, details):
        def call(request, context):
            try:
                answer = self.channel.unary_unary(details.method)(request, timeout=context.time_remaining())
            except grpc.RpcError as error:
                print("relayed", details.method, error.code().name, flush=True)
                context.abort(error.code(), error.details())
            print("relayed", details.method, "OK", flush=True)
            return answer

        return grpc.unary_unary_rpc_method_handler(call)


def serve(port, handler):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=LIMITS)
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


class Checks:
    """Each method whose name begins with check_ is one check."""

    def __init__(self, channel, direct):
        self.channel = channel
        self.direct = direct

    def unary(self, name, channel=None):
        return (channel or self.channel).unary_unary(f"/test.Echo/{name}")

    def check_unary(self):
        for size in (0, 1, 5, 1000, 16_384, 65_536, 1_000_000):
            body = bytes(i % 251 for i in range(size))
            assert self.unary("Unary")(body, timeout=WAIT) == body, size

    def check_16_mib_up(self):
        body = b"y" * (16 * MIB)
        assert self.unary("Unary")(body, timeout=WAIT) == body

    def check_16_mib_down(self):
        assert len(self.unary("Large")(str(16 * MIB).encode(), timeout=WAIT)) == 16 * MIB

    def check_server_stream(self):
        call = self.channel.unary_stream("/test.Echo/Count")(b"2000", timeout=WAIT)
        assert [int(n) for n in call] == list(range(2000))

    def check_client_stream(self):
        sizes = [n * 37 for n in range(500)]
        total = self.channel.stream_unary("/test.Echo/Sum")((b"x" * n for n in sizes), timeout=WAIT)
        assert int(total) == sum(sizes)

    def check_streams_are_not_held_back(self):
        """Each message is answered before the next is sent: nothing may wait for the end of a stream."""
        turn = threading.Semaphore(1)

        def ask():
            for n in range(50):
                assert turn.acquire(timeout=WAIT)
                yield str(n).encode()

        answers = self.channel.stream_stream("/test.Echo/Chat")(ask(), timeout=WAIT)
        for n in range(50):
            assert next(answers) == f"re:{n}".encode()
            turn.release()
        assert list(answers) == []

    def hangs(self):
        """How many calls of Hang began and how many ended, as the server itself says."""
        return [int(word) for word in self.unary("Hangs", self.direct)(b"").split()]

    def check_deadline(self):
        _, before = self.hangs()
        try:
            self.unary("Hang")(b"", timeout=0.5)
            raise AssertionError("no deadline")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        self.wait_until(lambda: self.hangs()[1] > before)

    def check_deadline_is_passed_on(self):
        remaining = float(self.unary("Remaining")(b"", timeout=9))
        assert 0 < remaining <= 9.5, remaining  # clocks are read at two places

    def check_cancellation(self):
        begun, ended = self.hangs()
        call = self.unary("Hang").future(b"", timeout=WAIT)
        self.wait_until(lambda: self.hangs()[0] > begun)
        call.cancel()
        assert call.code() == grpc.StatusCode.CANCELLED
        self.wait_until(lambda: self.hangs()[1] > ended)

    @staticmethod
    def wait_until(holds):
        end = time.monotonic() + WAIT
        while not holds():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.02)

    def check_metadata(self):
        sent = (("x-text", "value"), ("x-bytes-bin", b"\x00\x01\xff"), ("x-twice", "1"), ("x-twice", "2"))
        answer, call = self.unary("Metadata").with_call(b"", metadata=sent, timeout=WAIT)
        seen = json.loads(answer)
        assert ["x-text", "value"] in seen and ["x-bytes-bin", "0001ff"] in seen, seen
        assert [value for key, value in seen if key == "x-twice"] == ["1", "2"], seen
        assert any(key == "x-request-id" for key, _ in seen), seen
        assert dict(call.initial_metadata())["x-initial-bin"] == b"\x00\xff"
        assert dict(call.trailing_metadata())["x-trailing"] == "t"
        assert dict(call.trailing_metadata())["x-trailing-bin"] == b"\x01\xfe"

    def check_error_without_messages(self):
        for code in ("INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"):
            try:
                self.unary("Fail")(f"{code} why: \u00e9%".encode(), timeout=WAIT)
                raise AssertionError("no error")
            except grpc.RpcError as error:
                assert error.code() == getattr(grpc.StatusCode, code), error
                assert error.details() == "why: \u00e9%", error
                assert dict(error.trailing_metadata())["x-why"] == "because"

    def check_error_after_messages(self):
        call = self.channel.unary_stream("/test.Echo/FailLate")(b"", timeout=WAIT)
        got = []
        try:
            for message in call:
                got.append(message)
            raise AssertionError("no error")
        except grpc.RpcError as error:
            assert got == [b"one", b"two"], got
            assert error.code() == grpc.StatusCode.UNAVAILABLE and error.details() == "later: \u00e9", error

    def check_unknown_method(self):
        self.expect("/test.Echo/Nothing", grpc.StatusCode.UNIMPLEMENTED)

    def check_no_route(self):
        """The proxy's own refusal is a gRPC status, not a page."""
        self.expect("/test.NoRoute/X", grpc.StatusCode.UNIMPLEMENTED)

    def check_no_backend(self):
        self.expect("/test.Gone/X", grpc.StatusCode.UNAVAILABLE)

    def expect(self, method, code):
        try:
            self.channel.unary_unary(method)(b"", timeout=WAIT)
            raise AssertionError("no error")
        except grpc.RpcError as error:
            assert error.code() == code, error

    def check_many_at_once(self):
        calls = [self.unary("Unary").future(str(n).encode(), timeout=WAIT) for n in range(300)]
        assert [call.result() for call in calls] == [str(n).encode() for n in range(300)]

    def check_compression(self):
        body = b"z" * 100_000
        call = self.channel.unary_unary("/test.Echo/Unary")
        assert call(body, timeout=WAIT, compression=grpc.Compression.Gzip) == body


def run(address, direct_address, ca):
    if ca:
        with open(ca, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        channel = grpc.secure_channel(address, credentials, options=LIMITS + [("grpc.ssl_target_name_override", "a.test")])
    else:
        channel = grpc.insecure_channel(address, options=LIMITS)
    checks = Checks(channel, grpc.insecure_channel(direct_address))
    failed = 0
    for name in (name for name in dir(checks) if name.startswith("check_")):
        try:
            getattr(checks, name)()
            print("ok", name, flush=True)
        except Exception as error:  # every kind of failure is reported, then the next check runs
            failed += 1
            print("FAILED", name, repr(error), flush=True)
    return 1 if failed else 0


def ask(address, method, message, timeout=WAIT):
    try:
        answer = grpc.insecure_channel(address).unary_unary(f"/test.Echo/{method}")(message.encode(), timeout=float(timeout))
        print("OK", answer.decode())
    except grpc.RpcError as error:
        print(error.code().name, error.details())


def hold(address, stop):
    """One stream that goes on, a message and its answer at a time, until the file `stop` is there."""
    answered = threading.Semaphore(1)

    def ask():
        n = 0
        while not os.path.exists(stop):
            assert answered.acquire(timeout=WAIT)
            n += 1
            yield str(n).encode()
            time.sleep(0.005)

    calls = grpc.insecure_channel(address, options=LIMITS)
    n = 0
    for answer in calls.stream_stream("/test.Echo/Chat")(ask()):
        n += 1
        assert answer == f"re:{n}".encode(), answer
        print("answered", n, flush=True)
        answered.release()
    print("ended in order", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(*sys.argv[2:])
    elif sys.argv[1] == "server":
        serve(sys.argv[2], Echo())
    elif sys.argv[1] == "relay":
        serve(sys.argv[3], Relay(sys.argv[2]))
    elif sys.argv[1] == "hold":
        hold(sys.argv[2], sys.argv[3])
    else:
        sys.exit(run(sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None))
