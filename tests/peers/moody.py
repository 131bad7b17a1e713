"""A service that says how it is: answers every request on 127.0.0.1 with its name, and /healthy with 503 while a file exists.

usage: moody.py NAME PORT FILE
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

name, port, unwell = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Moody(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        content = name.encode()
        self.send_response(503 if self.path == "/healthy" and os.path.exists(unwell) else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Moody).serve_forever()
