#!/usr/bin/env python3
"""Draws docs/health.svg: the share of the requests that an endpoint gets while it fails and comes back.

health_plot.py RHUMB_BINARY OUTPUT.svg

A real run: three endpoints in this process behind the proxy, four clients. One endpoint fails every second request for
a while. Its share of each quarter of a second is drawn, with what the proxy says about its state.
"""

import http.client
import http.server
import json
import os
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

STEP = 0.25
FAILS_FROM, FAILS_TO, END = 3.0, 6.0, 24.0
COLOURS = {"healthy": "#e8f3ea", "ejected": "#f8d9d6", "probing": "#fbe7c6", "ramping": "#dfe9f7"}


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64


def serve(counts, index, fails):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        seen = 0

        def do_GET(self):
            counts[index] += 1
            Handler.seen += 1
            time.sleep(0.002)
            self.send_response(500 if fails() and Handler.seen % 2 == 0 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.wfile.flush()

        def log_message(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, is_over):
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    while not is_over.is_set():
        line.request("GET", "/")
        line.getresponse().read()


def state_of(admin, token, address):
    line = http.client.HTTPConnection("127.0.0.1", admin, timeout=5)
    line.request("GET", "/endpoints", headers={"Authorization": f"Bearer {token}"})
    endpoints = json.load(line.getresponse())["backends"][0]["endpoints"]
    return next(e for e in endpoints if e["address"] == address)["state"]


def run(binary):
    counts = [0, 0, 0]
    begun = time.monotonic() + 2
    fails = lambda: FAILS_FROM <= time.monotonic() - begun < FAILS_TO
    ports = [serve(counts, i, fails if i == 0 else lambda: False) for i in range(3)]
    port, admin = free_port(), free_port()
    with tempfile.TemporaryDirectory() as home:
        config, token_file = os.path.join(home, "rhumb.yaml"), os.path.join(home, "token")
        with open(config, "w") as out:
            endpoints = ", ".join(f"'127.0.0.1:{p}'" for p in ports)
            out.write(f"listeners: {{http: {{port: {port}}}}}\nadmin: {{address: '127.0.0.1:{admin}'}}\n"
                      f"accessLog: {{enabled: false}}\nbackends: {{b: {{endpoints: [{endpoints}]}}}}\n"
                      "routes: [{to: b}]\n")
        process = subprocess.Popen([binary, "run", "-c", config, "--admin-token-file", token_file],
                                   stderr=subprocess.DEVNULL)
        try:
            while time.monotonic() < begun:
                time.sleep(0.01)
            with open(token_file) as source:
                token = source.read().strip()
            is_over = threading.Event()
            clients = [threading.Thread(target=ask, args=(port, is_over)) for _ in range(4)]
            for client in clients:
                client.start()
            points, before = [], list(counts)
            for i in range(int(END / STEP)):
                time.sleep(max(0.0, begun + (i + 1) * STEP - time.monotonic()))
                now = list(counts)
                had = [a - b for a, b in zip(now, before)]
                before = now
                state = state_of(admin, token, f"127.0.0.1:{ports[0]}")
                points.append(((i + 0.5) * STEP, 100 * had[0] / max(1, sum(had)), state))
            is_over.set()
            for client in clients:
                client.join()
        finally:
            process.terminate()
            process.wait()
    return points


def draw(points):
    width, height, left, top = 760, 260, 46, 20
    x = lambda t: left + t / END * (width - left - 14)
    y = lambda share: top + (1 - share / 40) * (height - top - 46)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           'font-family="sans-serif" font-size="12" fill="#333">',
           f'<rect width="{width}" height="{height}" fill="#fff"/>']
    begin = 0
    for i in range(1, len(points) + 1):
        if i == len(points) or points[i][2] != points[begin][2]:
            a, b, state = begin * STEP, i * STEP, points[begin][2]
            out.append(f'<rect x="{x(a):.1f}" y="{top}" width="{x(b) - x(a):.1f}" height="{y(0) - top:.1f}" '
                       f'fill="{COLOURS.get(state, "#eee")}"/>')
            if b - a >= 1.2:
                out.append(f'<text x="{x((a + b) / 2):.1f}" y="{top + 14}" text-anchor="middle">{state}</text>')
            begin = i
    for share in (0, 10, 20, 30, 40):
        out.append(f'<line x1="{left}" x2="{width - 14}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="#ccc"/>')
        out.append(f'<text x="{left - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share} %</text>')
    for t in range(0, int(END) + 1, 3):
        out.append(f'<text x="{x(t):.1f}" y="{y(0) + 18:.1f}" text-anchor="middle">{t} s</text>')
    for t in (FAILS_FROM, FAILS_TO):
        out.append(f'<line x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{top}" y2="{y(0):.1f}" stroke="#b33" stroke-dasharray="4 3"/>')
    line = " ".join(f"{x(t):.1f},{y(min(share, 40)):.1f}" for t, share, _ in points)
    out.append(f'<polyline points="{line}" fill="none" stroke="#1c5fa8" stroke-width="2"/>')
    out.append(f'<text x="{(width + left) / 2:.0f}" y="{height - 8}" text-anchor="middle">'
               'share of all requests; between the red lines it fails every second one</text>')
    out.append("</svg>\n")
    return "\n".join(out)


if __name__ == "__main__":
    drawn = draw(run(sys.argv[1]))
    with open(sys.argv[2], "w") as target:
        target.write(drawn)
