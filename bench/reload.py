#!/usr/bin/env python3
"""How long until a changed route is live, and what requests notice of it.

reload.py BINARY [--routes 10000] [--changes 20] [--out FILE.json]

For each way to write the same routes (the short form in one file; HTTPRoutes, 100 to a file; the same with a Policy for
each; HTTPRoutes, one to a file) it starts the binary, then changes one route again and again: a new file is written beside the old one and
renamed over it. Measured are

- live: from the rename to the first response that follows the change, asked for without pause on one connection;
- took: how long reading and compiling took, as the binary's log says;
- cpu: CPU time of all threads but the workers for one change, which a busy machine does not lengthen;
- requests: latency of requests on other connections, at rest and while changes go on.

Nothing but the standard library is needed. Times are in milliseconds.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

LAYOUTS = ["short form", "documents, 100 to a file", "documents with a Policy each, 100 to a file", "documents, one to a file"]

REST = 0.15  # between two changes, seconds: each is measured alone


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Http:
    """One kept-alive connection."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def get(self, path):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        data = self.rest
        while b"\r\n\r\n" not in data:
            data += self.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        while len(body) < length:
            body += self.receive()
        self.rest = body[length:]
        location = re.search(rb"(?i)location: http://([^:/\s]+)", head)
        return int(head[9:12]), location[1].decode() if location else ""

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        return data


def short_form(count, port, admin, version):
    lines = [f"admin: {{address: '127.0.0.1:{admin}'}}", f"listeners: {{web: {{address: 127.0.0.1, port: {port}}}}}", "routes:"]
    for n in range(count):
        lines.append(f"  - match: {{path: /r{n}/*}}\n    redirect: {{host: 'r{n}-{version if n == count // 2 else 0}.test'}}")
    return "\n".join(lines) + "\n"


def route_documents(n, version):
    """A route of Gateway API; what it answers needs no backend."""
    return f"""apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{n}}}
spec:
  parentRefs: [{{name: web}}]
  rules:
    - matches: [{{path: {{value: /r{n}}}}}]
      filters: [{{type: RequestRedirect, requestRedirect: {{hostname: r{n}-{version}.test}}}}]
"""


def policy_documents(n, version):
    """A route, and a Policy that is attached to it."""
    return f"""apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{n}}}
spec:
  parentRefs: [{{name: web}}]
  rules:
    - matches: [{{path: {{value: /r{n}}}}}]
---
apiVersion: rhumb.dev/v1alpha1
kind: Policy
metadata: {{name: r{n}}}
spec:
  targetRefs: [{{kind: HTTPRoute, name: r{n}}}]
  policies: {{redirect: {{hostname: 'r{n}-{version}.test'}}}}
"""


def gateway(port, admin):
    return f"""apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web}}
spec:
  gatewayClassName: rhumb
  addresses: [{{type: IPAddress, value: 127.0.0.1}}]
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: rhumb.dev/v1alpha1
kind: ProxyConfig
metadata: {{name: rhumb}}
spec: {{admin: {{address: '127.0.0.1:{admin}'}}}}
"""


class Layout:
    """Routes on disk: what to write at first, and the file that has the changed route."""

    def __init__(self, name, directory, count, port):
        self.name, self.directory, self.count, self.port = name, directory, count, port
        self.middle = count // 2
        self.admin = free_port()  # the same in every version: only the route changes
        if name == "short form":
            self.config = os.path.join(directory, "rhumb.yaml")
            self.write(self.config, short_form(count, port, self.admin, 0))
            return
        self.config = os.path.join(directory, "config")
        os.mkdir(self.config)
        self.write(os.path.join(self.config, "_gateway.yaml"), gateway(port, self.admin))
        self.step = 1 if name.endswith("one to a file") else 100
        for first in range(0, count, self.step):
            self.write(*self.file(first, 0))

    def file(self, first, version):
        documents = policy_documents if "Policy" in self.name else route_documents
        parts = [documents(n, version if n == self.middle else 0) for n in range(first, min(first + self.step, self.count))]
        return os.path.join(self.config, f"r{first:05}.yaml"), "---\n".join(parts)

    def prepare(self, version):
        """The new file beside the old one; the two paths."""
        if self.name == "short form":
            path, text = self.config, short_form(self.count, self.port, self.admin, version)
        else:
            path, text = self.file(self.middle - self.middle % self.step, version)
        fresh = os.path.join(self.directory, "fresh")
        self.write(fresh, text)
        return fresh, path

    @staticmethod
    def write(path, text):
        with open(path, "w") as file:
            file.write(text)


class Load(threading.Thread):
    """Requests one after another; their latencies."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.times, self.failed, self.stopped = port, [], 0, False

    def run(self):
        http = Http(self.port)
        while not self.stopped:
            begun = time.perf_counter()
            status, _ = http.get("/r1/x")
            self.times.append((time.perf_counter() - begun) * 1000)
            self.failed += status != 302
            time.sleep(0.001)


def cpu(pid):
    """CPU time that the threads of a process have used, the workers' excepted, in milliseconds."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/comm") as name, open(f"/proc/{pid}/task/{task}/schedstat") as stat:
                if not name.read().startswith("worker-"):
                    total += int(stat.read().split()[0])
        except OSError:
            pass
    return total / 1e6


def summary(times):
    times = sorted(times)
    at = lambda share: round(times[min(len(times) - 1, int(len(times) * share))], 2)
    return {"count": len(times), "p50": at(0.5), "p99": at(0.99), "max": round(times[-1], 2)}


def measure(binary, name, count, changes):
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        layout = Layout(name, directory, count, port)
        log = open(os.path.join(directory, "log"), "w+")
        begun = time.perf_counter()
        command = [binary, "run", "-c", layout.config]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, cwd=directory)
        try:
            while True:
                try:
                    http = Http(port)
                    break
                except OSError:
                    if process.poll() is not None or time.perf_counter() - begun > 120:
                        log.seek(0)
                        sys.exit(f"{binary} did not start:\n{log.read()[-2000:]}")
                    time.sleep(0.01)
            start = (time.perf_counter() - begun) * 1000
            path = f"/r{layout.middle}/x"
            assert http.get(path) == (302, f"r{layout.middle}-0.test"), http.get(path)

            load = Load(port)
            load.start()
            time.sleep(2)
            quiet = load.times[:]
            live, used = [], []
            marked = len(load.times)
            for version in range(1, changes + 1):
                fresh, old = layout.prepare(version)
                time.sleep(REST)
                before = cpu(process.pid)
                begun = time.perf_counter()
                os.rename(fresh, old)
                while http.get(path)[1] != f"r{layout.middle}-{version}.test":
                    if time.perf_counter() - begun > 60:
                        sys.exit("the change never came")
                live.append((time.perf_counter() - begun) * 1000)
                used.append(cpu(process.pid) - before)
            load.stopped = True
            load.join()
            if load.failed:
                sys.exit(f"{load.failed} requests failed")
            log.seek(0)
            log.flush()
            took = [int(n) for n in re.findall(r"took_ms=(\d+)", log.read())]
            return {
                "routes": count,
                "start_ms": round(start),
                "live_ms": {**summary(live), "mean": round(statistics.mean(live), 1)},
                "cpu_ms": summary(used),
                "took_ms": summary(took[1:]),
                "requests_at_rest_ms": summary(quiet),
                "requests_while_changing_ms": summary(load.times[marked:]),
            }
        finally:
            process.terminate()
            process.wait()
            log.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--routes", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--layout", action="append", help="only this one")
    parser.add_argument("--out")
    args = parser.parse_args()
    results = {}
    for name in args.layout or LAYOUTS:
        # A directory holds at most 10 000 files, the Gateway's among them.
        count = min(args.routes, 9_999) if name.endswith("one to a file") else args.routes
        results[name] = result = measure(os.path.abspath(args.binary), name, count, args.changes)
        live, took = result["live_ms"], result["took_ms"]
        print(f"{name}: {count} routes: live after p50 {live['p50']} ms, max {live['max']} ms (reading took p50 {took['p50']} ms, CPU p50 {result['cpu_ms']['p50']} ms); "
              f"requests p99 {result['requests_at_rest_ms']['p99']} ms at rest, {result['requests_while_changing_ms']['p99']} ms while changing",
              flush=True)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(results, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
