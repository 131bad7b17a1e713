"""Processes, their CPU time and memory, and one sample of a scenario."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from contenders import BACKENDS, CERTS, Contender, Instance
from credentials import API_KEY, ORIGIN, jwt_token
from scenarios import L4, Scenario

HERE = Path(__file__).resolve().parent
# The proxy has this CPU for itself; load, backends and this program share the other.
PROXY_CPU, LOAD_CPU = 0, 1
# Before the measured window: connections open, pools fill, caches warm. Unit: seconds.
WARM = 0.3
READY_TIMEOUT = 60.0
# Shorter than any line of an access log. Unit: bytes.
MIN_LOG_LINE = 100
# What a contender may still hold in its buffers when the load ends. Unit: bytes.
LOG_BUFFER = 256 << 10
STOP_TIMEOUT = 3.0
FIRST_PORT = 20000


def tools() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rhumb" / "bench-target"
    return Path(os.environ.get("CARGO_TARGET_DIR", default)) / "release"


def complain(words: str) -> None:
    print(f"!! {words}", file=sys.stderr, flush=True)


# --- processes -----------------------------------------------------------------------------------------------------


def start(command: list[str], cpu: int, log: Path, **options) -> subprocess.Popen:
    # Appending, so that a log can be cut while it is written.
    with open(log, "ab") as out:
        options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT} | options
        return subprocess.Popen(["taskset", "-c", str(cpu), *command], **options)


def stop(process: subprocess.Popen) -> None:
    """Ends a process and its children: kindly, then not."""
    everyone = tree(process.pid)
    for sig, patience in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, STOP_TIMEOUT)):
        for pid in everyone if sig == signal.SIGKILL else [process.pid]:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                found += map(int, Path(f"/proc/{parent}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def cpu_ns(pids: list[int]) -> int:
    """Time on a CPU of all threads (the first field of schedstat)."""
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except OSError:
            continue
    return total


def memory_kib(pids: list[int]) -> dict[str, int]:
    total = {"pss_kib": 0, "rss_kib": 0}
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for key, name in (("pss_kib", "Pss"), ("rss_kib", "Rss")):
            found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
            total[key] += int(found[1]) if found else 0
    return total


def stolen_ticks() -> int:
    """Time that the hypervisor gave to others while the proxy's CPU had work."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{PROXY_CPU} "):
            return int(line.split()[8])
    return 0


def wait_for_port(port: int, process: subprocess.Popen, timeout: float = READY_TIMEOUT) -> bool:
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.02)
    return False


# --- contenders that run -------------------------------------------------------------------------------------------


class Running:
    """An instance of a contender that accepts connections."""

    def __init__(self, contender: Contender, scenario: Scenario, directory: Path, slot: int):
        directory.mkdir(parents=True, exist_ok=True)
        port = FIRST_PORT + 10 * slot
        self.at = Instance(contender, scenario, directory, port, port + 1)
        self.name = contender.name
        self.at.access_log.unlink(missing_ok=True)
        command = contender.prepare(self.at)
        # What writes its access log to standard output writes it to the same file.
        self.log = directory / "output.log"
        self.process = start(command, PROXY_CPU, self.at.access_log if self.name == "haproxy" else self.log)
        # A port for datagrams does not say when it is there; the admin listener comes with it.
        is_udp = scenario.downstream == "udp"
        self.is_ready = wait_for_port(port + 1 if is_udp and not contender.is_bare else port, self.process)
        if not self.is_ready:
            complain(f"{self.name} does not listen for {scenario.name}: {self.tail()}")

    def tail(self) -> str:
        for log in (self.log, self.at.directory / "error.log", self.at.access_log):
            if log.exists() and (text := log.read_text(errors="replace").strip()):
                return text[-600:]
        return "no output"

    def pids(self) -> list[int]:
        return tree(self.process.pid)

    def cut_log(self) -> int:
        """Empties the access log, so that a long run fits the disk; its size before."""
        try:
            # Allocated bytes, not the length: HAProxy writes on at its old offset, which leaves a hole.
            size = 512 * self.at.access_log.stat().st_blocks
            os.truncate(self.at.access_log, 0)
            return size
        except OSError:
            return 0

    def stop(self) -> None:
        stop(self.process)


def missing_features(running: Running) -> list[str]:
    """What the contender does not do though every contender should, as seen by the backend."""
    at = running.at
    if at.scenario.downstream in ("h2", *L4) or at.scenario.upstream != "h1":
        return []  # The same configuration is proven over HTTP/1.1; the HTTP/2 backends look at nothing.
    if at.is_tls:
        context = ssl.create_default_context(cafile=str(CERTS / "ca.crt"))
        context.check_hostname = False
        connection = http.client.HTTPSConnection("127.0.0.1", at.port, timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=5)
    try:
        headers = {"Host": "server.bench.test"}
        if at.scenario.credentials:
            headers |= {"Authorization": f"Bearer {jwt_token()}", "X-Api-Key": API_KEY, "Origin": ORIGIN}
        connection.request("GET", "/svc00000/echo", headers=headers)
        response = connection.getresponse()
        seen = response.read().decode("latin-1").lower()
    except (OSError, http.client.HTTPException) as error:
        return [f"an answer ({error!r})"]
    finally:
        connection.close()
    if response.status != 200:
        return [f"an answer with status 200 ({response.status} {seen[:200]!r})"]
    wanted = ["x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via"]
    lacking = [name for name in wanted if f"\r\n{name}: " not in seen]
    if at.scenario.credentials == "checked":
        lacking += [] if "\r\nx-user: user-17" in seen else ["the field of a claim"]
        lacking += [] if response.headers.get("Access-Control-Allow-Origin") == ORIGIN else ["cors"]
        lacking += [f"a refusal of {what}" for what in ("a forged token", "an unknown key") if not is_refused(at, what)]
    return [what for what in lacking if what not in at.contender.lacks]


def is_refused(at: Instance, what: str) -> bool:
    token = jwt_token()
    headers = {"Host": "server.bench.test", "Authorization": f"Bearer {token}", "X-Api-Key": API_KEY}
    if what == "a forged token":
        headers["Authorization"] = f"Bearer {token[:-8]}{'A' * 8}"
    else:
        headers["X-Api-Key"] = API_KEY[::-1]
    connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=5)
    try:
        connection.request("GET", "/svc00000/echo", headers=headers)
        return connection.getresponse().status in (401, 403)
    finally:
        connection.close()


# --- backends ------------------------------------------------------------------------------------------------------


def start_backends(directory: Path) -> list[subprocess.Popen]:
    directory.mkdir(parents=True, exist_ok=True)
    commands = {
        "h1": ["backend"],
        "h2": ["backend_h2", "--length", "128"],
        "grpc": ["backend_h2", "--length", "128", "--grpc"],
        "l4": ["backend_l4"],
    }
    running = []
    for kind, (tool, *options) in commands.items():
        command = [str(tools() / tool), "--addr", f"127.0.0.1:{BACKENDS[kind]}", *options]
        running.append(start(command, LOAD_CPU, directory / f"{kind}.log"))
        if not wait_for_port(BACKENDS[kind], running[-1]):
            raise SystemExit(f"the {kind} backend does not listen: {(directory / f'{kind}.log').read_text()}")
    return running


# --- samples -------------------------------------------------------------------------------------------------------


@dataclass
class Sample:
    contender: str
    round: int
    # None: the sample is valid.
    invalid: str | None = None
    values: dict = field(default_factory=dict)


def command_for(scenario: Scenario, port: int, seconds: float, *more: str) -> list[str]:
    path = "/svc{}/b/" + str(scenario.length)
    command = [str(tools() / ("load" if scenario.tool == "idle" else scenario.tool)), "--addr", f"127.0.0.1:{port}"]
    if scenario.tool == "load_l4":
        command += ["--conns", str(scenario.connections)]
    elif scenario.tool == "handshake":
        path = path.format("00000")
    else:
        command += ["--routes", str(scenario.routes), "--conns", str(scenario.connections)]
    command += ["--path", path, "--length", str(scenario.length), "--warm", str(WARM), "--dur", str(seconds)]
    if scenario.downstream == "tls":
        command += ["--tls", str(CERTS / "ca.crt")]
    if scenario.rate:
        command += ["--rate", str(scenario.rate)]
    if scenario.credentials:
        command += ["--authorization", f"Bearer {jwt_token()}", "--api-key", API_KEY]
    if scenario.post:
        command += ["--post", str(scenario.post)]
    return [*command, *scenario.extra, *more]


def sample_load(running: Running, round_: int, seconds: float) -> Sample:
    """CPU time per request of the proxy between the load generator's marks."""
    scenario = running.at.scenario
    sample = Sample(running.name, round_)
    pids = running.pids()
    errors = running.at.directory / "load.log"
    command = command_for(scenario, running.at.port, seconds)
    with open(errors, "wb") as err:
        tool = subprocess.Popen(["taskset", "-c", str(LOAD_CPU), *command], stdout=subprocess.PIPE, stderr=err, text=True)
    marks: dict[str, tuple[int, int, float]] = {}
    result: dict = {}
    for line in tool.stdout:
        now = (cpu_ns(pids), stolen_ticks(), time.monotonic())
        if line.startswith("{"):
            result = json.loads(line)
        else:
            marks[line.strip()] = now
    tool.wait()
    log_bytes = running.cut_log()
    if not result or len(marks) != 2:
        sample.invalid = f"the load generator failed: {errors.read_text().strip()[:300]}"
        return sample
    requests = result["requests"]
    begin, end = marks["START"], marks["END"]
    window = end[2] - begin[2]
    sample.values = result | memory_kib(pids) | {
        "cpu_us": (end[0] - begin[0]) / 1e3 / max(requests, 1),
        "busy": (end[0] - begin[0]) / 1e9 / window,
        "stolen": (end[1] - begin[1]) / os.sysconf("SC_CLK_TCK") / window,
        "log_bytes_per_request": log_bytes / max(requests, 1),
    }
    if result["errors"]:
        sample.invalid = f"{result['errors']} errors, first: {result.get('first_error')}"
    elif not requests:
        sample.invalid = "no request was answered"
    elif scenario.rate and result["rps"] < 0.98 * scenario.rate:
        sample.invalid = f"only {result['rps']:.0f} requests per second"
    elif tree(running.process.pid) != pids:
        sample.invalid = "processes of the proxy came or went"
    elif scenario.extra[1:] in (("echo",), ("bulk",), ("udp",)):
        pass  # A line is written when a connection ends, and these do not.
    elif not running.at.contender.is_bare and log_bytes + LOG_BUFFER < requests * MIN_LOG_LINE:
        sample.invalid = f"{log_bytes} bytes of access log for {requests} requests"
    return sample


def sample_idle(running: Running, round_: int) -> Sample:
    """Memory per idle connection: of a fresh process that has served some requests, before and after."""
    scenario = running.at.scenario
    sample = Sample(running.name, round_)
    warm = command_for(scenario, running.at.port, 0.3)
    warm[warm.index("--conns") + 1] = "4"
    subprocess.run(["taskset", "-c", str(LOAD_CPU), *warm], capture_output=True, check=False)
    pids = running.pids()
    time.sleep(0.5)
    before = memory_kib(pids)
    command = command_for(scenario, running.at.port, 0, "--hold")
    client = subprocess.Popen(
        ["taskset", "-c", str(LOAD_CPU), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    is_ready = client.stdout.readline().strip() == "READY"
    time.sleep(0.5)
    after = memory_kib(pids)
    is_open = client.poll() is None
    _, errors = client.communicate("")
    if not (is_ready and is_open):
        sample.invalid = f"the connections did not open: {errors.strip()[:300]}"
        return sample
    sample.values = {
        "bytes_per_connection": (after["pss_kib"] - before["pss_kib"]) * 1024 / scenario.connections,
        "pss_before_kib": before["pss_kib"],
        "rss_before_kib": before["rss_kib"],
        "pss_after_kib": after["pss_kib"],
    }
    return sample


# --- instruction counts ---------------------------------------------------------------------------------------------


def instruction_counts() -> list[tuple[str, str, int]]:
    """(bench, case, instructions) of bench/instructions, under valgrind: seconds, once it is built."""
    command = ["cargo", "bench", "--quiet", "--manifest-path", str(HERE / "Cargo.toml"), "--package", "rhumb-bench-instructions"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"CARGO_TARGET_DIR": str(tools().parent)})
    if done.returncode != 0:
        complain(f"no instruction counts: {done.stderr.strip()[-300:]}")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    found = re.findall(r"^(\w+)::\w+::(\w+) (\w+):.*\n\s+Instructions:\s+(\d+)", plain, re.MULTILINE)
    return [(f"{crate}: {bench}", case, int(count)) for crate, bench, case, count in found]
