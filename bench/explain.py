#!/usr/bin/env python3
"""Where the time of a proxy goes: what a tool says about it while it is under the load of a scenario.

  bench/profile.sh  [--contenders rhumb,nginx] [--scenario h1-1k]   CPU samples by symbol (perf)
  bench/syscalls.sh [--contenders rhumb,nginx] [--scenario h1-1k]   system calls per request (strace)
"""

import argparse
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import measure
from contenders import Bare, Envoy, HaProxy, Nginx, Rhumb, default_rhumb
from run import HERE, raise_open_files
from scenarios import SCENARIOS, Scenario

# Samples per second. Prime, so that it beats with nothing.
FREQUENCY = 3989
# Seconds of load before the tool looks.
SETTLE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["profile", "syscalls"])
    parser.add_argument("--contenders", default="rhumb", help="names separated by commas (default: rhumb)")
    parser.add_argument("--scenario", default="h1-1k", help="one of run.py --list (default: h1-1k)")
    parser.add_argument("--rhumb", type=Path, default=default_rhumb(), help="the binary (default: $RHUMB_BIN or the release build)")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long the tool looks (default: 4)")
    parser.add_argument("--top", type=int, default=40, help="symbols shown (default: 40)")
    parser.add_argument("--callers", action="store_true", help="profile: record call graphs (needs frame pointers) into the data file")
    options = parser.parse_args()
    scenario = SCENARIOS[options.scenario]
    if scenario.tool == "idle":
        parser.error("an idle scenario has no load to look at")
    everyone = {c.name: c for c in (Nginx(), HaProxy(), Envoy(), Rhumb(options.rhumb), Bare())}
    raise_open_files()
    (HERE / "out").mkdir(exist_ok=True)
    backends = measure.start_backends(HERE / "run" / "backends")
    try:
        for slot, name in enumerate(options.contenders.split(",")):
            running = measure.Running(everyone[name], scenario, HERE / "run" / f"explain-{name}", slot)
            try:
                if running.is_ready:
                    {"profile": profile, "syscalls": syscalls}[options.what](running, options)
            finally:
                running.stop()
    finally:
        for backend in backends:
            measure.stop(backend)


def load(scenario: Scenario, port: int, seconds: float) -> subprocess.Popen:
    command = measure.command_for(scenario, port, seconds)
    return subprocess.Popen(["taskset", "-c", str(measure.LOAD_CPU), *command], stdout=subprocess.PIPE, text=True)


def profile(running: measure.Running, options: argparse.Namespace) -> None:
    """CPU samples by symbol. cpu-clock works where a virtual machine has no hardware counters."""
    data = HERE / "out" / f"perf-{running.name}-{options.scenario}.data"
    pids = ",".join(map(str, running.pids()))
    client = load(running.at.scenario, running.at.port, options.seconds + 2 * SETTLE)
    time.sleep(measure.WARM + SETTLE)
    graph = ["--call-graph", "fp"] if options.callers else []
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY), *graph, "-o", str(data), "-p", pids]
    done = subprocess.run([*command, "--", "sleep", str(options.seconds)], capture_output=True, text=True, check=False)
    requests = finish(client)
    if done.returncode != 0:
        measure.complain(f"perf does not work here: {done.stderr.strip()[-300:]}")
        return
    report = ["perf", "report", "-i", str(data), "--stdio", "--no-children", "-g", "none", "-F", "overhead,dso,symbol"]
    lines = subprocess.run(report, capture_output=True, text=True, check=False).stdout.splitlines()
    rows = [(float(m[1]), m[2], m[3], m[4].strip()) for line in lines if (m := re.match(r"\s+([\d.]+)%\s+(\S+)\s+\[(.)\]\s+(.*)", line))]
    kernel = sum(share for share, _, level, _ in rows if level == "k")
    print(f"\n### {running.name}, {options.scenario}: kernel {kernel:.0f} %, user {sum(r[0] for r in rows) - kernel:.0f} %; {requests}")
    for title, level in (("user", "."), ("kernel", "k")):
        print(f"\n| {title}: symbol | share | object |\n|---|--:|---|")
        for share, object_, _, symbol in [r for r in rows if r[2] == level][: options.top]:
            print(f"| `{symbol[:110]}` | {share:.2f} % | {Path(object_).name} |")
    print(f"\nmore: perf report -i {data}", flush=True)


def syscalls(running: measure.Running, options: argparse.Namespace) -> None:
    """System calls per request. strace slows the proxy, so its batches are smaller than at full speed."""
    warm = load(running.at.scenario, running.at.port, SETTLE)
    finish(warm)  # Pools are full.
    out = HERE / "out" / f"strace-{running.name}-{options.scenario}"
    attach = [word for pid in running.pids() for word in ("-p", str(pid))]
    tracer = subprocess.Popen(["strace", "-c", "-f", "-q", "-o", str(out), *attach], stderr=subprocess.PIPE, text=True)
    time.sleep(SETTLE)
    client = load(running.at.scenario, running.at.port, options.seconds)
    result = json.loads(client.communicate()[0].splitlines()[-1])
    tracer.send_signal(signal.SIGINT)
    errors = tracer.communicate()[1]
    # The counts cover the warm-up too; the load is steady, so its share is the share of the time.
    requests = result["requests"] * (options.seconds + measure.WARM) / options.seconds
    rows = []
    for line in out.read_text().splitlines():
        words = line.split()
        if len(words) >= 5 and re.fullmatch(r"[\d.]+", words[0]) and words[-1] != "total":
            rows.append((int(words[3]) / requests, words[-1]))
    if not rows:
        measure.complain(f"strace does not work here: {errors.strip()[-300:]}")
        return
    rows.sort(reverse=True)
    print(f"\n### {running.name}, {options.scenario}: {sum(n for n, _ in rows):.2f} system calls per request\n")
    print(", ".join(f"{name} {n:.2f}" for n, name in rows if n >= 0.005), flush=True)


def finish(client: subprocess.Popen) -> str:
    result = json.loads(client.communicate()[0].splitlines()[-1])
    return f"{result['rps']:.0f} requests per second, {result['errors']} errors"


if __name__ == "__main__":
    main()
