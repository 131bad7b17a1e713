"""A service that calls another one while it serves a request, and passes on how much time and how many retries are left.

usage: relay_app.py URL PORT
"""

import http.client
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

further, port = urlsplit(sys.argv[1]), int(sys.argv[2])
PASSED_ON = ["x-rhumb-retries-left", "x-request-deadline", "traceparent"]


class Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        fields = {name: self.headers[name] for name in PASSED_ON if self.headers[name]}
        connection = http.client.HTTPConnection(further.hostname, further.port, timeout=30)
        connection.request("GET", self.path, headers=fields)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        if answer.headers["x-rhumb-retries-left"]:
            self.send_header("x-rhumb-retries-left", answer.headers["x-rhumb-retries-left"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Relay).serve_forever()
