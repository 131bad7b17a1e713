"""A caller's proxy that is not ours: HBONE (CONNECT in HTTP/2 over mutual TLS, without a server name), and HTTP/1.1 inside. Its
settings, fields and questions whether the other side is alive (PING) are those of ztunnel.

hbone_peer.py HOST:PORT AUTHORITY CERTIFICATE KEY ROOTS PATH...

Prints `connect STATUS`, then for each path, all on the connection inside, its status; `closed` when that has ended.
"""

import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

WAIT = 30
address, authority, certificate, key, roots, *paths = sys.argv[1:]


class Tunnel:
    def __init__(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(roots)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["h2"])
        host, port = address.rsplit(":", 1)
        self.socket = context.wrap_socket(socket.create_connection((host, int(port)), WAIT))
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values={
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 4 << 20,
            h2.settings.SettingCodes.MAX_FRAME_SIZE: 1 << 20,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 16 << 10,
        })
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window((16 << 20) - 65535)
        self.data, self.status, self.has_ended, self.is_alive = b"", None, False, False
        self.h2.ping(b"ztunnel!")
        self.h2.send_headers(1, [
            (":method", "CONNECT"),
            (":authority", authority),
            ("baggage", "k8s.cluster.name=c,k8s.namespace.name=n,k8s.deployment.name=d,service.name=s,service.version=v1"),
            ("forwarded", 'for="[2001:db8::7]"'),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ])
        self.flush()
        while not (self.has_ended or self.status is not None and self.is_alive):
            self.pump()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def pump(self):
        received = self.socket.recv(65536)
        if not received:
            self.has_ended = True
            return
        for event in self.h2.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                self.status = dict(event.headers)[":status"]
            elif isinstance(event, h2.events.PingAckReceived):
                self.is_alive = event.ping_data == b"ztunnel!"
            elif isinstance(event, h2.events.DataReceived):
                self.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.has_ended = True
        self.flush()

    def get(self, path):
        if self.has_ended:
            return "closed"
        request = f"GET {path} HTTP/1.1\r\nHost: orders\r\n\r\n"
        self.h2.send_data(1, request.encode())
        self.flush()
        while b"\r\n\r\n" not in self.data and not self.has_ended:
            self.pump()
        if b"\r\n\r\n" not in self.data:
            return "closed"
        head, rest = self.data.split(b"\r\n\r\n", 1)
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        while len(rest) < length and not self.has_ended:
            self.data = b""
            self.pump()
            rest += self.data
        self.data = rest[length:]
        return lines[0].split(" ")[1]


tunnel = Tunnel()
print("connect", tunnel.status)
if tunnel.status == "200":
    for path in paths:
        print(tunnel.get(path))
