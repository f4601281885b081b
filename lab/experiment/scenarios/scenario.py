"""Find a scenario and read its scenario.toml. Any folder with a Dockerfile is a scenario.

scenario.toml, every key optional::

    title = "A small web application"
    port = 5000                      # default: the image's first EXPOSE, or what it is seen to listen on

    [readiness]                      # one of http, tcp, log, send, started, done; default: see `looking`
    http = "/health"
    status = 200
    body = "ok"
    timeout_seconds = 120

    [limits]
    memory = "256M"
    cpus = 1.0
    pids = 128

    [load]                           # what wrk asks for; default: GET on its HTTP port, where it has no work
    path = "/"
    connections = 4
    duration_seconds = 3.0

    [work]                           # a load generator or a job of its own: see `lab.experiment.scenarios.work`

    [environment]
    GREETING = "hello"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.errors import ScenarioError, UsageError
from lab.experiment.scenarios import work
from lab.host.installed import shipped
from lab.host.units import parse_bytes, parse_cpus
from lab.model import (
    DoneReadiness,
    HttpReadiness,
    Limits,
    Load,
    LogReadiness,
    Readiness,
    Scenario,
    StartedReadiness,
    TalkReadiness,
    TcpReadiness,
)

SHIPPED = Path(shipped("scenarios"))

NOWHERE = Path("/nonexistent")  # what has no folder
KINDS = ("http", "tcp", "log", "send", "started", "done")
KEYS: Mapping[str, type | tuple[type, ...]] = {
    "title": str,
    "port": int,
    "readiness": dict,
    "limits": dict,
    "load": dict,
    "work": dict,
    "environment": dict,
}
TABLES: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "readiness": {
        "http": str,
        "status": int,
        "body": str,
        "tcp": bool,
        "started": bool,
        "done": bool,
        "log": str,
        "send": str,
        "expect": str,
        "timeout_seconds": (int, float),
    },
    "limits": {"memory": (str, int), "cpus": (int, float), "pids": int},
    "load": {"path": str, "connections": int, "duration_seconds": (int, float)},
    "work": work.KEYS,
}


def names() -> list[str]:
    """The scenarios that come with lab and those under ``./scenarios``, sorted."""
    found = set()
    for folder in (SHIPPED, Path("scenarios")):
        with suppress(PermissionError):  # a folder whose files the user may not see has none
            found |= {dockerfile.parent.name for dockerfile in folder.glob("*/Dockerfile")}
    return sorted(found)


def locate(word: str) -> Path:
    """The folder ``word`` means: a path that holds a Dockerfile, else a scenario's name.

    Raises ScenarioError when there is none.
    """
    for folder in (Path(word), Path("scenarios") / word, SHIPPED / word):
        if _seen(folder / "Dockerfile", Path.is_file):
            return folder.resolve()
    if _seen(Path(word), Path.is_dir):
        raise ScenarioError(f"{word} holds no Dockerfile", hint="a scenario is a folder with a Dockerfile in it")
    raise ScenarioError(
        f"no scenario and no folder is called {word}",
        hint=f"scenarios here: {', '.join(names()) or 'none'}; or name a folder that holds a Dockerfile",
    )


def _seen(path: Path, is_kind: Callable[[Path], bool]) -> bool:
    """Whether it is there, as far as the user may see."""
    try:
        return is_kind(path)
    except PermissionError:
        return False


def load(word: str) -> Scenario:
    """The scenario ``word`` means, with the defaults its scenario.toml leaves open.

    Raises ScenarioError with the file and the key or line that is wrong.
    """
    folder = locate(word)
    settings = folder / "scenario.toml"
    return _scenario(folder, _read(settings) if settings.is_file() else {}, settings)


def asked_alone(name: str, readiness: Readiness | None, port: int | None, timeout_seconds: float) -> Scenario:
    """No folder, no image: what is asked of something that is there already."""
    return Scenario(
        name=name, title=name, directory=NOWHERE, dockerfile=NOWHERE / "Dockerfile", port=port, readiness=readiness,
        ready_timeout_seconds=timeout_seconds,
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}", hint="TOML: https://toml.io") from error


def _scenario(folder: Path, data: Mapping[str, Any], path: Path) -> Scenario:
    _check(data, KEYS, path, "")
    for table, keys in TABLES.items():
        _check(data.get(table, {}), keys, path, f"{table}.")
    port = data.get("port")
    if port is not None and not 0 < port < 65536:
        raise ScenarioError(f"{path}: port = {port} is no TCP port", hint="1 to 65535")
    environment = data.get("environment", {})
    _check(environment, dict.fromkeys(environment, str), path, "environment.")
    return Scenario(
        name=folder.name,
        title=data.get("title", folder.name),
        directory=folder,
        dockerfile=folder / "Dockerfile",
        port=port,
        readiness=_readiness(data.get("readiness", {}), path),
        ready_timeout_seconds=_positive(data.get("readiness", {}), "timeout_seconds", 120.0, path, "readiness."),
        limits=_limits(data.get("limits", {}), path),
        load=_load(data["load"], path) if "load" in data else None,
        work=work.parse(data["work"], path) if "work" in data else None,
        environment=environment,
    )


def _check(data: Mapping[str, Any], keys: Mapping[str, type | tuple[type, ...]], path: Path, prefix: str) -> None:
    for key, value in data.items():
        expected = keys.get(key)
        if expected is None:
            raise ScenarioError(f"{path}: unknown key {prefix}{key}", hint=f"known: {', '.join(keys)}")
        kinds = expected if isinstance(expected, tuple) else (expected,)
        # bool is a kind of int in Python, not in TOML
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise ScenarioError(f"{path}: {prefix}{key} = {value!r} is no {wanted}", hint="see docs/scenarios.md")


def _readiness(table: Mapping[str, Any], path: Path) -> Readiness | None:
    chosen = [kind for kind in KINDS if kind in table]
    if len(chosen) > 1:
        raise ScenarioError(f"{path}: readiness has {' and '.join(chosen)}", hint=f"keep one of {', '.join(KINDS)}")
    if "http" in table:
        if not table["http"].startswith("/"):
            raise ScenarioError(f"{path}: readiness.http = {table['http']!r} is no path", hint='like "/health"')
        return HttpReadiness(path=table["http"], status=table.get("status", 200), body=table.get("body", ""))
    if "log" in table:
        try:
            re.compile(table["log"])
        except re.error as error:
            raise ScenarioError(
                f"{path}: readiness.log = {table['log']!r} is no regular expression", hint=str(error)
            ) from error
        return LogReadiness(pattern=table["log"])
    if "send" in table:
        if not table.get("expect"):
            raise ScenarioError(f"{path}: readiness.send without expect", hint='like expect = "+PONG"')
        return TalkReadiness(send=table["send"], expect=table["expect"])
    plain: dict[str, Readiness] = {"tcp": TcpReadiness(), "started": StartedReadiness(), "done": DoneReadiness()}
    return next((readiness for kind, readiness in plain.items() if table.get(kind)), None)


def _limits(table: Mapping[str, Any], path: Path) -> Limits:
    try:
        memory = table.get("memory")
        cpus = table.get("cpus")
        return Limits(
            memory_bytes=None if memory is None else parse_bytes(str(memory)),
            cpus=None if cpus is None else parse_cpus(str(cpus)),
            pids=None if "pids" not in table else int(_positive(table, "pids", 1, path, "limits.")),
        )
    except UsageError as error:
        raise ScenarioError(f"{path}: limits: {error.message}", hint=error.hint) from error


def _load(table: Mapping[str, Any], path: Path) -> Load:
    return Load(
        path=table.get("path", "/"),
        connections=int(_positive(table, "connections", 4, path, "load.")),
        duration_seconds=_positive(table, "duration_seconds", 3.0, path, "load."),
    )


def _positive(table: Mapping[str, Any], key: str, default: float, path: Path, prefix: str) -> float:
    value = table.get(key, default)
    if value <= 0:
        raise ScenarioError(f"{path}: {prefix}{key} = {value} must be above 0", hint="see docs/scenarios.md")
    return float(value)
