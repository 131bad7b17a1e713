#!/usr/bin/env python3
"""What a mesh on one machine does for minutes, with a control plane: prints a line per measurement.

usage: mesh_run.py outage [--minutes 5]        the control plane is killed under load, and comes back
       mesh_run.py rolling [--rounds 3]        every instance of every service is replaced under load
       mesh_run.py lazy [--services 10000]     memory of a captured sidecar that calls ten of them
       mesh_run.py rest [--services 10] [--seconds 30]
                                               a captured sidecar that nobody calls: memory, how often it wakes, how long a
                                               start takes
       mesh_run.py watch [--services 10] [--seconds 30]
                                               the same without numbers, under the program that RHUMB_UNDER names
       mesh_run.py endpoints [--services 1000] [--changes 300]
                                               from a change of an endpoint to the ack of a sidecar that has all services

With --json FILE what was found is written there too. Every answer but a 200 and every connection that ends counts as a failure. `lazy` and `rest` need root (marks of sockets) and the ports
15001, 15006 and 15053. RHUMB names the binary (default: rhumb on the path).
"""

import argparse
import http.client
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

RHUMB = os.environ.get("RHUMB", "rhumb")
# What sidecars run under: a program that watches them, with its options.
UNDER = os.environ.get("RHUMB_UNDER", "").split()
HOP = pathlib.Path(__file__).resolve().parent.parent / "tests/peers/hop.py"
REGISTERED = "registered at the control plane"
PATIENCE = 120
# How long a process may take to end. Unit: seconds.
FAREWELL = 20


def free():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def until(what, look, limit=PATIENCE):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    sys.exit(f"waited in vain: {what}")


class Process:
    def __init__(self, command, log):
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def says(self, text):
        return text in self.log.read_text(errors="replace")

    def end(self, how=signal.SIGTERM):
        self.child.send_signal(how)
        return self.child.wait(PATIENCE)

    def memory_mib(self):
        """All memory by kind: Rss, Pss, Pss_Anon (what only this process has), …"""
        lines = pathlib.Path(f"/proc/{self.child.pid}/smaps_rollup").read_text().splitlines()[1:]
        return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}

    def pss_mib(self):
        return self.memory_mib()["Pss"]

    def wakeups(self):
        """How often its threads were woken, or had to make room, so far."""
        threads = pathlib.Path(f"/proc/{self.child.pid}/task").glob("*/status")
        lines = [line for thread in threads for line in thread.read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if "voluntary_ctxt_switches" in line)

    def cpu_ms(self):
        return sum(map(int, pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(") ", 1)[1].split()[11:13])) * 10


class Site:
    """A control plane on this machine, and what joins it."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.listen, self.admin = f"127.0.0.1:{free()}", free()
        self.processes, self.count = [], 0
        self.start_control()

    def start_control(self):
        at = self.directory
        self.control = self.start(
            [RHUMB, "control", "--listen", self.listen, "--admin", f"127.0.0.1:{self.admin}", "--directory", at / "store",
             "--authority", at / "authority", "--admin-token-file", at / "token"], "control")
        until("the control plane is ready", lambda: self.control.says("control plane is ready"))

    def start(self, command, name):
        self.count += 1
        process = Process(command, self.directory / f"{name}-{self.count}.log")
        self.processes.append(process)
        return process

    def api(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=PATIENCE)
        token = (self.directory / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request(method, f"/api/v1/{path}", json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {content[:400]!r}")
        return json.loads(content)

    def apply(self, documents):
        return self.api("POST", "documents", {"documents": documents, "message": "bench"})["revision"]

    def home(self, name, account):
        """A directory for a proxy, with a token to join, and its options that name them."""
        home = self.directory / name
        if not home.exists():
            (home / "own").mkdir(parents=True)
            made = subprocess.run(
                [RHUMB, "token", "create", "--namespace", "shop", "--service-account", account, "--authority",
                 str(self.directory / "authority")], capture_output=True, text=True, check=True)
            (home / "join").write_text(next(line for line in made.stdout.splitlines() if line.startswith("rhumb-join-")))
            (home / "own/process.yaml").write_text(
                "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {name: process}\n"
                f"spec: {{timeouts: {{drainDelay: 200ms}}, admin: {{address: '127.0.0.1:{free()}'}}}}\n")
        return ["-c", home / "own", "--control", self.listen, "--join-token-file", home / "join", "--state", home / "state",
                "--admin-token-file", home / "token"]

    def sidecar(self, name, account, options, application):
        home = self.home(name, account)
        return self.start([*UNDER, RHUMB, "sidecar", *home, "--namespace", "shop", "--workload", name, "--service-account", account,
                           *options, "--", *application], name)

    def gateway(self, name):
        self.apply([{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name, "namespace": "shop"},
                     "spec": {"gatewayClassName": "rhumb",
                              "listeners": [{"name": "web", "port": free(), "protocol": "HTTP",
                                             "allowedRoutes": {"namespaces": {"from": "All"}}}]}}])
        return self.start([*UNDER, RHUMB, "run", *self.home(name, name), "--gateway", f"shop/{name}"], name)

    def instance(self, service, number, place, calls=None):
        """How an instance is started: its options never change."""
        address, port = f"127.7.{place}.{number}", free()
        options = ["--service", service, "--address", address, "--port", f"80={port}:http", "--tunnel", f"{address}:{free()}"]
        application = [sys.executable, HOP, f"{service}-{number}", port]
        if calls:
            at = free()
            options += ["--upstream", f"{calls}=127.0.0.1:{at}"]
            application.append(f"http://127.0.0.1:{at}/")

        def start():
            process = self.sidecar(f"{service}-{number}", service, options, application)
            until("an instance is registered", lambda: process.says(REGISTERED))
            return process

        return start

    def caller(self, name, at):
        return self.sidecar(name, "web", ["--upstream", f"orders=127.0.0.1:{at}"], ["sleep", "100000"])

    def end(self):
        """Ends what runs, callers first; what counts for itself says so when it ends, so it gets the time for it."""
        for process in reversed(self.processes):
            if process.child.poll() is None:
                process.child.terminate()
                try:
                    process.child.wait(FAREWELL)
                except subprocess.TimeoutExpired:
                    process.child.kill()
                    process.child.wait()


class Load:
    """Threads that call; what came of each call."""

    def __init__(self, port, threads=4, pause=0.002):
        self.port, self.pause, self.good, self.failed = port, pause, 0, []
        self.seen, self.lock, self.stopped = set(), threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def work(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.stopped.is_set():
            try:
                connection.request("GET", "/cart", headers={"Host": "orders"})
                answer = connection.getresponse()
                text = answer.read().decode()
                wrong = None if answer.status == 200 else f"{answer.status} {text[:200]}"
            except (OSError, http.client.HTTPException) as error:
                wrong, text = repr(error), ""
                connection.close()
            with self.lock:
                if wrong:
                    self.failed.append(f"{time.strftime('%H:%M:%S')} {wrong}")
                else:
                    self.good += 1
                    self.seen.add(text)
            time.sleep(self.pause)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        for failure in self.failed[:10]:
            print("  failure:", failure)
        return f"{self.good} requests, {len(self.failed)} failed"


def service(name):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 9000, "appProtocol": "http"}]}}


def workload(number, address):
    return {"apiVersion": "rhumb.dev/v1alpha1", "kind": "Workload",
            "metadata": {"name": f"s{number}-1", "namespace": "shop"},
            "spec": {"address": address, "services": [f"s{number}"], "serviceAccount": f"s{number}"}}


def answers(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/cart", headers={"Host": "orders"})
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200
    except (OSError, http.client.HTTPException):
        return False


def outage(site, arguments):
    site.apply([service("orders")])
    site.instance("orders", 1, 6)()
    site.instance("orders", 2, 6)()
    at, other = free(), free()
    site.caller("web", at)
    until("a call", lambda: answers(at))
    late = site.caller("late", other)
    until("a call of the other caller", lambda: answers(other))
    time.sleep(2)
    late.end()
    load = Load(at)
    time.sleep(2)
    site.control.end(signal.SIGKILL)
    killed = time.monotonic()
    time.sleep(arguments.minutes * 30)
    began = time.monotonic()
    site.caller("late", other)
    until("a call of one that started without a control plane", lambda: answers(other))
    started = time.monotonic() - began
    time.sleep(max(0, arguments.minutes * 60 - (time.monotonic() - killed)))
    away = time.monotonic() - killed
    site.start_control()
    back = time.monotonic()
    site.instance("orders", 3, 6)()
    until("the new instance is called", lambda: "orders-3" in load.seen)
    converged = time.monotonic() - back
    # Whoever does not come back is given up after half a minute: nobody is lost then either.
    time.sleep(35)
    print(f"control plane away for {away:.0f} s: {load.stop()}; a proxy started meanwhile and was called through after "
          f"{started:.1f} s; a new instance was called {converged:.1f} s after it was back")


def rolling(site, arguments):
    site.apply([service("orders"), service("stock")])
    starts = [site.instance("stock", 1, 5), site.instance("stock", 2, 5),
              site.instance("orders", 1, 6, "stock"), site.instance("orders", 2, 6, "stock")]
    running = [start() for start in starts]
    at = free()
    site.caller("web", at)
    until("a call", lambda: answers(at))
    load = Load(at)
    began = time.monotonic()
    for _ in range(arguments.rounds):
        for place, start in enumerate(starts):
            time.sleep(1)
            running[place].end()
            running[place] = start()
    print(f"{arguments.rounds * len(starts)} instances of 2 services replaced in {time.monotonic() - began:.0f} s: {load.stop()}")


def question(name):
    head = struct.pack(">HHHHHH", 4711, 0x0100, 1, 0, 0, 0)
    return head + b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"


def look_up(name):
    """True when the sidecar knows an address of a name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.sendto(question(name), ("127.0.0.1", 15053))
        try:
            answer = asking.recv(512)
        except OSError:
            return False
    return struct.unpack(">H", answer[6:8])[0] > 0


def fill(site, services):
    for first in range(0, services, 1000):
        site.apply([document for number in range(first, min(first + 1000, services))
                    for document in (service(f"s{number}"), workload(number, f"10.{number // 250}.{number % 250}.1"))])


def captured(site, services):
    fill(site, services)
    sidecar = site.sidecar("web", "web", ["--capture"], ["sleep", "100000"])
    until("the sidecar runs", lambda: sidecar.says("configuration is live"))
    return sidecar


def lazy(site, arguments):
    sidecar = captured(site, arguments.services)
    time.sleep(3)
    before = sidecar.pss_mib()
    began = time.monotonic()
    for number in range(10):
        until("a name is found", lambda number=number: look_up(f"s{number * 7}.shop.svc.cluster.local"))
    found = (time.monotonic() - began) / 10
    time.sleep(3)
    print(f"{arguments.services} services at the control plane ({site.control.pss_mib():.0f} MiB): a captured sidecar has "
          f"{before:.1f} MiB PSS, {sidecar.pss_mib():.1f} MiB with ten services found, {found * 1e3:.1f} ms each")


def started(site, name, options):
    """A sidecar, and how long it took from its start to that of its application. Unit: milliseconds."""
    at = site.directory / f"{name}-began"
    at.unlink(missing_ok=True)
    began = time.time()
    sidecar = site.sidecar(name, "web", options, ["sh", "-c", f"date +%s.%N > {at}.new; mv {at}.new {at}; exec sleep 100000"])
    until("the application starts", at.exists)
    return sidecar, (float(at.read_text()) - began) * 1e3


def rest(site, arguments):
    fill(site, arguments.services)
    sidecar, first = started(site, "web", ["--capture"])
    # What was learned at the start is saved, and connections of the start have ended.
    time.sleep(5)
    woken, cpu = sidecar.wakeups(), sidecar.cpu_ms()
    time.sleep(arguments.seconds)
    woken, cpu = sidecar.wakeups() - woken, sidecar.cpu_ms() - cpu
    memory = sidecar.memory_mib()
    again = []
    for _ in range(5):
        sidecar.end()
        sidecar, took = started(site, "web", ["--capture"])
        again.append(took)
        time.sleep(1)
    again.sort()
    print(f"{arguments.services} services at the control plane, a captured sidecar at rest: {memory['Rss']:.1f} MiB resident, "
          f"{memory['Pss']:.1f} PSS, {memory['Pss_Anon']:.1f} its own; {woken / arguments.seconds:.2f} times woken per second, "
          f"{cpu / arguments.seconds:.2f} ms of CPU per second; ready after {again[2]:.0f} ms, with its first certificate after {first:.0f} ms")
    return {"services": arguments.services, "rss_mib": memory["Rss"], "pss_mib": memory["Pss"], "own_mib": memory["Pss_Anon"],
            "wakeups_per_second": woken / arguments.seconds, "cpu_ms_per_second": cpu / arguments.seconds,
            "ready_ms": again[2], "first_ready_ms": first}


def watch(site, arguments):
    """What a program sees that proxies of a mesh run under. A sidecar would start its application by way of that program's file,
    cannot, and ends: it is there for the start, and gateways for the rest."""
    captured(site, arguments.services)
    # The second one goes on with what the first has saved.
    for _ in range(2):
        gateway = site.gateway("edge")
        until("the gateway runs", lambda gateway=gateway: gateway.says("configuration is live"))
        time.sleep(arguments.seconds)
        gateway.end()


def endpoints(site, arguments):
    fill(site, arguments.services)
    calls = [f"s{number}=127.8.{number // 250}.{number % 250 + 1}:7001" for number in range(arguments.services)]
    options = [word for call in calls for word in ("--upstream", call)]
    sidecar = site.sidecar("web", "web", options, ["sleep", "100000"])
    until("the sidecar runs", lambda: sidecar.says("the application starts"))
    time.sleep(2)

    def change(numbers, last):
        began = time.monotonic()
        revision = site.apply([workload(number, f"10.{number // 250}.{number % 250}.{last}") for number in numbers])
        while True:
            audience = site.api("GET", f"revisions/{revision}/audience?waitMs=20000")
            if not audience.get("waiting"):
                return time.monotonic() - began
            time.sleep(0.001)

    before = sidecar.cpu_ms()
    times = sorted(change([number % arguments.services], 2 + number // arguments.services) for number in range(arguments.changes))
    spent = (sidecar.cpu_ms() - before) / arguments.changes
    at = lambda share: times[int((len(times) - 1) * share)] * 1e3
    whole = change(range(arguments.services), 200)
    print(f"{arguments.services} services in a sidecar, {arguments.changes} changes of an endpoint, from the request to the ack: "
          f"p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, {spent:.2f} ms of the sidecar's CPU each; all {arguments.services} in one "
          f"revision: {whole * 1e3:.0f} ms; {sidecar.pss_mib():.1f} MiB PSS")


PARTS = {"outage": outage, "rolling": rolling, "lazy": lazy, "rest": rest, "watch": watch, "endpoints": endpoints}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=PARTS)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--services", type=int)
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if arguments.services is None:
        arguments.services = {"lazy": 10_000, "rest": 10, "watch": 10}.get(arguments.what, 1_000)
    with tempfile.TemporaryDirectory() as directory:
        site = Site(directory)
        try:
            found = PARTS[arguments.what](site, arguments)
            if arguments.json:
                pathlib.Path(arguments.json).write_text(json.dumps(found, indent=1) + "\n")
        finally:
            site.end()


if __name__ == "__main__":
    main()
