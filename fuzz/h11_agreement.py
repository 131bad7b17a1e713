#!/usr/bin/env python3
"""Whatever message our codec accepts, h11 (an independent, strict implementation) reads the same way.

Usage: pip install h11; fuzz/h11_agreement.py [SEED [MESSAGES]]

Valid requests and responses are damaged at random. Each one that we accept h11 must accept too, with the same method or
status, version, content, end of message, trailers and fields; fields that we take into the head are left out. One
difference is allowed for: h11 does not know the empty line that may precede a request (RFC 9112 section 2.2).
"""
import random
import struct
import subprocess
import sys

import h11

START = [
    b"GET / HTTP/1.1\r\nHost: a\r\n",
    b"POST /x?y HTTP/1.1\r\nHost: a\r\n",
    b"PUT / HTTP/1.0\r\n",
    b"HEAD http://a/ HTTP/1.1\r\nHost: a\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost:a\r\n",
    b"DELETE /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n",
]
STATUS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 \r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 X\r\n", b"HTTP/1.1 304 X\r\n",
    b"HTTP/1.1 100 X\r\n", b"HTTP/1.1 404 Not Found\r\n", b"HTTP/1.0 500 X\r\nConnection: keep-alive\r\n",
]
FIELDS = [
    b"Accept: */*\r\n", b"X-A:  1 \r\n", b"x-b:\r\n", b"Connection: close\r\n", b"Connection: x-a\r\n",
    b"Cookie: a=b; c=\"d\"\r\n", b"X-C: \xc3\xa4\r\n", b"TE: trailers\r\n", b"Expect: 100-continue\r\n",
]
BODIES = [
    (b"", b""),
    (b"Content-Length: 5\r\n", b"hello"),
    (b"Content-Length: 0\r\n", b""),
    (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    (b"transfer-encoding:Chunked\r\n", b"2;a=b\r\nhe\r\n0003\r\nllo\r\n0\r\nX-T: 1\r\n\r\n"),
]
PIECES = [
    b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b",", b";", b"\x0b", b"\x7f", b"\x80", b"0", b"1", b"a", b"_", b"\r\n\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"chunked", b", ", b"HTTP/1.0", b"X: y\r\n ",
]
HEAD_ONLY = {
    b"connection", b"content-length", b"expect", b"host", b"http2-settings", b"keep-alive", b"proxy-connection", b"te",
    b"transfer-encoding", b"upgrade",
}


def message(rng, kind):
    framing, body = rng.choice(BODIES)
    fields = rng.sample(FIELDS, rng.randrange(4)) + [framing]
    rng.shuffle(fields)
    out = bytearray(rng.choice(START if kind == "Q" else STATUS) + b"".join(fields) + b"\r\n")
    if kind != "H":
        out += body
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(out) + 1)
        out[at : at + rng.randrange(3)] = rng.choice(PIECES + [b""])
    return bytes(out) + rng.choice([b"", b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"x"])


def read_by_h11(data, kind):
    empty_line = len(b"\r\n") if kind == "Q" and data.startswith(b"\r\n") else 0
    data = data[empty_line:]
    connection = h11.Connection(h11.SERVER if kind == "Q" else h11.CLIENT, max_incomplete_event_size=1 << 20)
    if kind != "Q":
        connection.send(h11.Request(method="HEAD" if kind == "H" else "GET", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    head = connection.next_event()
    if isinstance(head, h11.InformationalResponse):
        return head, b"", [], len(data) - len(connection.trailing_data[0])
    if not isinstance(head, (h11.Request, h11.Response)):
        raise h11.RemoteProtocolError(f"no head: {head!r}")
    content = b""
    ended = kind == "Q"
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            content += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            break
        elif event is h11.NEED_DATA and not ended:
            connection.receive_data(b"")
            ended = True
        else:
            raise h11.RemoteProtocolError(f"no end: {event!r}")
    return head, content, event.headers and list(event.headers.raw_items()), empty_line + len(data) - len(connection.trailing_data[0])


def pairs(text):
    return [tuple(bytes.fromhex(part) for part in pair.split("=")) for pair in text.split()]


def is_subsequence(part, whole):
    rest = iter(whole)
    return all(any(item == other for other in rest) for item in part)


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(1 << 32)
    messages = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    print(f"seed {seed}, {messages} messages, h11 {h11.__version__}")
    rng = random.Random(seed)
    judge = subprocess.Popen(
        ["cargo", "run", "-q", "-p", "rhumb-codec", "--example", "h1_judge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    accepted = refused = stricter = 0
    for _ in range(messages):
        kind = rng.choice("QQGH")
        data = message(rng, kind)
        judge.stdin.write(struct.pack(">I", 1 + len(data)) + kind.encode() + data)
        judge.stdin.flush()
        verdict, _, rest = judge.stdout.readline().decode().rstrip("\n").partition(" ")
        if verdict != "accepted":
            refused += 1
            try:
                read_by_h11(data, kind)
                stricter += 1
            except h11.RemoteProtocolError:
                pass
            continue
        accepted += 1
        consumed, version, start, content, rest = rest.split(" ", 4)
        fields, trailers = map(pairs, rest.split("|"))
        try:
            head, h11_content, h11_trailers, h11_consumed = read_by_h11(data, kind)
        except h11.RemoteProtocolError as error:
            sys.exit(f"we accept what h11 refuses ({error}): {data!r}")
        theirs = [(bytes(n), bytes(v)) for n, v in head.headers.raw_items()]
        kept = [(n, v) for n, v in fields if n.lower() not in HEAD_ONLY]
        agree = (
            kept == fields
            and is_subsequence(fields, theirs)
            and bytes.fromhex(start) == (head.method if kind == "Q" else str(head.status_code).encode())
            and version.encode() == head.http_version
            and bytes.fromhex(content) == h11_content
            and int(consumed) == h11_consumed
            and is_subsequence(trailers, [(bytes(n), bytes(v)) for n, v in h11_trailers])
        )
        if not agree:
            sys.exit(f"we disagree with h11 on {data!r}: {consumed} {version} {start} {content} {rest}")
    judge.stdin.close()
    judge.wait()
    print(f"{accepted} accepted by both and read the same, {refused} refused by us, {stricter} of them accepted by h11")


if __name__ == "__main__":
    main()
