#!/usr/bin/env python3
"""Memory of what is seen: resident memory before and after 100 000 distinct paths by 100 000 registered consumers, and after as many again.

    bench/bounded.py --rhumb PATH [--count 100000]

Each request has a path of its own, of letters, so that nothing about it looks like a value, and the key of a consumer of its own. Fails
when something was counted nowhere, or when the second round takes more than GROWTH.
"""

import argparse
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from contenders import BACKENDS, default_rhumb
from measure import LOAD_CPU, PROXY_CPU, memory_kib, start, stop, tools, wait_for_port

HERE = Path(__file__).resolve().parent
# What the second round of distinct names may add. Unit: KiB.
GROWTH = 4 << 10
BATCH = 50


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def letters(number: int) -> str:
    """A name without digits."""
    return "".join(chr(ord("g") + int(digit)) for digit in str(number))


def send(port: int, first: int, count: int, consumers: int) -> None:
    """So many requests, each with a path and a consumer of its own."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        reader = connection.makefile("rb")
        for at in range(first, first + count, BATCH):
            numbers = range(at, min(at + BATCH, first + count))
            request = "".join(
                f"GET /{letters(n)}/b/16 HTTP/1.1\r\nHost: bounded.test\r\nX-Api-Key: key-of-consumer-{n % consumers:07}\r\n\r\n"
                for n in numbers
            )
            connection.sendall(request.encode())
            for _ in numbers:
                status = reader.readline()
                if b" 200 " not in status:
                    raise SystemExit(f"an answer is {status!r}")
                length = 0
                while (line := reader.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                reader.read(length)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rhumb", type=Path, default=default_rhumb())
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    directory = HERE / "run" / "bounded"
    subprocess.run(["rm", "-rf", str(directory)], check=True)
    (directory / "config").mkdir(parents=True)
    port, admin = free(), free()
    for begin in range(0, options.count, 5000):
        documents = (
            f"apiVersion: rhumb.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: c{n}}}\n"
            f"spec: {{credentials: {{apiKeys: [{{name: one, key: key-of-consumer-{n:07}}}]}}}}\n"
            for n in range(begin, min(begin + 5000, options.count))
        )
        (directory / f"config/consumers-{begin}.yaml").write_text("---\n".join(documents))
    (directory / "config/rhumb.yaml").write_text(f"""
workers: 1
admin: {{address: '127.0.0.1:{admin}'}}
accessLog: {{enabled: false}}
listeners: {{web: {{address: 127.0.0.1, port: {port}}}}}
backends: {{app: '127.0.0.1:{BACKENDS["h1"]}'}}
routes: [{{to: app, policies: {{apiKey: {{}}}}}}]
""")
    backend = start([str(tools() / "backend"), "--addr", f"127.0.0.1:{BACKENDS['h1']}"], LOAD_CPU, directory / "backend.log")
    command = [str(options.rhumb), "run", "-c", str(directory / "config"), "--admin-token-file", str(directory / "token")]
    proxy = start(command, PROXY_CPU, directory / "output.log")

    def ask(path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=60)
        token = (directory / "token").read_text().strip()
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().read().decode()

    def metric(name: str) -> int:
        return sum(int(float(value)) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", ask("/metrics"), re.MULTILINE))

    try:
        if not (wait_for_port(BACKENDS["h1"], backend) and wait_for_port(port, proxy, 300)):
            raise SystemExit((directory / "output.log").read_text()[-2000:])
        # Pools, buffers and what a first look at everything takes.
        send(port, 0, 2000, 1)
        ask("/api/v1/apis")
        ask("/metrics")
        time.sleep(5)
        rows = [("before", memory_kib([proxy.pid])["rss_kib"], metric("rhumb_signals_bytes"))]
        for round_, name in enumerate(("100 000 distinct", "as many others"), 1):
            send(port, round_ * options.count, options.count, options.count)
            apis = json.loads(ask("/api/v1/apis"))
            ask("/metrics")
            time.sleep(5)
            rows.append((name, memory_kib([proxy.pid])["rss_kib"], metric("rhumb_signals_bytes")))
        print("| after | resident | of it golden signals, by their own reckoning |\n|---|--:|--:|")
        for name, rss, signals in rows:
            print(f"| {name} | {rss / 1024:.1f} MiB | {signals / (1 << 20):.1f} MiB |")
        overflow = metric("rhumb_signals_overflow_total")
        sightings, dropped = metric("rhumb_sightings_dropped_total"), apis["dropped"]
        print(f"\ncounted as `other`: {overflow}; sightings dropped: {sightings}, and for want of room among APIs: {dropped};"
              f" operations found: {len(apis['operations'])}")
        top = json.loads(ask("/api/v1/top?by=consumer&window=60&limit=1000"))["items"]
        others = [item for item in top if item["name"] == "other"]
        print(f"of {len(top)} consumers of the last minute one is `other`, with {sum(item['requests'] for item in others)} requests")
        if not overflow or not others:
            print("!! nothing was counted as `other`", file=sys.stderr)
            return 1
        if rows[2][1] - rows[1][1] > GROWTH:
            print("!! memory still grows", file=sys.stderr)
            return 1
        return 0
    finally:
        stop(proxy)
        stop(backend)


if __name__ == "__main__":
    sys.exit(main())
