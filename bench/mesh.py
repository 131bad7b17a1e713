#!/usr/bin/env python3
"""The mesh in one run: two hops with mutual TLS beside their peers, a sidecar at rest, a control plane with 2 000 proxies.

    bench/mesh.py --rhumb PATH [--rounds 5] [--seconds 2] [--rest 30] [--label mesh] [--publish] [--quick]

`--publish` writes the section "Mesh" of BENCHMARKS.md. Every part is a program of its own: pair.py, mesh_run.py rest, and the
example `scale` of crates/agent, which is built here (RHUMB_SCALE names one that is there already).
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import pair
from contenders import default_rhumb
from report import LABELS, QUIET_LOAD, conditions, number, put_section

HERE = Path(__file__).resolve().parent
SECTION = "## Mesh"
# What the project promises. Ratios of CPU time; MiB; milliseconds.
ENVOY_LIMIT, HAPROXY_LIMIT = 0.3, 0.9
REST_LIMIT_MIB, READY_LIMIT_MS = 10, 100
ACK_LIMIT_MS, CONTROL_LIMIT_MIB = 500, 300
SERVICES = (10, 10_000)


def at_rest(rhumb: Path, services: int, seconds: float) -> dict | None:
    """A sidecar at rest; nothing where a machine does not let one capture connections."""
    with tempfile.TemporaryDirectory() as directory:
        found = Path(directory) / "rest.json"
        command = [sys.executable, str(HERE / "mesh_run.py"), "rest", "--services", str(services), "--seconds", str(seconds),
                   "--json", str(found)]
        done = subprocess.run(command, env=os.environ | {"RHUMB": str(rhumb)}, check=False)
        if done.returncode != 0:
            measure.complain(f"no sidecar at rest with {services} services")
            return None
        return json.loads(found.read_text())


def scale() -> dict | None:
    program = os.environ.get("RHUMB_SCALE")
    if program is None:
        build = ["cargo", "build", "--quiet", "--profile", "fast", "--package", "rhumb-agent", "--example", "scale"]
        if subprocess.run(build, cwd=HERE.parent, check=False).returncode != 0:
            return None
        program = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "fast/examples/scale"
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    return read_scale(done.stdout) if done.returncode == 0 else None


def read_scale(text: str) -> dict:
    """What the example says: its table as it is, and the numbers that are judged."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    times = [float(found) for row in rows if "all want" in row for found in re.findall(r"\| ([\d.]+) ms", row)[1:2]]
    resident = re.search(r"(\d+) MiB resident in the end", text)
    return {"table": [line for line in text.splitlines() if line.startswith("|")], "longest_p99_ms": max(times, default=0.0),
            "resident_mib": int(resident[1]) if resident else 0, "words": [line for line in text.splitlines() if line and line[0] != "|"]}


def verdict(is_kept: bool) -> str:
    return "kept" if is_kept else "missed"


def ratio(found: dict, peer: str, kind: str, key: str = "cpu_us") -> float | None:
    own, other = found.get("rhumb", {}).get(kind), found.get(peer, {}).get(kind)
    return own[key] / other[key] if own and other else None


def pair_part(found: dict) -> list[str]:
    alone = found.get("none", {}).get(str(pair.RATE), {})
    lines = ["### Two hops with mutual TLS", "",
             f"Client → proxy ══ mTLS ══ proxy → backend, both proxies in one process of one worker. CPU time is that of both hops; 1 KiB; p50 and p99 at {number(pair.RATE, 0)} "
             f"requests per second are what the proxies add to the backend alone ({alone.get('p50_us', 0):.0f} and {alone.get('p99_us', 0):.0f} µs).", "",
             "| | µs per request | requests/s | µs per request at the fixed rate | added p50 | added p99 | TCP: CPU s per GiB | TCP: MiB/s |",
             "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for name, kinds in found.items():
        if name == "none":
            continue
        full, fixed, bulk = kinds["max"], kinds[str(pair.RATE)], kinds["bulk"]
        added = [max(0.0, fixed[key] - alone.get(key, 0.0)) for key in ("p50_us", "p99_us")]
        lines.append(f"| {LABELS[name]} | {number(full['cpu_us'])} | {number(full['rps'], 0)} | {number(fixed['cpu_us'])} | {number(added[0], 0)} µs | "
                     f"{number(added[1], 0)} µs | {number(bulk['cpu_us'] * 1024 / 1e6, 2)} | {number(bulk['rps'], 0)} |")
    lines += ["", "Over TCP Rhumb carries CONNECT streams of HTTP/2 (HBONE), as ztunnel does; the others the bytes in TLS, which is less work.", ""]
    for peer, limit in (("envoy", ENVOY_LIMIT), ("haproxy", HAPROXY_LIMIT), ("nginx", None)):
        by = {kind: ratio(found, peer, kind) for kind in pair.KINDS}
        if any(value is not None for value in by.values()):
            promise = f"; promise: at most {limit} ({verdict((by['max'] or 0) <= limit)})" if limit else ""
            lines.append(f"- CPU by that of {LABELS[peer]}: {number(by['max'], 2)} as fast as it goes, {number(by[str(pair.RATE)], 2)} at the fixed rate, "
                         f"{number(by['bulk'], 2)} over TCP{promise}")
    return lines


def rest_part(found: list[dict]) -> list[str]:
    lines = ["", "### A sidecar at rest", "",
             "Captured, default number of workers, with a control plane of so many services; nobody calls. PSS counts what it shares with the control plane's process "
             "by half; its own is what no other process has.", "",
             "| services | resident | PSS | its own | woken per second | ready after a start | with its first certificate |", "|--:|--:|--:|--:|--:|--:|--:|"]
    for one in found:
        lines.append(f"| {number(one['services'], 0)} | {one['rss_mib']:.1f} MiB | {one['pss_mib']:.1f} MiB | {one['own_mib']:.1f} MiB | "
                     f"{one['wakeups_per_second']:.2f} | {one['ready_ms']:.0f} ms | {one['first_ready_ms']:.0f} ms |")
    is_small = all(one["rss_mib"] <= REST_LIMIT_MIB for one in found)
    is_soon = all(one["ready_ms"] <= READY_LIMIT_MS for one in found)
    return [*lines, "", f"Promise: at most {REST_LIMIT_MIB} MiB resident ({verdict(is_small)}), ready within {READY_LIMIT_MS} ms ({verdict(is_soon)})."]


def scale_part(found: dict) -> list[str]:
    kept = found["longest_p99_ms"] <= ACK_LIMIT_MS, found["resident_mib"] <= CONTROL_LIMIT_MIB
    return ["", "### A control plane at scale", "",
            "From a change until the last proxy that it concerns has acked it. Proxies are in one other process and share the machine; real gRPC over loopback. "
            + "; ".join(found["words"]) + ".", "", *found["table"], "",
            f"Promise: last ack within {ACK_LIMIT_MS} ms in 99 of 100 changes ({verdict(kept[0])}), at most {CONTROL_LIMIT_MIB} MiB ({verdict(kept[1])})."]


def section(found: dict) -> str:
    c = found["conditions"]
    quiet = "" if found["load"] <= QUIET_LOAD else f" The machine was not quiet (load average {found['load']:.1f}): repeat the run before quoting it."
    lines = [SECTION, "", f"Written by `bench/mesh.py` ({c['began']}, commit {c['commit']}, {c['cpu']}); medians.{quiet}", ""]
    lines += pair_part(found["pair"])
    lines += rest_part(found["rest"]) if found["rest"] else []
    lines += scale_part(found["scale"]) if found["scale"] else []
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rhumb", type=Path, default=default_rhumb())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per sample of the pair")
    parser.add_argument("--rest", type=float, default=30.0, help="seconds that a sidecar at rest is watched")
    parser.add_argument("--label", default="mesh", help="name of the files in bench/out (default: mesh)")
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--quick", action="store_true", help="1 round of 0.4 s, 3 s of rest, no control plane at scale")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.rest = 1, 0.4, 3.0
    found: dict = {"conditions": conditions(), "load": os.getloadavg()[0]}
    found["pair"] = pair.measure(str(options.rhumb), ["rhumb", "nginx", "haproxy", "envoy"], options.rounds, options.seconds)
    found["rest"] = [one for services in SERVICES if (one := at_rest(options.rhumb, services, options.rest))]
    found["scale"] = None if options.quick else scale()
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    text = section(found)
    (out / f"{options.label}.json").write_text(json.dumps(found, indent=1))
    (out / f"{options.label}.md").write_text(text)
    print(text)
    if options.publish:
        page = HERE.parent / "BENCHMARKS.md"
        page.write_text(put_section(page.read_text(), text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
