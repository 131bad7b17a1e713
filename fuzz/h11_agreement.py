#!/usr/bin/env python3
"""Whatever request our codec accepts, h11 (an independent, strict implementation) reads the same way.

Usage: pip install h11; fuzz/h11_agreement.py [SEED [MESSAGES]]

Valid requests are damaged at random. For each one that we accept, h11 must accept it too, with the same method,
version, content, end of message, trailers and fields; fields that we take into the head are left out. One difference is allowed
for: h11 does not know the empty line that may precede a request (RFC 9112 section 2.2).
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


def message(rng):
    framing, body = rng.choice(BODIES)
    fields = rng.sample(FIELDS, rng.randrange(4)) + [framing]
    rng.shuffle(fields)
    out = bytearray(rng.choice(START) + b"".join(fields) + b"\r\n" + body)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(out) + 1)
        out[at : at + rng.randrange(3)] = rng.choice(PIECES + [b""])
    return bytes(out) + rng.choice([b"", b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"x"])


def read_by_h11(data):
    empty_line = len(b"\r\n") if data.startswith(b"\r\n") else 0
    data = data[empty_line:]
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    request = connection.next_event()
    if not isinstance(request, h11.Request):
        raise h11.RemoteProtocolError(f"no request: {request!r}")
    content = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            content += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            raise h11.RemoteProtocolError(f"no end: {event!r}")
    consumed = empty_line + len(data) - len(connection.trailing_data[0])
    return request, content, event.headers, consumed


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
        data = message(rng)
        judge.stdin.write(struct.pack(">I", len(data)) + data)
        judge.stdin.flush()
        verdict, _, rest = judge.stdout.readline().decode().rstrip("\n").partition(" ")
        if verdict != "accepted":
            refused += 1
            try:
                read_by_h11(data)
                stricter += 1
            except h11.RemoteProtocolError:
                pass
            continue
        accepted += 1
        consumed, version, method, content, rest = rest.split(" ", 4)
        fields, trailers = map(pairs, rest.split("|"))
        try:
            request, h11_content, h11_trailers, h11_consumed = read_by_h11(data)
        except h11.RemoteProtocolError as error:
            sys.exit(f"we accept what h11 refuses ({error}): {data!r}")
        theirs = [(bytes(n), bytes(v)) for n, v in request.headers.raw_items()]
        kept = [(n, v) for n, v in fields if n.lower() not in HEAD_ONLY]
        agree = (
            kept == fields
            and is_subsequence(fields, theirs)
            and bytes.fromhex(method) == request.method
            and version.encode() == request.http_version
            and bytes.fromhex(content) == h11_content
            and int(consumed) == h11_consumed
            and is_subsequence(trailers, [(bytes(n), bytes(v)) for n, v in h11_trailers.raw_items()])
        )
        if not agree:
            sys.exit(f"we disagree with h11 on {data!r}: {consumed} {version} {method} {content} {rest}")
    judge.stdin.close()
    judge.wait()
    print(f"{accepted} accepted by both and read the same, {refused} refused by us, {stricter} of them accepted by h11")


if __name__ == "__main__":
    main()
