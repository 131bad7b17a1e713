#!/usr/bin/env python3
"""Work for an instrumented binary (`cargo xtask release`): every scenario of the bench, a mesh call through both sides, a
reload, and the life of processes that only rest, a gateway's and a sidecar's. Measures nothing. With --rest only the latter,
under the program that RHUMB_UNDER names.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = "0.5"
RESTS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rhumb", type=Path, required=True)
    parser.add_argument("--rest", action="store_true", help="only what rests")
    arguments = parser.parse_args()
    rhumb = arguments.rhumb.resolve()
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(1 if arguments.rest else RESTS):
            rest(rhumb, Path(directory))
        if arguments.rest:
            run("mesh_run.py", "watch", "--services", "10", "--seconds", "30", rhumb=rhumb)
            return
        run("mesh_run.py", "rest", "--services", "10", "--seconds", "1", rhumb=rhumb)
        # The same that is watched, so that what runs there does not count as never run.
        run("mesh_run.py", "watch", "--services", "10", "--seconds", "3", rhumb=rhumb)
        # What fails here is only not learned: an instrumented binary may be too slow for a fixed rate.
        run("run.py", "--contenders", "rhumb", "--rounds", "1", "--dur", SECONDS, "--label", "train",
            "--run-dir", directory, "--rhumb", str(rhumb))
        run("pair.py", "--contenders", "rhumb", "--rounds", "1", "--seconds", SECONDS, "--rhumb", str(rhumb))


def run(script: str, *arguments: str, rhumb: Path | None = None) -> None:
    environment = os.environ | ({"RHUMB": str(rhumb)} if rhumb else {})
    code = subprocess.run([sys.executable, str(HERE / script), *arguments], cwd=HERE, env=environment, check=False).returncode
    if code:
        print(f"# {script} ended with {code}", file=sys.stderr)


def rest(rhumb: Path, directory: Path) -> None:
    """Starts, takes a change over, rests, and ends."""
    config = directory / "rest.yaml"
    text = "listeners:\n  web: {{ port: 18471 }}\nbackends:\n  a: 127.0.0.1:9\nroutes:\n  - match: {{ path: /{} }}\n    to: a\n"
    config.write_text(text.format("a"))
    under = os.environ.get("RHUMB_UNDER", "").split()
    pause = 10 if under else 1
    process = subprocess.Popen([*under, rhumb, "run", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(pause)
    config.write_text(text.format("b"))
    time.sleep(pause)
    process.terminate()
    process.wait(30)


if __name__ == "__main__":
    main()
