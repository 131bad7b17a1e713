#!/usr/bin/env python3
"""What is left of the capacity when there is three times as much to do and 2 000 clients read slowly.

    bench/overload.py RHUMB [SECONDS]

One worker of RHUMB (an optimised build) on one core; the bench's own backend and load generators on the others. Steps:

1. capacity: as many connections in a closed loop as bring the most requests per second;
2. overload: TIMES (3) times that rate in an open loop, over at most CLIENTS (4000) connections, and SLOW (2000) clients more
   that ask for 256 KiB and read 2 KiB per second;
3. after: the load of step 1 again, two seconds after the overload has ended.

So that RHUMB is what is overloaded, and not the generator beside it, each request has a path of 1500 letters
that is compared with RULES (40) regular expressions before it finds its route. QUEUE_DELAY (100ms) is the limit that the configuration sets, TOOLS where the bench's tools are (see setup.sh).

Prints goodput (answers with 200), the latency of those from when they were sent, refused requests, those that found no
connection within a second, resident memory and the state.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

SLOW = int(os.environ.get("SLOW", "2000"))
SLOW_BYTES = 2048
RULES = int(os.environ.get("RULES", "40"))
PATH = "/" + "a" * 1500 + "/b/500"
TOOLS = os.environ.get("TOOLS") or os.path.join(
    os.environ.get("CARGO_TARGET_DIR") or os.path.expanduser("~/.cache/rhumb/bench-target"), "release")


def pinned(cores, *command):
    """The command on the first core alone, or on all others; on one core everything shares it."""
    count = os.cpu_count() or 1
    cores = "0" if count == 1 else cores if cores == "0" else f"1-{count - 1}"
    return ["taskset", "-c", cores, *command]

RHUMB = """
admin: {{address: '127.0.0.1:{admin}'}}
workers: 1
accessLog: {{enabled: false}}
limits: {{connections: 100000}}
overload: {{memory: 1Gi, queueDelay: {delay}}}
listeners: {{web: {{address: 127.0.0.1, port: {port}}}}}
backends: {{peer: '127.0.0.1:{backend}'}}
routes: [{rules}{{on: web, to: peer}}]
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
        request = b"GET /b/262144 HTTP/1.1\r\nHost: a.test\r\n\r\n"
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
        with open(f"{directory}/rhumb.yaml", "w") as file:
            delay = os.environ.get("QUEUE_DELAY", "100ms")
            rules = "".join(f"{{on: web, match: {{path: '~/[a-z]+[0-9]x{i}'}}, to: peer}}, " for i in range(RULES))
            file.write(RHUMB.format(port=self.port, admin=self.admin, backend=self.backend, delay=delay, rules=rules))
        self.peer = subprocess.Popen(pinned("1-", f"{TOOLS}/backend", "--addr", f"127.0.0.1:{self.backend}"))
        self.log = open(f"{directory}/rhumb.log", "w")
        command = [rhumb, "run", "-c", f"{directory}/rhumb.yaml", "--admin-token-file", f"{directory}/token"]
        self.rhumb = subprocess.Popen(pinned("0", *command), stdout=self.log, stderr=self.log)
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

    def tool(self, name, *arguments):
        command = pinned("1-", f"{TOOLS}/{name}", "--addr", f"127.0.0.1:{self.port}", "--path", PATH, *arguments)
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return json.loads(output.splitlines()[-1])

    def closed(self, connections, seconds=None):
        """As many requests as that many connections bring."""
        result = self.tool("load", "--length", "500", "--conns", f"{connections}", "--warm", "0.5",
                           "--dur", f"{seconds or self.seconds}")
        return {"good": result["rps"], "p50": result["p50_us"] / 1000, "p99": result["p99_us"] / 1000,
                "refused": 0, "given_up": 0}

    def open(self, rate, connections):
        result = self.tool("load_open", "--rate", f"{rate:.0f}", "--conns", f"{connections}", "--warm", "2",
                           "--dur", f"{self.seconds}")
        return {**result, "p50": result["sent_p50"], "p99": result["sent_p99"]}

    def cpu(self):
        """Seconds of CPU that RHUMB has used."""
        with open(f"/proc/{self.rhumb.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def watch(self, work):
        """The largest memory and the worst state while `work` runs."""
        seen = {"rss": 0, "buffers": 0, "delay": 0, "states": set()}
        ended = threading.Event()
        cpu, begun = self.cpu(), time.monotonic()

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
            result = work()
            seen["cpu"], seen["time"] = self.cpu() - cpu, time.monotonic() - begun
            return result, seen
        finally:
            ended.set()
            thread.join()

    def show(self, name, what, result, seen):
        # What others take of the core is not what is lost to the overload: this says what a second of CPU brings.
        result["per_cpu_second"] = result["good"] * seen["time"] / max(seen["cpu"], 0.01)
        cpu = seen["cpu"] * 1e6 / max(1, result["good"] * seen["time"])
        print(f"{name:<9} {what:<22} {result['good']:>7.0f} good/s  p50 {result['p50']:>6.1f}  p99 {result['p99']:>6.1f} ms  "
              f"{result['refused']:>7.0f} refused/s  {result['given_up']:>7.0f} given up/s  {cpu:>5.1f} us CPU per good, "
              f"{seen['cpu'] / seen['time']:.2f} cores  "
              f"resident {seen['rss'] >> 20:>4} MiB  buffers {seen['buffers'] >> 20:>3} MiB  queue {seen['delay']:>4} ms  "
              f"{'+'.join(sorted(seen['states']))}", flush=True)

    def run(self):
        best, found = None, 0
        fixed = os.environ.get("CONNECTIONS")
        for connections in [int(fixed)] if fixed else (32, 64, 128, 256):
            result, seen = self.watch(lambda: self.closed(connections, 2))
            self.show("try", f"{connections} connections", result, seen)
            if best is None or result["good"] > best["good"] * 1.03:
                best, found = result, connections
        capacity, seen = self.watch(lambda: self.closed(found))
        self.show("capacity", f"{found} connections", capacity, seen)
        capacity = max(capacity, best, key=lambda result: result["good"])
        slow = Slow(self.port)
        slow.start()
        while len(slow.sockets) < SLOW and slow.is_alive():
            if self.status()["connections"] >= SLOW:
                break
            time.sleep(0.1)
        rate = capacity["good"] * float(os.environ.get("TIMES", "3"))
        overload, seen = self.watch(lambda: self.open(rate, int(os.environ.get("CLIENTS", "4000"))))
        self.show("overload", f"{rate:.0f} per second", overload, seen)
        print(f"          {overload}; {SLOW} slow readers had {slow.read >> 10} KiB")
        slow.ended.set()
        slow.join()
        time.sleep(2)
        state = self.status()["overload"]["state"]
        after, seen = self.watch(lambda: self.closed(found))
        self.show("after", f"{found} connections", after, seen)
        print(f"two seconds after: {state}; goodput under overload {overload['good'] / capacity['good']:.2f} of capacity "
              f"({overload['per_cpu_second'] / capacity['per_cpu_second']:.2f} by CPU time), afterwards {after['good'] / capacity['good']:.2f}")

    def end(self):
        for process in (self.rhumb, self.peer):
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
