"""A small web application on Python's standard library: a page, a health check and a little arithmetic."""

import html
import json
import os
import signal
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from urllib.parse import parse_qs, urlsplit

import work

TEMPLATES = Path(__file__).parent / "templates"
PAGE = Template((TEMPLATES / "page.html").read_text())
ROW = Template((TEMPLATES / "row.html").read_text())
GREETING = os.environ.get("GREETING", "Hello")


class BadRequest(Exception):
    """The visitor asked for something that makes no sense; the text says what."""


def page(_query: dict[str, list[str]]) -> tuple[str, str]:
    rows = "".join(
        ROW.substitute(name=html.escape(name), value=html.escape(str(value))) for name, value in work.facts().items()
    )
    return "text/html; charset=utf-8", PAGE.substitute(greeting=html.escape(GREETING), rows=rows)


def health(_query: dict[str, list[str]]) -> tuple[str, str]:
    return "text/plain; charset=utf-8", "ok\n"


def info(_query: dict[str, list[str]]) -> tuple[str, str]:
    return "application/json", json.dumps(work.facts())


def primes(query: dict[str, list[str]]) -> tuple[str, str]:
    try:
        below = int(query.get("below", ["100"])[0])
        found = work.primes(below)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    return "application/json", json.dumps(
        {"below": below, "count": len(found), "largest": found[-1] if found else None}
    )


ROUTES = {"/": page, "/health": health, "/api/info": info, "/api/primes": primes}


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open between requests; an answer leaves in one piece."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        route = ROUTES.get(target.path)
        if route is None:
            self.answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", "not found\n")
            return
        try:
            self.answer(HTTPStatus.OK, *route(parse_qs(target.query)))
        except BadRequest as error:
            self.answer(HTTPStatus.BAD_REQUEST, "text/plain; charset=utf-8", f"{error}\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            pass  # the visitor hung up, which is no fault of ours

    def answer(self, status: HTTPStatus, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: a line per request would measure the log."""


class Server(ThreadingHTTPServer):
    """A thread per connection, which does not hold up the end."""

    daemon_threads = True
    request_queue_size = 128
    address_family = socket.AF_INET

    def server_bind(self) -> None:
        """As in the base class, without its look-up of the host's full name, which can wait for a name server."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]


def main() -> int:
    server = Server(("0.0.0.0", int(os.environ.get("PORT", "5000"))), Handler)

    def stop(_number: int, _frame: object) -> None:
        # shutdown() waits for serve_forever(), which runs in this very thread
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
