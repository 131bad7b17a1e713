"""A service that knows nothing of a mesh: answers requests on 127.0.0.1 with its name, and with what the next one says.

usage: hop.py NAME PORT [URL]
"""

import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

name, port = sys.argv[1], int(sys.argv[2])
further = sys.argv[3] if len(sys.argv) > 3 else None


class Hop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = name
        if further:
            with urllib.request.urlopen(further.rstrip("/") + self.path) as answer:
                text += " < " + answer.read().decode()
        content = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Hop).serve_forever()
