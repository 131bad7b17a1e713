"""A service that hands on what says which request it works for, and fails for as long as a file is there.

usage: fleet_app.py NAME PORT BROKEN [URL]
"""

import os
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

name, port, broken = sys.argv[1], int(sys.argv[2]), sys.argv[3]
further = sys.argv[4] if len(sys.argv) > 4 else None
PASSED_ON = ["traceparent", "x-request-id"]


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, text = 200, name
        if os.path.exists(broken):
            status, text = 500, name + " is broken"
        elif further:
            fields = {field: self.headers[field] for field in PASSED_ON if self.headers[field]}
            try:
                with urllib.request.urlopen(urllib.request.Request(further + name, headers=fields)) as answer:
                    text += " < " + answer.read().decode()
            except urllib.error.HTTPError as error:
                status, text = 502, f"{name} < {error.code}"
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Service).serve_forever()
