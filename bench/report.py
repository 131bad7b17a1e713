"""Medians, paired ratios, and BENCHMARKS.md."""

import datetime
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import measure
from scenarios import BEST_PEER_LIMIT, FLAT_LIMIT, IDLE_LIMIT, IDLE_PROCESS_LIMIT_KIB, POLICIES_LIMIT_US, SCENARIOS, Scenario

# The bench itself makes a load average of about 2. Above this, others took part.
QUIET_LOAD = 3.5
LABELS = {"nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy", "rhumb": "**Rhumb**", "bare": "bare relay"}


@dataclass
class Result:
    conditions: dict
    versions: dict[str, str]
    rounds: int
    seconds: float
    samples: dict[str, list[measure.Sample]] = field(default_factory=dict)
    loads: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    instructions: list[tuple[str, str, int]] = field(default_factory=list)

    def add(self, scenario: Scenario, sample: measure.Sample) -> None:
        self.samples.setdefault(scenario.name, []).append(sample)
        self.loads.setdefault(scenario.name, []).append(os.getloadavg()[0])
        if sample.invalid:
            measure.complain(f"invalid sample: {sample.contender} in {scenario.name}, round {sample.round + 1}: {sample.invalid}")

    def invalid(self) -> list[tuple[str, measure.Sample]]:
        return [(name, s) for name, samples in self.samples.items() for s in samples if s.invalid]

    def contenders(self, scenario: str) -> list[str]:
        return list(dict.fromkeys(s.contender for s in self.samples.get(scenario, [])))

    def values(self, scenario: str, contender: str, key: str) -> dict[int, float]:
        """The valid values by round."""
        samples = self.samples.get(scenario, [])
        return {s.round: s.values[key] for s in samples if s.contender == contender and not s.invalid and key in s.values}

    def median(self, scenario: str, contender: str, key: str) -> float | None:
        values = self.values(scenario, contender, key)
        return statistics.median(values.values()) if values else None

    def ratio(self, scenario: str, key: str, over: str, under: str, under_scenario: str | None = None) -> float | None:
        """Median over the rounds of the one's value by the other's of the same round."""
        a, b = self.values(scenario, over, key), self.values(under_scenario or scenario, under, key)
        pairs = [a[r] / b[r] for r in a if b.get(r)]
        return statistics.median(pairs) if pairs else None

    def added(self, scenario: str, without: str) -> float | None:
        """What Rhumb spends more than in another scenario of the same group, the median over the rounds. Unit: µs."""
        more, less = self.values(scenario, "rhumb", "cpu_us"), self.values(without, "rhumb", "cpu_us")
        differences = [more[round_] - less[round_] for round_ in more if round_ in less]
        return statistics.median(differences) if differences else None

    def best_peer(self, scenario: str, key: str) -> str | None:
        medians = {c: self.median(scenario, c, key) for c in self.contenders(scenario) if c not in ("rhumb", "bare")}
        known = {c: m for c, m in medians.items() if m is not None}
        return min(known, key=known.__getitem__) if known else None

    def as_json(self) -> dict:
        return {
            "conditions": self.conditions,
            "versions": self.versions,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "notes": self.notes,
            "instructions": self.instructions,
            "load_average": self.loads,
            "samples": {name: [asdict(s) for s in samples] for name, samples in self.samples.items()},
        }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def conditions() -> dict:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s+: (.*)", cpuinfo)
    mhz = re.search(r"cpu MHz\s+: (.*)", cpuinfo)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    commit = subprocess.run(["git", "-C", str(measure.HERE), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "began": now(),
        "cpu": f"{model and model[1]}, {mhz and float(mhz[1]):.0f} MHz, {os.cpu_count()} CPUs"
        + (", virtual" if "hypervisor" in cpuinfo else ""),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "?",
        "kernel": platform.release(),
        "commit": commit.stdout.strip(),
    }


# --- tables --------------------------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 1) -> str:
    if value is None:
        return "–"
    text = f"{value:,.{digits}f}".replace(",", " ")
    return text


def key_of(scenario: Scenario) -> str:
    return "bytes_per_connection" if scenario.tool == "idle" else "cpu_us"


def scenario_section(scenario: Scenario, result: Result) -> str:
    if scenario.tool == "idle":
        return idle_section(scenario, result)
    unit = "connection" if scenario.tool == "handshake" else "request"
    columns: list[tuple[str, Callable[[str], str]]] = [
        (f"CPU µs per {unit}", lambda c: number(result.median(scenario.name, c, "cpu_us"))),
        ("min..max", lambda c: spread(result.values(scenario.name, c, "cpu_us"))),
        ("Rhumb / it", lambda c: number(result.ratio(scenario.name, "cpu_us", "rhumb", c), 2)),
        (f"{unit}s per second", lambda c: number(result.median(scenario.name, c, "rps"), 0)),
        ("p50 µs", lambda c: number(result.median(scenario.name, c, "p50_us"), 0)),
        ("p99 µs", lambda c: number(result.median(scenario.name, c, "p99_us"), 0)),
        ("CPU busy", lambda c: percent(result.median(scenario.name, c, "busy"))),
        ("PSS MiB", lambda c: mib(result.median(scenario.name, c, "pss_kib"))),
        ("RSS MiB", lambda c: mib(result.median(scenario.name, c, "rss_kib"))),
    ]
    if scenario.tool == "handshake":
        columns.insert(3, ("resumed", lambda c: percent(resumed_share(result, scenario.name, c))))
    return section(scenario, result, columns)


def idle_section(scenario: Scenario, result: Result) -> str:
    return section(
        scenario,
        result,
        [
            ("bytes per connection", lambda c: number(result.median(scenario.name, c, "bytes_per_connection"), 0)),
            ("min..max", lambda c: spread(result.values(scenario.name, c, "bytes_per_connection"), 0)),
            ("PSS MiB before", lambda c: mib(result.median(scenario.name, c, "pss_before_kib"))),
            ("RSS MiB before", lambda c: mib(result.median(scenario.name, c, "rss_before_kib"))),
            ("PSS MiB with the connections", lambda c: mib(result.median(scenario.name, c, "pss_after_kib"))),
        ],
    )


def section(scenario: Scenario, result: Result, columns: list[tuple[str, Callable[[str], str]]]) -> str:
    lines = [
        f"### {scenario.name}: {scenario.title}",
        "",
        "| | " + " | ".join(title for title, _ in columns) + " |",
        "|---|" + "--:|" * len(columns),
    ]
    key = key_of(scenario)
    order = sorted(result.contenders(scenario.name), key=lambda c: result.median(scenario.name, c, key) or float("inf"))
    for contender in order:
        lines.append(f"| {LABELS[contender]} | " + " | ".join(cell(contender) for _, cell in columns) + " |")
    bad = [s for s in result.samples.get(scenario.name, []) if s.invalid]
    for sample in bad:
        lines.append(f"\nInvalid: {sample.contender}, round {sample.round + 1}: {sample.invalid}")
    return "\n".join(lines)


def spread(values: dict[int, float], digits: int = 1) -> str:
    return f"{number(min(values.values()), digits)}..{number(max(values.values()), digits)}" if values else "–"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def mib(kib: float | None) -> str:
    return "–" if kib is None else f"{kib / 1024:.1f}"


def resumed_share(result: Result, scenario: str, contender: str) -> float | None:
    resumed, all_ = result.median(scenario, contender, "resumed"), result.median(scenario, contender, "requests")
    return None if resumed is None or not all_ else resumed / all_


# --- the document --------------------------------------------------------------------------------------------------


def summary(result: Result) -> str:
    lines = [
        "| scenario | Rhumb | by nginx | by HAProxy | by Envoy | best peer | by best peer | promise |",
        "|---|--:|--:|--:|--:|---|--:|---|",
    ]
    for scenario in SCENARIOS.values():
        if scenario.name in result.samples:
            lines.append(summary_line(scenario, result))
    return "\n".join(lines)


def summary_line(scenario: Scenario, result: Result) -> str:
    name, key = scenario.name, key_of(scenario)
    unit = "B" if scenario.tool == "idle" else "µs"
    own = result.median(name, "rhumb", key)
    best = result.best_peer(name, key)
    by = {peer: result.ratio(name, key, "rhumb", peer) for peer in ("nginx", "haproxy", "envoy")}
    by_best = by.get(best) if best else None
    cells = [
        name,
        f"{number(own, 0 if unit == 'B' else 1)} {unit}" if own is not None else "–",
        *(number(by[peer], 2) for peer in by),
        LABELS.get(best, "–") if best else "–",
        number(by_best, 2),
        promise(scenario, result, own, by_best, by["envoy"]),
    ]
    return "| " + " | ".join(cells) + " |"


def promise(scenario: Scenario, result: Result, own: float | None, by_best: float | None, by_envoy: float | None) -> str:
    """Whether the project's promises (README, "Speed") hold in this run."""
    if own is None:
        return "–"
    failed = []
    if scenario.tool == "idle":
        if own > IDLE_LIMIT[scenario.name]:
            failed.append(f"over {IDLE_LIMIT[scenario.name]} B")
        before = result.median(scenario.name, "rhumb", "pss_before_kib") or 0
        if scenario.name == "idle-plain" and before > IDLE_PROCESS_LIMIT_KIB:
            failed.append(f"process over {IDLE_PROCESS_LIMIT_KIB // 1024} MiB")
    else:
        if by_best is not None and by_best > BEST_PEER_LIMIT:
            # Where a relay without a proxy's duties misses it too, sockets cannot do it.
            best = result.best_peer(scenario.name, "cpu_us")
            floor = result.ratio(scenario.name, "cpu_us", "bare", best) if best else None
            failed.append(f"best peer over {BEST_PEER_LIMIT}" + (f" (bare relay {floor:.2f})" if floor else ""))
        if by_envoy is not None and by_envoy > scenario.envoy_limit:
            failed.append(f"Envoy over {scenario.envoy_limit}")
        if scenario.name == "policies-all":
            added = result.added("policies-all", "policies-none")
            if added is not None and added > POLICIES_LIMIT_US:
                failed.append(f"{added:.1f} µs over no policies")
        if scenario.group == "routes" and scenario.name != "routes-1":
            flat = result.ratio(scenario.name, "cpu_us", "rhumb", "rhumb", "routes-1")
            if flat is not None and flat > 1 + FLAT_LIMIT:
                failed.append(f"{flat:.2f} of one route")
    return "missed: " + ", ".join(failed) if failed else "kept"


def instruction_section(result: Result) -> str:
    """Rhumb's own steps, counted under valgrind."""
    if not result.instructions:
        return ""
    rows = "\n".join(f"| {bench} | {case} | {number(count, 0)} |" for bench, case, count in result.instructions)
    return f"""
## Instructions

Of single steps of a request in Rhumb, counted under valgrind (`bench/instructions`): exact, and the same on every machine.

| step | case | instructions |
|---|---|--:|
{rows}
"""


# Sections of BENCHMARKS.md that other programs write.
OTHERS = ("Mesh", "Cost of seeing")
# What stands behind them.
BEHIND = ("Instructions", "Notes")


def put_section(text: str, section: str) -> str:
    """BENCHMARKS.md with a section (`## NAME` and what follows) in place of the one of its name."""
    name = section.removeprefix("## ").split("\n", 1)[0]
    parts = [part for part in text.split("\n## ") if part.split("\n", 1)[0] != name]
    place = next((at for at, part in enumerate(parts) if part.startswith(BEHIND)), len(parts))
    parts.insert(place, section.removeprefix("## ").rstrip("\n") + "\n")
    return "\n## ".join(parts)


def keep_others(text: str, before: str) -> str:
    """What was measured by others stays in a document that is written anew."""
    for part in before.split("\n## ")[1:]:
        if part.startswith(OTHERS):
            text = put_section(text, f"## {part}")
    return text


def document(result: Result) -> str:
    c = result.conditions
    versions = "\n".join(f"- {label}: {version}" for label, version in result.versions.items())
    loads = [value for values in result.loads.values() for value in values]
    stolen = [s.values.get("stolen", 0.0) for samples in result.samples.values() for s in samples]
    sections = "\n\n".join(scenario_section(s, result) for s in SCENARIOS.values() if s.name in result.samples)
    invalid = result.invalid()
    notes = [f"- {note}" for note in result.notes]
    if max(loads, default=0) > QUIET_LOAD:
        notes.append(f"- the machine was not quiet (load average up to {max(loads):.1f}): repeat the run before quoting it")
    notes += [f"- invalid sample: {s.contender} in {name}, round {s.round + 1}: {s.invalid}" for name, s in invalid]
    return f"""# Benchmarks

Written by `cargo xtask bench`; every sample of the run is in `bench/out/`. bench/README.md says how it is measured.

The measure is **CPU time of the proxy per request** (all its processes and threads), because on one machine
requests per second also depend on the load generator. A ratio is Rhumb's CPU time by the peer's in the same
round, the median over the rounds: below 1, Rhumb is cheaper. Figures of different runs must not be compared.

## Summary

{summary(result)}

"Promise": at most {BEST_PEER_LIMIT} of the best peer and {Scenario.envoy_limit} of Envoy (0.35 where bodies are large); within {100 * FLAT_LIMIT:.0f} % from 1 to
10 000 routes; at most {POLICIES_LIMIT_US} µs for six policies; at most {IDLE_LIMIT["idle-plain"]} B per idle plain and {IDLE_LIMIT["idle-tls"]} B per idle TLS connection, and {IDLE_PROCESS_LIMIT_KIB // 1024} MiB for the process.

## Conditions

- {c["began"]} to {c.get("ended", "?")}; {result.rounds} interleaved rounds of {result.seconds:g} s; commit {c["commit"]}
- {c["cpu"]}; {c["memory"]}; Linux {c["kernel"]}
- load average {min(loads, default=0):.1f} to {max(loads, default=0):.1f} (the bench itself keeps both CPUs busy: about 2); time stolen by the
  hypervisor from the proxies' CPU: {100 * statistics.fmean(stolen or [0]):.1f} % on average, {100 * max(stolen, default=0):.1f} % at most
- the proxy has CPU 0, one worker; load generator and backend have CPU 1; 127.0.0.1
- all with the same features on: request id, forwarding fields (X-Forwarded-For, -Proto, -Host, Via), counters,
  access log to a file, 100 routes where the scenario says nothing else; TLS 1.3, AES-256-GCM, ECDSA P-256, X25519
{versions}

## Scenarios

{sections}
{instruction_section(result)}
## Notes

{chr(10).join(notes) or "Every sample was valid."}
"""
