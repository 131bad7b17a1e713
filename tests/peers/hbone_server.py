"""The proxy of a service that is not ours, as ztunnel serves HBONE: mutual TLS with ALPN h2, CONNECT and nothing else, an
authority that has to be the workload's, 200 and no other success. What comes through is sent back.

hbone_server.py AUTHORITY CERTIFICATE KEY ROOTS PORT

Prints `tunnel AUTHORITY` for each stream, `refused AUTHORITY` for one that is for somebody else, `alive` when a PING was
answered. Says GOAWAY behind the third stream of a connection.
"""

import socket
import ssl
import sys
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

authority, certificate, key, roots, port = sys.argv[1:]
STREAMS = 3


def note(*words):
    print(*words, flush=True)


class Serving:
    def __init__(self, connection):
        self.socket = connection
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 4 << 20,
            h2.settings.SettingCodes.MAX_FRAME_SIZE: 1 << 20,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 16 << 10,
            h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
        })
        # What each stream has to send, and whether it is to end behind that.
        self.held, self.ending, self.streams = {}, set(), 0

    def run(self):
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window((16 << 20) - 65535)
        self.h2.ping(b"ztunnel!")
        self.flush()
        while received := self.socket.recv(65536):
            for event in self.h2.receive_data(received):
                self.take(event)
            for stream in list(self.held):
                self.send(stream)
            self.flush()

    def take(self, event):
        if isinstance(event, h2.events.RequestReceived):
            fields = dict(event.headers)
            is_ours = fields[":method"] == "CONNECT" and fields[":authority"] == authority
            note("tunnel" if is_ours else "refused", fields[":authority"])
            status = "200" if is_ours else "400"
            baggage = [("baggage", "k8s.namespace.name=n,service.name=s")]
            self.h2.send_headers(event.stream_id, [(":status", status), *baggage], end_stream=not is_ours)
            if is_ours:
                self.held[event.stream_id] = b""
            self.streams += 1
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.held:
                self.held[event.stream_id] += event.data
        elif isinstance(event, h2.events.StreamEnded):
            self.ending.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.held.pop(event.stream_id, None)
        elif isinstance(event, h2.events.PingAckReceived):
            note("alive")

    def send(self, stream):
        while self.held[stream]:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0:
                return
            self.h2.send_data(stream, self.held[stream][:room])
            self.held[stream] = self.held[stream][room:]
        if stream in self.ending:
            self.h2.end_stream(stream)
            self.held.pop(stream)
            if self.streams >= STREAMS:
                self.h2.close_connection(h2.errors.ErrorCodes.NO_ERROR)

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())


def serve(connection):
    try:
        with context.wrap_socket(connection, server_side=True) as stream:
            if stream.selected_alpn_protocol() == "h2":
                Serving(stream).run()
    except (OSError, h2.exceptions.ProtocolError) as error:
        note("ended", repr(error))


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.load_verify_locations(roots)
context.verify_mode = ssl.CERT_REQUIRED
context.set_alpn_protocols(["h2"])
listener = socket.create_server(("127.0.0.1", int(port)))
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
