"""Folders of one's own, for tests: a Dockerfile each, no scenario.toml, nothing said of ports or readiness."""

from __future__ import annotations

from pathlib import Path

from tiny import fill

COMMANDS = {
    "slow": "sleep 2; exec httpd -f -p [::]:8000 -h /srv",
    "crash": "sleep 0.4; echo 'No module named flask' >&2; exit 3",
    "batch": "sleep 1; echo all done",
    "brief": "echo all done",
    "broken": "echo 'No module named flask' >&2; exit 3",
    "everywhere": "exec httpd -f -p [::]:8000 -h /srv",
    "several": "httpd -p 8000 -h /srv; exec httpd -f -p 8001 -h /srv",
    "loopback": "exec httpd -f -p 127.0.0.1:8000 -h /srv",
    "quiet": "exec sleep 3600",
}
"""What each does; a web server has ``/index.html``."""

INTRODUCTION = """\
FROM python:3.11-slim
WORKDIR /app
COPY . .
RUN pip install -r requirements.txt
CMD ["python", "app.py"]
"""
"""The Dockerfile that every introduction to Docker shows: no EXPOSE."""

APP = """\
import http.server


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")


http.server.ThreadingHTTPServer(("", 5000), Handler).serve_forever()
"""


def make(folder: Path, name: str) -> Path:
    """The folder of one of COMMANDS, of busybox alone."""
    made = folder / name
    fill(made / "root")
    (made / "Dockerfile").write_text(
        f'FROM scratch\nCOPY root/ /\nENV PATH=/bin\nCMD ["sh", "-c", "{COMMANDS[name]}"]\n'
    )
    return made


def make_introduction(folder: Path) -> Path:
    """What a student has after the first lesson. Nothing is fetched: its requirements are a comment."""
    made = folder / "introduction"
    made.mkdir()
    (made / "Dockerfile").write_text(INTRODUCTION)
    (made / "app.py").write_text(APP)
    (made / "requirements.txt").write_text("# none\n")
    return made
