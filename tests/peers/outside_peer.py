"""A host out of the mesh: HTTP on 80, HTTPS on 443, a server that speaks first on 2525, and a name server on 53 for which every
name below example.com leads here, but for `internal.example.com`, which leads to the machine that asks.

outside_peer.py ADDRESS CERTIFICATE KEY

Answers with the address that the connection came from, and prints each as `from ADDRESS`, each name as `asked NAME`.
"""

import http.server
import socket
import socketserver
import ssl
import struct
import sys
import threading

address, certificate, key = sys.argv[1:]


def note(*words):
    print(*words, flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        note("from", self.client_address[0])
        text = f"{self.headers['host']} from {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Greeter(socketserver.StreamRequestHandler):
    def handle(self):
        note("from", self.client_address[0])
        self.wfile.write(b"220 greet-4711\r\n")
        for line in self.rfile:
            self.wfile.write(b"250 " + line)


def names(endpoint):
    while True:
        question, client = endpoint.recvfrom(65536)
        end, labels = 12, []
        while question[end]:
            labels.append(question[end + 1 : end + 1 + question[end]].decode().lower())
            end += 1 + question[end]
        name, kind = ".".join(labels), struct.unpack("!H", question[end + 1 : end + 3])[0]
        note("asked", name)
        is_known = name.endswith("example.com")
        leads_to = "127.0.0.1" if name == "internal.example.com" else address
        answers = [socket.inet_aton(leads_to)] if is_known and kind == 1 else []
        head = question[:2] + (b"\x81\x80" if is_known else b"\x81\x83") + struct.pack("!HHHH", 1, len(answers), 0, 0)
        records = b"".join(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04" + data for data in answers)
        endpoint.sendto(head + question[12 : end + 5] + records, client)


def main():
    plain = http.server.ThreadingHTTPServer(("0.0.0.0", 80), Handler)
    secure = http.server.ThreadingHTTPServer(("0.0.0.0", 443), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    greeter = socketserver.ThreadingTCPServer(("0.0.0.0", 2525), Greeter)
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind((address, 53))
    for server in (plain, secure, greeter):
        threading.Thread(target=server.serve_forever).start()
    threading.Thread(target=names, args=(endpoint,)).start()
    note("ready")


main()
