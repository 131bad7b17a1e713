"""WebSocket peers that know nothing of the proxy.

websocket_peer.py server PORT
websocket_peer.py client HOST:PORT          checks over HTTP/1.1 (RFC 6455), with the `websockets` package
websocket_peer.py client-h2 HOST:PORT       checks over HTTP/2 (RFC 8441), with the `h2` package
"""

import asyncio
import os
import socket
import struct
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

WAIT = 20
CLOSED = []


async def handle(connection):
    path = connection.request.path
    if path == "/ws/close-4321":
        await connection.close(4321, "because")
        return
    if path == "/ws/ended":
        await connection.send(str(len(CLOSED)))
        return
    if path == "/ws/push":
        for n in range(100):
            await connection.send(str(n))
        return
    try:
        async for message in connection:
            await connection.send(message)
    finally:
        if path == "/ws/abandon":
            CLOSED.append(path)


def refuse(connection, request):
    if request.path.startswith("/ws/refused"):
        return connection.respond(403, "not you\n")
    return None


def choose(connection, offered):
    return "two" if "two" in offered else None


async def server(port):
    async with serve(handle, "127.0.0.1", port, process_request=refuse, select_subprotocol=choose, max_size=8 << 20) as running:
        await running.serve_forever()


async def echo(address):
    async with connect(f"ws://{address}/ws/echo", max_size=8 << 20) as ws:
        for size in (0, 1, 125, 126, 65_535, 65_536, 1_000_000, 4_000_000):
            body = os.urandom(size)
            await ws.send(body)
            assert await ws.recv() == body, size
        await ws.send("text: \u00e9")
        assert await ws.recv() == "text: \u00e9"
        await (await ws.ping(b"payload"))


async def uncompressed(address):
    async with connect(f"ws://{address}/ws/echo", compression=None) as ws:
        await ws.send(b"abc" * 1000)
        assert await ws.recv() == b"abc" * 1000


async def fragments(address):
    async with connect(f"ws://{address}/ws/echo") as ws:
        await ws.send(part for part in [b"one", b"two", b"three"])
        assert await ws.recv() == b"onetwothree"


async def subprotocol(address):
    async with connect(f"ws://{address}/ws/echo", subprotocols=["one", "two"]) as ws:
        assert ws.subprotocol == "two"


async def close_code(address):
    async with connect(f"ws://{address}/ws/close-4321") as ws:
        try:
            await ws.recv()
            raise AssertionError("not closed")
        except websockets.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4321, "because")


async def pushed(address):
    async with connect(f"ws://{address}/ws/push") as ws:
        assert [await ws.recv() for _ in range(100)] == [str(n) for n in range(100)]


async def refused(address):
    try:
        async with connect(f"ws://{address}/ws/refused"):
            raise AssertionError("not refused")
    except websockets.InvalidStatus as error:
        assert error.response.status_code == 403
        assert error.response.body == b"not you\n"


async def no_route(address):
    try:
        async with connect(f"ws://{address}/elsewhere"):
            raise AssertionError("not refused")
    except websockets.InvalidStatus as error:
        assert error.response.status_code == 404


async def plain_request_after_refusal(address):
    """A refused upgrade leaves an ordinary connection."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    for _ in range(2):
        writer.write(b"GET /ws/refused HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 "), head
        if b"onnection: close" in head:
            return
        await reader.readexactly(8)
    writer.close()


async def abandoned(address):
    """A client that vanishes ends the server's side too."""
    before = await ended(address)
    ws = await connect(f"ws://{address}/ws/abandon")
    await ws.send("hello")
    await ws.recv()
    ws.transport.abort()
    while await ended(address) == before:
        await asyncio.sleep(0.02)


async def ended(address):
    async with connect(f"ws://{address}/ws/ended") as ws:
        return int(await ws.recv())


async def many(address):
    async def one(n):
        async with connect(f"ws://{address}/ws/echo") as ws:
            for k in range(10):
                await ws.send(f"{n}.{k}")
                assert await ws.recv() == f"{n}.{k}"

    await asyncio.gather(*(one(n) for n in range(100)))


async def data_with_the_handshake(address):
    """A frame sent along with the request must not get lost."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    frame = b"\x81\x82\x00\x00\x00\x00hi"
    writer.write(b"GET /ws/echo HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head
    assert await reader.readexactly(4) == b"\x81\x02hi"
    writer.close()


class Tunnel:
    """One extended CONNECT stream (RFC 8441) with hand-made frames inside."""

    def __init__(self, address, path, protocol="websocket"):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=WAIT)
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.data = b""
        self.status = None
        self.ended = False
        self.reset = None
        self.settled = False
        self.flush()
        while not self.settled:
            self.read()
        allowed = self.connection.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL)
        assert allowed == 1, "SETTINGS_ENABLE_CONNECT_PROTOCOL is not announced"
        self.stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(self.stream, [
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", path), (":authority", "a.test"),
            ("sec-websocket-version", "13"), ("origin", "http://a.test")])
        self.flush()

    def flush(self):
        self.socket.sendall(self.connection.data_to_send())

    def read(self):
        data = self.socket.recv(65_536)
        assert data, "the connection ended"
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.settled = True
            if isinstance(event, h2.events.ResponseReceived):
                self.status = dict(event.headers)[":status"]
            if isinstance(event, h2.events.DataReceived):
                self.data += event.data
                if event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, h2.events.StreamEnded):
                self.ended = True
            if isinstance(event, h2.events.StreamReset):
                self.ended, self.reset = True, event.error_code
        self.flush()

    def answer(self):
        while self.status is None and not self.ended:
            self.read()
        return self.status

    def send(self, payload, opcode=2):
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
        data = head + b"\0\0\0\0" + payload
        while data:
            room = min(self.connection.local_flow_control_window(self.stream), self.connection.max_outbound_frame_size)
            if room == 0:
                self.read()
                continue
            self.connection.send_data(self.stream, data[:room])
            data = data[room:]
            self.flush()

    def take(self, count):
        while len(self.data) < count:
            assert not self.ended, f"ended after {len(self.data)} bytes"
            self.read()
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def receive(self):
        first, size = self.take(2)
        if size == 126:
            (size,) = struct.unpack("!H", self.take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.take(8))
        return first & 15, self.take(size)


async def h2_echo(address):
    tunnel = Tunnel(address, "/ws/echo")
    assert tunnel.answer() == "200", tunnel.status
    for size in (1, 125, 1000, 65_536, 1_000_000):
        body = os.urandom(size)
        tunnel.send(body)
        assert tunnel.receive() == (2, body), size


async def h2_close(address):
    tunnel = Tunnel(address, "/ws/close-4321")
    assert tunnel.answer() == "200", tunnel.status
    assert tunnel.receive() == (8, struct.pack("!H", 4321) + b"because")
    tunnel.send(struct.pack("!H", 4321), opcode=8)
    while not tunnel.ended:
        tunnel.read()
    assert tunnel.reset is None, tunnel.reset


async def h2_refused(address):
    tunnel = Tunnel(address, "/ws/refused")
    assert tunnel.answer() == "403", tunnel.status


async def h2_no_route(address):
    tunnel = Tunnel(address, "/elsewhere")
    assert tunnel.answer() == "404", tunnel.status


async def h2_other_protocol(address):
    tunnel = Tunnel(address, "/ws/echo", protocol="connect-udp")
    assert tunnel.answer() != "200", tunnel.status


async def h2_several(address):
    tunnels = [Tunnel(address, "/ws/echo") for _ in range(10)]
    for n, tunnel in enumerate(tunnels):
        assert tunnel.answer() == "200"
        tunnel.send(f"hello {n}".encode(), opcode=1)
    for n, tunnel in enumerate(tunnels):
        assert tunnel.receive() == (1, f"hello {n}".encode())


def run(checks, address):
    failed = 0
    for check in checks:
        try:
            asyncio.run(asyncio.wait_for(check(address), WAIT))
            print("ok", check.__name__, flush=True)
        except Exception as error:  # every kind of failure is reported, then the next check runs
            failed += 1
            print("FAILED", check.__name__, repr(error), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    H1 = [echo, uncompressed, fragments, subprotocol, close_code, pushed, refused, no_route, plain_request_after_refusal,
          abandoned, many, data_with_the_handshake]
    H2 = [h2_echo, h2_close, h2_refused, h2_no_route, h2_other_protocol, h2_several]
    if sys.argv[1] == "server":
        asyncio.run(server(int(sys.argv[2])))
    else:
        sys.exit(run(H1 if sys.argv[1] == "client" else H2, sys.argv[2]))
