#!/usr/bin/env python3
"""What is left of the capacity when there is three times as much to do and 2 000 clients read slowly.

    bench/overload.py RHUMB [SECONDS]

One worker of RHUMB (an optimised build) in front of nginx, load by wrk, everything on this machine. Steps:

1. capacity: as many connections as bring the most requests per second;
2. overload: three times these connections, and 2 000 more that ask for 256 KiB and read 2 KiB per second;
3. after: the connections of step 1 again, two seconds after the overload has ended.

CONNECTIONS fixes those of step 1, QUEUE_DELAY (100ms) is the limit that the configuration sets: with a short one and
many connections requests are refused.

Prints goodput (answers with 200), p99 of them as wrk sees it, refused requests, resident memory and the state.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

SLOW = 2000
SLOW_BYTES = 2048

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:{port} backlog=8192; root {dir}/www; location = /small {{ return 200 "{small}"; }} }} }}
"""

RHUMB = """
admin: {{address: '127.0.0.1:{admin}'}}
workers: 1
accessLog: {{enabled: false}}
limits: {{connections: 100000}}
overload: {{memory: 1Gi, queueDelay: {delay}}}
listeners: {{web: {{address: 127.0.0.1, port: {port}}}}}
backends: {{peer: '127.0.0.1:{backend}'}}
routes: [{{on: web, to: peer}}]
"""

SCRIPT = """
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), summary.errors.status))
end
"""


def free():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Slow(threading.Thread):
    """Clients that read slowly, all in one thread."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.ended, self.read = port, threading.Event(), 0
        self.sockets = []

    def run(self):
        request = b"GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n"
        for _ in range(SLOW):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                sock.connect(("127.0.0.1", self.port))
                sock.sendall(request)
            except OSError:
                continue
            sock.setblocking(False)
            self.sockets.append(sock)
        while not self.ended.is_set():
            began = time.monotonic()
            for sock in self.sockets:
                try:
                    self.read += len(sock.recv(SLOW_BYTES))
                except OSError:
                    pass
            self.ended.wait(max(0.0, 1 - (time.monotonic() - began)))
        for sock in self.sockets:
            sock.close()


class Bench:
    def __init__(self, rhumb, seconds, directory):
        self.seconds, self.dir = seconds, directory
        self.port, self.admin, self.backend = free(), free(), free()
        os.makedirs(f"{directory}/www")
        with open(f"{directory}/www/large", "wb") as file:
            file.write(b"x" * (256 << 10))
        with open(f"{directory}/nginx.conf", "w") as file:
            file.write(NGINX.format(dir=directory, port=self.backend, small="x" * 500))
        with open(f"{directory}/rhumb.yaml", "w") as file:
            delay = os.environ.get("QUEUE_DELAY", "100ms")
            file.write(RHUMB.format(port=self.port, admin=self.admin, backend=self.backend, delay=delay))
        with open(f"{directory}/report.lua", "w") as file:
            file.write(SCRIPT)
        self.nginx = subprocess.Popen(["nginx", "-c", f"{directory}/nginx.conf", "-p", directory])
        self.log = open(f"{directory}/rhumb.log", "w")
        command = [rhumb, "run", "-c", f"{directory}/rhumb.yaml", "--admin-token-file", f"{directory}/token"]
        self.rhumb = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        for _ in range(200):
            try:
                if self.status()["state"] == "ready":
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("rhumb does not start: " + open(f"{directory}/rhumb.log").read())

    def status(self):
        token = open(f"{self.dir}/token").read().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.admin}/status", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def wrk(self, connections, seconds=None):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds or self.seconds}s", "--timeout", "20s"]
        command += ["-s", f"{self.dir}/report.lua", f"http://127.0.0.1:{self.port}/small"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        count, micros, p50, p99, wrong = map(int, re.search(r"RESULT (.*)", output).group(1).split())
        good = (count - wrong) / micros * 1e6
        errors = re.search(r"Socket errors: .*", output)
        return {"good": good, "refused": wrong / micros * 1e6, "p50": p50 / 1000, "p99": p99 / 1000,
                "errors": errors.group(0) if errors else ""}

    def watch(self, work):
        """The largest memory and the worst state while `work` runs."""
        seen = {"rss": 0, "buffers": 0, "delay": 0, "states": set()}
        ended = threading.Event()

        def look():
            while not ended.wait(0.1):
                overload = self.status()["overload"]
                seen["rss"] = max(seen["rss"], overload["residentBytes"])
                seen["buffers"] = max(seen["buffers"], overload["bufferBytes"])
                seen["delay"] = max(seen["delay"], overload["queueDelayMs"])
                seen["states"].add(overload["state"])

        thread = threading.Thread(target=look)
        thread.start()
        try:
            return work(), seen
        finally:
            ended.set()
            thread.join()

    def show(self, name, connections, result, seen):
        print(f"{name:<10} {connections:>5} connections  {result['good']:>8.0f} good/s  {result['refused']:>8.0f} refused/s  "
              f"p50 {result['p50']:>6.1f} ms  p99 {result['p99']:>7.1f} ms  resident {seen['rss'] >> 20:>4} MiB  "
              f"buffers {seen['buffers'] >> 20:>4} MiB  queue {seen['delay']:>4} ms  {'+'.join(sorted(seen['states']))}  "
              f"{result['errors']}", flush=True)

    def run(self):
        best, found = None, 0
        fixed = os.environ.get("CONNECTIONS")
        for connections in [int(fixed)] if fixed else (16, 64, 128, 256):
            result, seen = self.watch(lambda: self.wrk(connections, 3))
            self.show("try", connections, result, seen)
            if best is None or result["good"] > best["good"] * 1.03:
                best, found = result, connections
        capacity, seen = self.watch(lambda: self.wrk(found))
        self.show("capacity", found, capacity, seen)
        slow = Slow(self.port)
        slow.start()
        while len(slow.sockets) < SLOW and slow.is_alive() and time.monotonic():
            if self.status()["connections"] >= SLOW:
                break
            time.sleep(0.1)
        overload, seen = self.watch(lambda: self.wrk(found * 3))
        self.show("overload", found * 3, overload, seen)
        print(f"           {SLOW} slow readers had {slow.read >> 10} KiB, {self.status()['connections']} connections are open")
        slow.ended.set()
        slow.join()
        time.sleep(2)
        state = self.status()["overload"]["state"]
        after, seen = self.watch(lambda: self.wrk(found))
        self.show("after", found, after, seen)
        print(f"two seconds after: {state}; goodput under overload {overload['good'] / capacity['good']:.2f} of capacity, "
              f"afterwards {after['good'] / capacity['good']:.2f}")

    def end(self):
        for process in (self.rhumb, self.nginx):
            process.terminate()
            process.wait()


def main():
    rhumb, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(rhumb, seconds, directory)
        try:
            bench.run()
        finally:
            bench.end()
            print(open(f"{directory}/rhumb.log").read()[-3000:], file=sys.stderr)


if __name__ == "__main__":
    main()
