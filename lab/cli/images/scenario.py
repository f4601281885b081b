"""``lab scenario``: the applications that come with lab, and the start of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.images.matrix import matrix
from lab.commands.completion import complete_scenario
from lab.commands.output import JsonTo, write_json
from lab.errors import ScenarioError, UsageError
from lab.host.installed import BOOTSTRAP

if TYPE_CHECKING:
    from lab.model import Scenario

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


DOCKERFILE = """\
# What your application needs, and how it starts. Any Dockerfile works; this one serves a page.
FROM python:3.11-slim

WORKDIR /app
COPY app.py ./

USER 1000:1000
EXPOSE 8000
CMD ["python3", "app.py"]
"""
APPLICATION = '''\
"""Replace me: a server that answers /health, and computes a little for everybody who asks for /."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"ok" if self.path == "/health" else str(sum(range(20_000))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet: a line per request would be measured, too."""


ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
'''
SETTINGS = """\
# Every key is optional; docs/scenarios.md explains them all.
title = "{title}"

[readiness]                 # it counts as up when GET /health answers 200 with this in the body
http = "/health"
body = "ok"

[limits]                    # the same for every backend
memory = "256M"
cpus = 1.0

[load]                      # what wrk asks for while the instance is measured
path = "/"
connections = 4
duration_seconds = 3.0

# A load generator or a job of your own instead, with the numbers it prints:
# [work]
# beside = "my-client http://{{address}}:{{port}}"     # or: inside = "my-job"
# expect = "all right"
# [[work.figures]]
# name = "rate"
# unit = "requests/s"
# pattern = 'rate: ([0-9.]+)'
# better = "more"
"""
PAGE = """\
# {title}

```console
$ sudo {bootstrap}lab compare {where}
```

## What it teaches

## What you may not conclude
"""


@app.callback()
def scenario() -> None:
    """Look at the scenarios, and start one of your own."""


@app.command("ls")
def list_scenarios(as_json: JsonTo = "") -> None:
    """List the scenarios: name, what it is, how it is loaded."""
    from lab.experiment.scenarios import scenario as scenarios

    found = [scenarios.load(name) for name in scenarios.names()]
    if as_json:
        write_json([_described(each) for each in found], as_json)
        return
    rows = [("NAME", "LOAD", "TITLE"), *((each.name, _load(each), each.title) for each in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command("show")
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="SCENARIO", help="A scenario's name, or a folder.", autocompletion=complete_scenario),
    ],
    as_json: JsonTo = "",
) -> None:
    """Show a scenario: how it is run, what is measured, and the page that says what it teaches."""
    from lab.experiment.scenarios.scenario import load

    found = load(name)
    described = _described(found)
    if as_json:
        write_json(described, as_json)
        return
    for key, value in described.items():
        if value not in (None, {}, []):
            print(f"{key.replace('_', ' ')}: {value if isinstance(value, str) else json.dumps(value)}")
    page = found.directory / "README.md"
    if page.is_file():
        print(f"\n{page.read_text(encoding='utf-8').strip()}")


@app.command("new")
def new(
    where: Annotated[
        str, typer.Argument(metavar="DIR", help="The folder to make; a bare name goes to ./scenarios/NAME.")
    ],
) -> None:
    """Start a scenario of your own: a runnable template with a Dockerfile, a server and a commented scenario.toml."""
    folder = Path(where) if "/" in where else Path("scenarios", where)
    if not folder.name or folder.name.startswith("."):
        raise UsageError(f"{where!r} names no folder", hint="lab scenario new my-app")
    if folder.exists():
        raise ScenarioError(f"{folder} is there already", hint="choose another name")
    title = folder.name.replace("-", " ").replace("_", " ").capitalize()
    files = {
        "Dockerfile": DOCKERFILE,
        "app.py": APPLICATION,
        "scenario.toml": SETTINGS.format(title=title),
        "README.md": PAGE.format(title=title, where=where, bootstrap=BOOTSTRAP),
    }
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    print(f"{folder}: {', '.join(files)}\ntry it: lab compare {where}")


app.command("matrix")(matrix)


def _described(found: Scenario) -> dict[str, Any]:
    import dataclasses

    def plain(value: Any) -> Any:
        return None if value is None else dataclasses.asdict(value)

    readiness = (
        {"kind": type(found.readiness).__name__.removesuffix("Readiness").lower()} if found.readiness else None
    )
    return {
        "name": found.name,
        "title": found.title,
        "directory": str(found.directory),
        "port": found.port,
        "readiness": None if readiness is None else readiness | plain(found.readiness),
        "limits": plain(found.limits),
        "load": plain(found.load),
        "work": plain(found.work),
        "environment": dict(found.environment),
    }


def _load(found: Scenario) -> str:
    if found.work is not None:
        return f"{found.work.argv[0].rpartition('/')[2]} {found.work.place}"
    return "wrk" if found.load is not None else "none"
