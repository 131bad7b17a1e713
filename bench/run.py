#!/usr/bin/env python3
"""The load bench: Rhumb beside nginx, HAProxy and Envoy, all with the same features on.

  python3 bench/run.py                                   everything; writes BENCHMARKS.md
  python3 bench/run.py --quick                           everything, short: does it work?
  python3 bench/run.py --scenarios h1-1k,tls-1k --contenders nginx,rhumb --rounds 7 --dur 2
  python3 bench/run.py --list

bench/setup.sh installs what this needs. The contenders of a scenario run side by side, each with one worker on
CPU 0; load and backends have CPU 1. They are measured in interleaved rounds whose order alternates. Only
figures of one run may be compared. Every sample goes to bench/out/LABEL.json, tables to bench/out/LABEL.md.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import measure
import report
from contenders import Bare, Contender, Envoy, HaProxy, Nginx, Rhumb, default_rhumb
from scenarios import SCENARIOS, Scenario, groups

HERE = Path(__file__).resolve().parent
# With fewer rounds a run is a look, and does not replace BENCHMARKS.md.
MIN_ROUNDS = 5


def main() -> int:
    options = parse()
    if options.list:
        print("contenders: nginx haproxy envoy rhumb bare\nscenarios:")
        for scenario in SCENARIOS.values():
            print(f"  {scenario.name:16} {scenario.title}")
        return 0
    contenders = choose(options)
    raise_open_files()
    prioritise(options.priority)
    # The marks of the load generators are read on the CPU of the load, so that the proxy's is undisturbed.
    os.sched_setaffinity(0, {measure.LOAD_CPU})
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    result = report.Result(
        conditions=report.conditions(),
        versions={c.label: c.version() for c in contenders},
        rounds=options.rounds,
        seconds=options.dur,
    )
    backends = measure.start_backends(options.run_dir / "backends")
    try:
        for group in groups(options.scenarios):
            run_group(group, contenders, options, result)
            (out / f"{options.label}.json").write_text(json.dumps(result.as_json(), indent=1))
            for scenario in group:
                print(f"\n{report.scenario_section(scenario, result)}", flush=True)
    finally:
        for backend in backends:
            measure.stop(backend)
        result.conditions["ended"] = report.now()
    is_whole = set(options.scenarios) == set(SCENARIOS) and len(contenders) == 5 and options.rounds >= MIN_ROUNDS
    if options.instructions or is_whole:
        result.instructions = measure.instruction_counts()
    text = report.document(result)
    (out / f"{options.label}.md").write_text(text)
    (out / f"{options.label}.json").write_text(json.dumps(result.as_json(), indent=1))
    if options.publish or is_whole:
        page = HERE.parent / "BENCHMARKS.md"
        page.write_text(report.keep_others(text, page.read_text() if page.exists() else ""))
    print(f"\n{report.summary(result)}\n\nbench/out/{options.label}.md" + (", BENCHMARKS.md" if options.publish or is_whole else ""))
    return 1 if result.invalid() else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default="all", help="names separated by commas (default: all)")
    parser.add_argument("--contenders", default="nginx,haproxy,envoy,rhumb,bare", help="names separated by commas")
    parser.add_argument("--rounds", type=int, default=7, help="samples per scenario and contender (default: 7)")
    parser.add_argument("--dur", type=float, default=2.0, help="seconds per sample (default: 2)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 0.4 s")
    parser.add_argument("--rhumb", type=Path, default=default_rhumb(), help="the binary (default: $RHUMB_BIN or the release build)")
    parser.add_argument("--label", default="run", help="name of the files in bench/out (default: run)")
    parser.add_argument("--publish", action="store_true", help="write BENCHMARKS.md even if the run is not whole")
    parser.add_argument("--instructions", action="store_true", help="count instructions too (a whole run always does)")
    parser.add_argument("--priority", type=int, default=0, help="nice value of the bench against other sessions of the machine")
    parser.add_argument("--run-dir", type=Path, default=HERE / "run", help="configurations and logs (default: bench/run)")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.dur = 2, 0.4
    options.scenarios = list(SCENARIOS) if options.scenarios == "all" else options.scenarios.split(",")
    unknown = [name for name in options.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"unknown scenario: {', '.join(unknown)}; --list shows them")
    options.run_dir = options.run_dir.resolve()
    return options


def choose(options: argparse.Namespace) -> list[Contender]:
    everyone = {c.name: c for c in (Nginx(), HaProxy(), Envoy(), Rhumb(options.rhumb), Bare())}
    names = options.contenders.split(",")
    unknown = [name for name in names if name not in everyone]
    if unknown:
        raise SystemExit(f"unknown contender: {', '.join(unknown)}; there are {', '.join(everyone)}")
    if "rhumb" in names and not options.rhumb.exists():
        measure.complain(f"{options.rhumb} is not there: running without Rhumb (cargo build --release)")
        names.remove("rhumb")
    return [everyone[name] for name in names]


def run_group(group: list[Scenario], contenders: list[Contender], options: argparse.Namespace, result: report.Result) -> None:
    if group[0].tool == "idle":
        for scenario in group:
            run_idle(scenario, contenders, options, result)
        return
    running: list[measure.Running] = []
    try:
        for scenario in group:
            for contender in contenders:
                if contender.name in scenario.without or contender.is_bare and scenario.upstream != "l4":
                    continue
                one = launch(contender, scenario, options, len(running))
                running.append(one)
                if one.is_ready and (missing := measure.missing_features(one)):
                    words = f"{contender.name} in {scenario.name} does not give {', '.join(missing)}"
                    measure.complain(words)
                    result.notes.append(words)
        for round_ in range(options.rounds):
            for scenario in group:
                order = [one for one in running if one.at.scenario is scenario]
                for one in order if round_ % 2 == 0 else reversed(order):
                    if not one.is_ready:
                        sample = measure.Sample(one.name, round_, "it does not run")
                    else:
                        sample = measure.sample_load(one, round_, options.dur)
                    result.add(scenario, sample)
                progress(scenario, round_, options.rounds)
    finally:
        for one in running:
            one.stop()


def run_idle(scenario: Scenario, contenders: list[Contender], options: argparse.Namespace, result: report.Result) -> None:
    """One fresh process per sample: memory that was freed and kept would hide what a connection costs."""
    rounds = min(options.rounds, 3)
    for round_ in range(rounds):
        for slot, contender in enumerate(c for c in contenders if not c.is_bare):
            one = launch(contender, scenario, options, slot)
            try:
                if one.is_ready:
                    result.add(scenario, measure.sample_idle(one, round_))
                else:
                    result.add(scenario, measure.Sample(one.name, round_, "it does not run"))
            finally:
                one.stop()
        progress(scenario, round_, rounds)


def launch(contender: Contender, scenario: Scenario, options: argparse.Namespace, slot: int) -> measure.Running:
    directory = options.run_dir / f"{contender.name}-{scenario.name}"
    shutil.rmtree(directory, ignore_errors=True)
    return measure.Running(contender, scenario, directory, slot)


def progress(scenario: Scenario, round_: int, rounds: int) -> None:
    print(f"# {scenario.name}: round {round_ + 1} of {rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


def raise_open_files() -> None:
    """9 000 connections at a proxy are 9 000 files at the client and up to twice as many at the proxy."""
    for limit in ((65_536, 65_536), (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            return
        except (ValueError, OSError):
            continue


def prioritise(nice: int) -> None:
    """Sets the bench before other sessions of a shared machine (nice alone counts inside a session only)."""
    if nice == 0:
        return
    try:
        if os.getpid() != os.getsid(0):
            if os.getpid() == os.getpgid(0) and (child := os.fork()):
                sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            os.setsid()
        Path("/proc/self/autogroup").write_text(str(nice))
    except OSError as error:
        measure.complain(f"no priority: {error}")


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"# {time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(code)
