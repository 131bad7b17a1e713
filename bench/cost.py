#!/usr/bin/env python3
"""What seeing costs: CPU time per request of one binary with more and more of it on, in one run.

    bench/cost.py --rhumb PATH [--rounds 7] [--seconds 1.5] [--label cost] [--publish]

One process per step, each with one worker on CPU 0, all side by side; load, backend and collector have CPU 1. They take turns in
rounds whose order alternates, and what a step costs over the first one is the median of the differences by round. The collector is
opentelemetry-proto's (tests/peers/otlp_collector.py); a step whose spans, lines or answers are not there is no step.
`--publish` writes the section "Cost of seeing" of BENCHMARKS.md.
"""

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import measure
from contenders import BACKENDS, default_rhumb
from measure import LOAD_CPU, WARM, complain, cpu_ns, start, stop, tools, tree, wait_for_port
from report import conditions

HERE = Path(__file__).resolve().parent
CONNECTIONS, LENGTH, ROUTES = 64, 1024, 100
SECTION = "## Cost of seeing"
# What all of it together may cost over nothing of it. Unit: microseconds.
GOAL = 1.5


@dataclass(frozen=True)
class Step:
    name: str
    title: str
    signals: str = "{enabled: false}"
    has_log: bool = False
    has_traces: bool = False
    # What happens with taps before the measurement: nothing, one that is over, or one that is open and wants nothing.
    tap: str = ""


STEPS = [
    Step("off", "nothing but `/metrics`"),
    Step("signals", "golden signals and edges", "{apis: false}"),
    Step("log", "and the access log, in a file", "{apis: false}", has_log=True),
    Step("apis", "and the API finder", "{}", has_log=True),
    Step("traces", "and 1 % of traces to a collector: all together", "{}", True, True),
    Step("closed", "the same after a tap and a trace have been there", "{}", True, True, "closed"),
    Step("tap", "the same with a tap open that wants no request", "{}", True, True, "open"),
]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """The binary with what a step has on."""

    def __init__(self, step: Step, binary: Path, directory: Path, collector: int):
        self.step, self.dir = step, directory
        self.port, self.admin = free(), free()
        self.log, self.errors = directory / "access.log", directory / "output.log"
        directory.mkdir(parents=True, exist_ok=True)
        log = f"{{path: '{self.log}'}}" if step.has_log else "{enabled: false}"
        traces = f"otlp: {{url: 'http://127.0.0.1:{collector}/v1/traces'}}, percentage: 1"
        policies = f"policies: {{tracing: {{{traces}}}}}" if step.has_traces else ""
        routes = "\n".join(f"  - {{match: {{path: '/svc{n:05}/*'}}, to: app}}" for n in range(ROUTES))
        # Apart: the directory of the configuration is watched, and the log in it would be.
        (directory / "config").mkdir()
        config = directory / "config" / "rhumb.yaml"
        config.write_text(f"""
workers: 1
admin: {{address: '127.0.0.1:{self.admin}'}}
accessLog: {log}
signals: {step.signals}
listeners: {{web: {{address: 127.0.0.1, port: {self.port}}}}}
backends: {{app: '127.0.0.1:{BACKENDS["h1"]}'}}
{policies}
routes:
{routes}
""")
        command = [str(binary), "run", "-c", str(config), "--admin-token-file", str(directory / "token")]
        self.process = start(command, measure.PROXY_CPU, self.errors)
        if not wait_for_port(self.port, self.process):
            raise SystemExit(f"{step.name} does not start: {self.errors.read_text()[-2000:]}")
        self.open_tap()

    def open_tap(self) -> None:
        if not self.step.tap:
            return
        for page in ("tap", "trace"):
            opened = threading.Event()
            threading.Thread(target=self.hold, args=(page, opened), daemon=True).start()
            if not opened.wait(10):
                raise SystemExit(f"{page} does not open")
        # What one tap costs is asked for, and a trace closes like it.
        if self.step.tap == "closed":
            time.sleep(2.5)

    def hold(self, page: str, opened: threading.Event) -> None:
        is_closed = self.step.tap == "closed" or page == "trace"
        seconds = 1 if is_closed else 600
        token = (self.dir / "token").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=700)
        target = f"/api/v1/{page}?filter=request.path%20%3D%3D%20%27%2Fno%27&seconds={seconds}"
        connection.request("GET", target, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        if answer.status == 200:
            opened.set()
        try:
            while answer.read1(4096):
                pass
        except (OSError, http.client.HTTPException):
            # The process ends before the tap.
            return

    def sample(self, seconds: float) -> float:
        """CPU time per request, in microseconds."""
        command = [str(tools() / "load"), "--addr", f"127.0.0.1:{self.port}", "--conns", str(CONNECTIONS)]
        command += ["--routes", str(ROUTES), "--path", f"/svc{{}}/b/{LENGTH}", "--length", str(LENGTH)]
        command += ["--warm", str(WARM), "--dur", str(seconds)]
        pids = tree(self.process.pid)
        tool = subprocess.Popen(["taskset", "-c", str(LOAD_CPU), *command], stdout=subprocess.PIPE, text=True)
        marks, result = [], {}
        for line in tool.stdout:
            if line.startswith("{"):
                result = json.loads(line)
            else:
                marks.append(cpu_ns(pids))
        if tool.wait() != 0 or len(marks) != 2 or not result or result["errors"]:
            raise SystemExit(f"{self.step.name}: the load failed: {result}")
        self.requests = result["requests"]
        if self.step.has_log:
            if os.path.getsize(self.log) < self.requests * 100:
                raise SystemExit(f"{self.step.name}: the access log is not there")
            os.truncate(self.log, 0)
        return (marks[1] - marks[0]) / 1e3 / self.requests


class Collector:
    def __init__(self, directory: Path):
        self.port, self.file = free(), directory / "spans"
        python = os.environ.get("RHUMB_PYTHON") or str(Path.home() / ".cache/rhumb/venv/bin/python")
        script = HERE.parent / "tests/peers/otlp_collector.py"
        command = [python, str(script), "http", str(self.file), str(self.port)]
        self.process = start(command, LOAD_CPU, directory / "collector.log")
        if not wait_for_port(self.port, self.process):
            raise SystemExit(f"no collector: {(directory / 'collector.log').read_text()[-1000:]}")

    def spans(self) -> int:
        with open(self.file, "rb") as file:
            return sum(1 for _ in file)


def rows(samples: dict[str, list[float]]) -> list[tuple[Step, float, float, float]]:
    """Of each step: the median, how much more than the first one, and how far its differences scatter (quartiles)."""
    found = []
    for step in STEPS:
        mine = samples[step.name]
        over = [mine - off for mine, off in zip(mine, samples["off"])]
        cuts = statistics.quantiles(over, n=4) if len(over) > 2 else [0, 0, 0]
        found.append((step, statistics.median(mine), statistics.median(over), cuts[2] - cuts[0]))
    return found


def section(samples: dict[str, list[float]], seconds: float) -> str:
    table = rows(samples)
    over = {step.name: more for step, _, more, _ in table}
    closed = statistics.median(c - t for c, t in zip(samples["closed"], samples["traces"]))
    lines = [SECTION, "", "CPU time per request of one binary, HTTP/1.1, 1 KiB, 100 routes; each line has all of those above it.", ""]
    lines += ["| on | CPU per request | over nothing | scatter |", "|---|--:|--:|--:|"]
    for step, median, more, scatter in table:
        lines.append(f"| {step.title} | {median:.2f} µs | {more:+.2f} µs | {scatter:.2f} µs |")
    about = conditions()
    verdict = "kept" if over["traces"] <= GOAL else f"missed: {over['traces']:.2f} µs"
    lines += [
        "",
        f"Promise: all together at most {GOAL} µs over nothing: {verdict}. Taps and traces that are closed cost {closed:+.2f} µs.",
        f"{len(samples['off'])} rounds of {seconds} s in turns, medians of differences by round; scatter: between the quartiles.",
        f"{about.get('began', about.get('started', ''))}, load average {os.getloadavg()[0]:.1f}; `bench/cost.py`.",
        "",
    ]
    return "\n".join(lines)


def publish(text: str) -> None:
    """Puts the section in place of the old one, or before that of instructions."""
    path = HERE.parent / "BENCHMARKS.md"
    parts = path.read_text().split("\n## ")
    name = SECTION.removeprefix("## ")
    parts = [part for part in parts if not part.startswith(name)]
    place = next((at for at, part in enumerate(parts) if part.startswith("Instructions")), len(parts))
    parts.insert(place, text.removeprefix("## "))
    path.write_text("\n## ".join(parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rhumb", type=Path, default=default_rhumb())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--steps", default="", help="names separated by commas (default: all); `off` is always one")
    parser.add_argument("--label", default="cost", help="name of the file in bench/out")
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    chosen = options.steps.split(",") if options.steps else [step.name for step in STEPS]
    directory = HERE / "run" / "cost"
    subprocess.run(["rm", "-rf", str(directory)], check=True)
    directory.mkdir(parents=True)
    os.sched_setaffinity(0, {LOAD_CPU})
    collector = Collector(directory)
    running = [collector.process]
    backend = start([str(tools() / "backend"), "--addr", f"127.0.0.1:{BACKENDS['h1']}"], LOAD_CPU, directory / "backend.log")
    running.append(backend)
    samples: dict[str, list[float]] = {step.name: [] for step in STEPS}
    try:
        if not wait_for_port(BACKENDS["h1"], backend):
            raise SystemExit("the backend does not listen")
        processes = []
        for step in STEPS:
            if step.name == "off" or step.name in chosen:
                processes.append(Process(step, options.rhumb, directory / step.name, collector.port))
                running.append(processes[-1].process)
        for round_ in range(options.rounds):
            for process in processes if round_ % 2 == 0 else reversed(processes):
                samples[process.step.name].append(process.sample(options.seconds))
            print(f"# round {round_ + 1} of {options.rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        time.sleep(2)
        if any(process.step.has_traces for process in processes) and collector.spans() == 0:
            raise SystemExit("no span has reached the collector")
    finally:
        for process in running:
            stop(process)
    is_whole = len(processes) == len(STEPS)
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    (out / f"{options.label}.json").write_text(json.dumps(samples, indent=1))
    if not is_whole:
        for process in processes:
            name = process.step.name
            over = statistics.median(a - b for a, b in zip(samples[name], samples["off"]))
            print(f"{name:8} {statistics.median(samples[name]):.2f} µs {over:+.2f}")
        return 0
    text = section(samples, options.seconds)
    (out / f"{options.label}.md").write_text(text)
    print(text)
    if options.publish:
        publish(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
