"""Stands where a sidecar stands: accepts on given ports of both families and answers each connection with the port that
took it and the destination that the kernel says it had. Datagrams are answered with what came, as questions for names.

usage: capture_peer.py NAME [tcp:PORT | udp:PORT | local:PORT]...      (local: udp on loopback, where rules redirect to)
"""

import socket
import struct
import sys
import threading

SO_ORIGINAL_DST = 80


def original(connection):
    local = connection.getsockname()[0]
    if local.startswith("::ffff:"):
        raw = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port, address = struct.unpack_from("!2xH4s", raw)
        return f"{socket.inet_ntop(socket.AF_INET, address)}:{port}"
    raw = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
    port, address = struct.unpack_from("!2xH4x16s", raw)
    return f"[{socket.inet_ntop(socket.AF_INET6, address)}]:{port}"


def answer(name, port, connection):
    with connection:
        first = connection.recv(65536)
        try:
            destination = original(connection)
        except OSError:
            destination = "none"
        if first[:3] == b"GET":
            text = f"{name} {port} {destination}\n".encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode()
            connection.sendall(head + text)
        elif first:
            while len(first) < 2 or len(first) < 2 + struct.unpack("!H", first[:2])[0]:
                more = connection.recv(65536)
                if not more:
                    return
                first += more
            told = named(first[2:], name)
            connection.sendall(struct.pack("!H", len(told)) + told)


def named(question, name):
    """An answer to any question: one TXT record with the name of this peer."""
    end = question.index(b"\0", 12) + 5
    text = bytes([len(name)]) + name.encode()
    head = question[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
    record = b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x05" + struct.pack("!H", len(text)) + text
    return head + question[12:end] + record


def serve_tcp(name, port, listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(name, port, connection), daemon=True).start()


def serve_udp(name, endpoint):
    while True:
        question, client = endpoint.recvfrom(65536)
        endpoint.sendto(named(question, name), client)


def main():
    name = sys.argv[1]
    threads = []
    for word in sys.argv[2:]:
        kind, port = word.split(":")
        if kind == "tcp":
            listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
            threads.append(threading.Thread(target=serve_tcp, args=(name, int(port), listener)))
        else:
            # One per family, and bound to what is asked where that is another address than the route's: an answer must leave
            # from the address that was asked.
            addresses = ("127.0.0.1", "::1") if kind == "local" else ("0.0.0.0", "::")
            for family, address in zip((socket.AF_INET, socket.AF_INET6), addresses):
                endpoint = socket.socket(family, socket.SOCK_DGRAM)
                if family == socket.AF_INET6:
                    endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                endpoint.bind((address, int(port)))
                threads.append(threading.Thread(target=serve_udp, args=(name, endpoint)))
    for thread in threads:
        thread.start()
    print("ready", flush=True)


main()
