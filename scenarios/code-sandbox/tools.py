"""The tools of a sandbox, over HTTP: write a file, run Python, commit, read a file. One call is one POST.

What is inside may be anything: whoever wants to be protected from it relies on the boundary, not on this server.
"""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORKSPACE = Path("/workspace")
PORT = 8000
SECONDS = 60.0

Answer = dict[str, object]


def write(path: str, text: str) -> Answer:
    place = WORKSPACE / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return {"bytes": len(text.encode())}


def read(path: str) -> Answer:
    return {"text": (WORKSPACE / path).read_text()}


def python(code: str) -> Answer:
    """A new interpreter for each snippet, so that none meets what another has left in memory."""
    return run([sys.executable, "-"], code)


def commit(message: str) -> Answer:
    """All that has changed, reaching the disk, as git does it: the hash is the answer."""
    done = run(["git", "add", "--all"])
    for argv in (["git", "commit", "--quiet", f"--message={message}"], ["git", "rev-parse", "HEAD"]):
        if done["exit_code"] == 0:
            done = run(argv)
    return done


def run(argv: list[str], stdin: str = "") -> Answer:
    done = subprocess.run(argv, input=stdin, text=True, capture_output=True, cwd=WORKSPACE, timeout=SECONDS)
    return {"exit_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


TOOLS = {"write": write, "read": read, "python": python, "commit": commit}


class Handler(BaseHTTPRequestHandler):
    """Connections stay open between calls; an answer leaves in one piece."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.answer(200, {"tools": sorted(TOOLS)})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        tool = TOOLS.get(self.path.removeprefix("/"))
        if tool is None:
            self.answer(404, {"error": f"no such tool; there are {', '.join(TOOLS)}"})
            return
        try:
            self.answer(200, tool(**json.loads(body)))
        except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
            self.answer(400, {"error": f"{type(error).__name__}: {error}"})

    def answer(self, status: int, said: Answer) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet: a line per call would measure the log."""


if __name__ == "__main__":
    os.umask(0o022)
    ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever()
