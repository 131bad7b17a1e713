"""What is measured: one line per scenario of BENCHMARKS.md."""

from dataclasses import dataclass


# Largest ratio of Rhumb's cost to the cheapest peer's that the project promises.
BEST_PEER_LIMIT = 0.8


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    # What the client speaks to the proxy: "h1" (plain), "tls" (HTTP/1 over TLS 1.3), "h2" (h2c, prior knowledge), or
    # what is carried as it is: "tcp", "sni" (TLS passed on by server name), "udp".
    downstream: str = "h1"
    # Which backend answers: "h1", "h2" (128 B of content), "grpc" (a message of 128 B) or "l4".
    upstream: str = "h1"
    # "load" (HTTP/1), "load_h2", "load_l4", "handshake", or "idle" (no load: memory of open connections).
    tool: str = "load"
    length: int = 1024
    connections: int = 64
    # Bytes of content of each request.
    post: int = 0
    # Requests per second; 0 is a closed loop.
    rate: int = 0
    routes: int = 100
    # More arguments for the tool.
    extra: tuple[str, ...] = ()
    # Contenders that cannot: HAProxy carries no datagrams.
    without: tuple[str, ...] = ()
    # Scenarios of one group are interleaved with each other, so that they may be compared.
    group: str = ""
    # Each request has a signed token and an API key: "sent" (and nobody looks at them) or "checked", with everything else
    # of POLICIES. What a contender lacks of that, it is spared.
    credentials: str = ""
    # Largest ratio of Rhumb's cost to Envoy's that the project promises (to the best peer: BEST_PEER_LIMIT).
    envoy_limit: float = 0.25


# What the chain of policies-all may add to a request. Unit: µs of CPU.
POLICIES_LIMIT_US = 2.5
# Routes may change the cost of a request by this part at most, from 1 to 10 000.
FLAT_LIMIT = 0.10
# Bytes per idle connection that the project promises.
IDLE_LIMIT = {"idle-plain": 2048, "idle-tls": 8192}
# PSS of a process that has served some requests. Unit: KiB.
IDLE_PROCESS_LIMIT_KIB = 10 * 1024

SCENARIOS = {
    s.name: s
    for s in [
        Scenario("h1-128", "HTTP/1.1, 128 B", length=128),
        Scenario("h1-1k", "HTTP/1.1, 1 KiB"),
        Scenario("h1-16k", "HTTP/1.1, 16 KiB", length=16 << 10),
        Scenario("h1-1m", "HTTP/1.1, 1 MiB", length=1 << 20, connections=16, envoy_limit=0.35),
        Scenario("h1-post-16k", "HTTP/1.1, POST of 16 KiB, answer of 128 B", length=128, post=16 << 10),
        Scenario("h1-1k-4000rps", "HTTP/1.1, 1 KiB, at 4 000 requests per second", rate=4000),
        Scenario("h1-1k-8000rps", "HTTP/1.1, 1 KiB, at 8 000 requests per second", rate=8000),
        Scenario("tls-1k", "HTTP/1.1 over TLS 1.3, 1 KiB", "tls"),
        Scenario("tls-100k", "HTTP/1.1 over TLS 1.3, 100 KiB", "tls", length=100 << 10, connections=32, envoy_limit=0.35),
        Scenario("tls-full", "TLS 1.3, full handshakes", "tls", tool="handshake", length=128),
        Scenario("tls-resumed", "TLS 1.3, resumed handshakes", "tls", tool="handshake", length=128, extra=("--resume",)),
        Scenario("h2h1-1k", "HTTP/2 to HTTP/1.1, 1 KiB", "h2", tool="load_h2", connections=8),
        Scenario("h2h2-128", "HTTP/2 to HTTP/2, 128 B", "h2", "h2", tool="load_h2", length=128, connections=8),
        Scenario("grpc-unary", "gRPC unary, messages of 128 B", "h2", "grpc", tool="load_h2", length=133, connections=8, extra=("--grpc", "128")),
        Scenario("tcp-echo", "TCP relay, messages of 64 B", "tcp", "l4", tool="load_l4", length=64, extra=("--mode", "echo"), envoy_limit=BEST_PEER_LIMIT),
        Scenario("tcp-bulk", "TCP relay, 1 MiB to the client", "tcp", "l4", tool="load_l4", length=1 << 20, connections=16, extra=("--mode", "bulk"), envoy_limit=BEST_PEER_LIMIT),
        Scenario("tcp-connect", "TCP relay, new connections", "tcp", "l4", tool="load_l4", length=64, extra=("--mode", "connect"), envoy_limit=BEST_PEER_LIMIT),
        Scenario("sni-connect", "TLS passed on by server name, new connections", "sni", "l4", tool="load_l4", length=64, extra=("--mode", "sni"), envoy_limit=BEST_PEER_LIMIT),
        Scenario("udp-echo", "UDP, datagrams of 64 B", "udp", "l4", tool="load_l4", length=64, extra=("--mode", "udp"), without=("haproxy",), envoy_limit=BEST_PEER_LIMIT),
        Scenario("h1-close", "HTTP/1.1, 128 B, new connections (Connection: close)", tool="load_l4", length=128, extra=("--mode", "close"), envoy_limit=BEST_PEER_LIMIT),
        Scenario("routes-1", "HTTP/1.1, 1 KiB, 1 route", routes=1, group="routes"),
        Scenario("routes-100", "HTTP/1.1, 1 KiB, 100 routes", routes=100, group="routes"),
        Scenario("routes-10000", "HTTP/1.1, 1 KiB, 10 000 routes", routes=10_000, group="routes"),
        Scenario("policies-none", "HTTP/1.1, 1 KiB, token and key in each request, no policies", group="policies", credentials="sent"),
        Scenario("policies-all", "HTTP/1.1, 1 KiB, jwt, apiKey, rateLimit, authorization, cors, field of a claim (nginx: key, limit, cors)", group="policies", credentials="checked"),
        Scenario("idle-plain", "9 000 idle connections", tool="idle", connections=9000),
        Scenario("idle-tls", "1 500 idle TLS connections", "tls", tool="idle", connections=1500),
    ]
}


L4 = ("tcp", "sni", "udp")


def groups(names: list[str]) -> list[list[Scenario]]:
    """The scenarios in the order of SCENARIOS, those of one group together."""
    found: dict[str, list[Scenario]] = {}
    for scenario in SCENARIOS.values():
        if scenario.name in names:
            found.setdefault(scenario.group or scenario.name, []).append(scenario)
    return list(found.values())
