#!/usr/bin/env python3
"""The server that `phi-infer serve` is measured beside: one request at a time, one text at a time.

    python benchmarks/serve_plain.py CHECKPOINT        prints its port

The standard library's HTTP server around the same generator; others wait in the backlog.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from phi_infer import Generator, load


class PlainServer(HTTPServer):
    """Holds the generator."""

    request_queue_size = 1024

    def __init__(self, generator: Generator) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.generator = generator


class Handler(BaseHTTPRequestHandler):
    """/v1/completions, streamed."""

    server: PlainServer

    def do_POST(self) -> None:
        """A text in events, until it ends or the client is gone."""
        options = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        options.pop("stream")
        self._begin("text/event-stream")
        try:
            for piece in self.server.generator.stream(options.pop("prompt"), **options):
                event = json.dumps({"choices": [{"text": piece}]})
                self.wfile.write(f"data: {event}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


if __name__ == "__main__":
    plain = PlainServer(load(sys.argv[1]))
    print(f"plain at http://127.0.0.1:{plain.server_port}", flush=True)
    plain.serve_forever()
