"""A class served in a process of its own, as a teacher would, and what asks it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lab.classroom.questions.lesson import SHIPPED, read
from lab.classroom.questions.material import material, pending
from lab.classroom.questions.showing import showing

SAMPLE = Path(__file__).parents[1] / "results" / "sample"
PATIENCE_SECONDS = 120.0
TOLD = re.compile(r"teacher +(\S+)/teach#(\S+)\nstudents +\S+ +code (\S+)\n")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


LIGHT = """
import json, sys
from lab.classroom.questions.showing import Figure, Showing
from lab.classroom.web.address import listen
from lab.classroom.web.serve import serve
def up(told):
    print("teacher", told.teacher, flush=True)
    print("students", told.address, "code", told.code, flush=True)
material = json.load(open(sys.argv[1]))
showing = json.load(open(sys.argv[3]))
figures = {int(at): Figure(svg=each["svg"].encode(), alt=each["alt"]) for at, each in showing["figures"].items()}
shown = Showing(report=b"<p>report</p>", race=showing["race"].encode(), figures=figures)
live = int(sys.argv[4]) if sys.argv[4] else None
serve(
    sys.argv[2], material, listening=listen(sys.argv[5], int(sys.argv[6])), keep_days=1,
    showing=None if live else shown, live=live, up=up,
)
"""
"""What the command does once the run has answered, which takes long: pandas is imported for it."""


@cache
def answered(lesson: str) -> str:
    """A lesson with the answers of the run that comes with lab, as JSON."""
    return json.dumps(material(read(SHIPPED / lesson), SAMPLE))


def unanswered(lesson: str) -> str:
    """The same before anything was measured."""
    return json.dumps(pending(read(SHIPPED / lesson)))


@cache
def shown(lesson: str) -> str:
    """What of that run can be shown after a reveal, as JSON."""
    found = showing(read(SHIPPED / lesson), SAMPLE, "sample")
    figures = {place: {"svg": each.svg.decode(), "alt": each.alt} for place, each in found.figures.items()}
    return json.dumps({"race": found.race.decode(), "figures": figures})


class Served:
    """A running ``lab class serve``; a light one is its server alone."""

    def __init__(
        self, home: Path, *words: str, light: bool = False, live: int | None = None, bind: str = "127.0.0.1"
    ) -> None:
        self.home, self.words, self.live = home, words, live
        self.command = ["-m", "lab.cli.main", "class", "serve"]
        if light:
            (home / "material.json").write_text(answered(words[0]) if live is None else unanswered(words[0]))
            (home / "showing.json").write_text(shown(words[0]))
            self.command = ["-c", LIGHT, str(home / "material.json"), "light", str(home / "showing.json")]
            self.words = ("" if live is None else str(live), bind, "0")
        self.start()

    def start(self) -> None:
        self.log = self.home / "serve.err"
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *self.command, *self.words],
                stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | {"LAB_HOME": str(self.home)},
                pass_fds=() if self.live is None else (self.live,),
            )  # fmt: skip
        assert self.process.stdout is not None
        said = self.process.stdout.readline() + self.process.stdout.readline()
        found = TOLD.fullmatch(said)
        assert found, said + self.log.read_text()
        self.address, self.key, self.code = found.groups()
        self.host = self.address.removeprefix("http://")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def ask(self, path: str, sent: Any = None, *, cookie: str = "", **headers: str) -> Answer:
        """A GET, or where something is ``sent`` a POST of it as JSON, as a page of the server would ask."""
        given = {"Host": self.host, **({"Cookie": cookie} if cookie else {})}
        text = None
        if sent is not None:
            text = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
            given |= {"Origin": self.address, "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE_SECONDS)
        try:
            connection.request(
                "POST" if text is not None else "GET", path, text, {k: v for k, v in given.items() if v}
            )
            got = connection.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read().decode())
        finally:
            connection.close()

    def join(self, nickname: str) -> str:
        """A student's cookie."""
        answer = self.ask("/join", {"code": self.code, "nickname": nickname})
        assert answer.status == 200, answer
        return answer.headers["set-cookie"].partition(";")[0]

    def teacher(self) -> str:
        """The teacher's cookie."""
        answer = self.ask("/teach/enter", {"key": self.key})
        assert answer.status == 200, answer
        return answer.headers["set-cookie"].partition(";")[0]

    def state(self, path: str, cookie: str) -> dict[str, Any]:
        """The first event of a stream."""
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", path, headers={"Host": self.host, "Cookie": cookie})
            got = connection.getresponse()
            assert got.status == 200, got.read()
            return next_event(got)
        finally:
            connection.close()

    def step(self, teacher: str, action: str) -> Answer:
        """One of the teacher's, from wherever the class is."""
        now = self.state("/teach/events", teacher)
        sent = {"action": action, "phase": now["phase"], "question": now["question"]}
        return self.ask("/teach/act", sent, cookie=teacher)


def next_event(stream: http.client.HTTPResponse) -> dict[str, Any]:
    """The next event's data; comments and the time to wait are passed over."""
    while True:
        line = stream.readline().decode()
        assert line, "the stream has ended"
        if line.startswith("data: "):
            found: dict[str, Any] = json.loads(line.removeprefix("data: "))
            return found


@contextmanager
def serving(*words: str, light: bool = False, live: int | None = None, bind: str = "127.0.0.1") -> Iterator[Served]:
    """A class in a home of its own, which a user without an account can reach."""
    home = Path(tempfile.mkdtemp(prefix="lab-class-", dir="/tmp"))
    home.chmod(0o711)
    words = words if light else (*words, "--port", "0")
    served = Served(home, *words, light=light, live=live, bind=bind)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.kill()
        if served.process.stdout is not None:
            served.process.stdout.close()
        shutil.rmtree(home)


def until(what: Any, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until ``what()`` is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)
