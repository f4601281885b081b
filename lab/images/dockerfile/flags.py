"""The options of instructions: ``--mount=type=cache,target=/c``, ``--interval=5s``, ``--chmod=u+x``. Pure."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence

from lab.errors import DockerfileError
from lab.images.dockerfile.instructions import Mount
from lab.model import MOST_HEALTHCHECK_SECONDS, Healthcheck

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
ONE_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
COMMON = frozenset({"type", "target"})
WHO = frozenset({"mode", "uid", "gid"})
ACCESS = frozenset({"rw", "ro"})
SWITCHES = ACCESS | {"required"}
MOUNT_KEYS: Mapping[str, frozenset[str]] = {
    "bind": COMMON | ACCESS | {"source", "from"},
    "cache": COMMON | ACCESS | WHO | {"source", "from", "id", "sharing"},
    "tmpfs": COMMON | {"size"},
    "secret": COMMON | WHO | {"id", "required", "env"},
    "ssh": COMMON | WHO | {"id", "required"},
}
ALIASES = {"dst": "target", "destination": "target", "src": "source", "readwrite": "rw", "readonly": "ro"}


def split(flags: Sequence[str], allowed: Mapping[str, str], keyword: str, line: int) -> dict[str, list[str]]:
    """Flags by name, in their order. ``allowed`` maps each name to "value", "switch" or "many".

    Raises DockerfileError for one that the instruction does not have, or that is given twice.
    """
    found: dict[str, list[str]] = {}
    for flag in flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        kind = allowed.get(name)
        if kind is None:
            known = ", ".join(f"--{one}" for one in allowed) or "none"
            raise DockerfileError(f"{keyword} has no option --{name}", line=line, hint=f"its options: {known}")
        if kind != "many" and name in found:
            raise DockerfileError(f"{keyword} --{name} is given twice", line=line, hint="keep one")
        if kind == "switch" and not equals:
            value = "true"
        elif kind == "switch" and value not in ("true", "false"):
            raise DockerfileError(f"{keyword} --{name}={value}", line=line, hint=f"--{name} or --{name}=false")
        elif not equals:
            raise DockerfileError(f"{keyword} --{name} has no value", line=line, hint=f"--{name}=VALUE")
        found.setdefault(name, []).append(value)
    return found


def mount(text: str, line: int) -> Mount:
    """One ``--mount``'s value: comma-separated, quoted as in CSV. Raises DockerfileError."""
    options: dict[str, str] = {}
    for field in next(csv.reader([text])):
        key, equals, value = field.partition("=")
        key = ALIASES.get(key.strip().lower(), key.strip().lower())
        if not equals and key not in SWITCHES:
            raise DockerfileError(f"RUN --mount: {key} has no value", line=line, hint=f"{key}=VALUE")
        options[key] = value if equals else "true"
    kind = options.setdefault("type", "bind")
    if kind not in MOUNT_KEYS:
        raise DockerfileError(f"RUN --mount: no type {kind}", line=line, hint=f"types: {', '.join(MOUNT_KEYS)}")
    known = MOUNT_KEYS[kind]
    if unknown := [key for key in options if key not in known]:
        raise DockerfileError(
            f"RUN --mount: type {kind} has no {unknown[0]}", line=line, hint=", ".join(sorted(known))
        )
    if kind in ("bind", "cache", "tmpfs") and not options.get("target"):
        raise DockerfileError(f"RUN --mount: type {kind} needs a target", line=line, hint="target=/path")
    if options.get("sharing", "shared") not in ("shared", "private", "locked"):
        raise DockerfileError(f"RUN --mount: sharing={options['sharing']}", line=line, hint="shared, private, locked")
    return Mount(options=options)


def seconds(text: str, what: str, line: int) -> float:
    """Go's durations: ``1m30s``, ``500ms``; 0 needs no unit. Raises DockerfileError."""
    at, total = 0, 0.0
    while match := ONE_DURATION.match(text, at):
        total += float(match[1]) * UNITS[match[2]]
        at = match.end()
    if text != "0" and (not text or at != len(text)):
        raise DockerfileError(f"{what}={text} is no duration", line=line, hint="like 30s, 1m30s or 500ms")
    return total


def healthcheck(found: Mapping[str, list[str]], test: tuple[str, ...], line: int) -> Healthcheck:
    """HEALTHCHECK's options. Raises DockerfileError for what Docker refuses: below a millisecond, no retries."""
    times: dict[str, float | None] = {}
    for name in ("interval", "timeout", "start-period", "start-interval"):
        value = seconds(found[name][0], f"HEALTHCHECK --{name}", line) if name in found else 0.0
        if 0 < value < 0.001:
            raise DockerfileError(f"HEALTHCHECK --{name} is below 1ms", line=line, hint="1ms or more")
        if value > MOST_HEALTHCHECK_SECONDS:
            raise DockerfileError(f"HEALTHCHECK --{name} is above ten years", line=line, hint="less")
        times[name] = value or None
    retries = found.get("retries", [""])[0]
    if retries and not (retries.isdigit() and int(retries) >= 1):
        raise DockerfileError(f"HEALTHCHECK --retries={retries}", line=line, hint="a number above 0")
    return Healthcheck(
        test=test,
        interval_seconds=times["interval"],
        timeout_seconds=times["timeout"],
        start_period_seconds=times["start-period"],
        start_interval_seconds=times["start-interval"],
        retries=int(retries) if retries else None,
    )


ChangeMode = Callable[[int, bool], int]
"""From a mode, and whether it is a directory's, to another."""

CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*)+)")
ACTION = re.compile(r"([-+=])([rwxXst]*)")
SHIFT = {"u": 6, "g": 3, "o": 0}
SPECIAL = {"u": 0o4000, "g": 0o2000, "o": 0}


def chmod(text: str, keyword: str, line: int) -> ChangeMode:
    """``--chmod``: octal, or symbolic as chmod(1) has it, umask not considered. Raises DockerfileError."""
    if text and len(text) <= 4 and set(text) <= set("01234567"):
        number = int(text, 8)
        return lambda mode, is_directory: number
    clauses = [match for clause in text.split(",") if (match := CLAUSE.fullmatch(clause))]
    if len(clauses) != len(text.split(",")):
        raise DockerfileError(
            f"{keyword} --chmod={text} is neither octal nor symbolic", line=line, hint="--chmod=755, --chmod=go-w"
        )

    def change(mode: int, is_directory: bool) -> int:
        for clause in clauses:
            for sign, letters in ACTION.findall(clause[2]):
                mode = _apply(mode, clause[1].replace("a", "ugo") or "ugo", sign, letters, is_directory)
        return mode

    return change


def _apply(mode: int, who: str, sign: str, letters: str, is_directory: bool) -> int:
    execute = "x" in letters or ("X" in letters and (is_directory or bool(mode & 0o111)))
    bits = ("r" in letters) * 4 | ("w" in letters) * 2 | execute * 1
    given = 0o1000 if "t" in letters else 0
    cleared = 0
    for one in set(who):
        given |= bits << SHIFT[one] | (SPECIAL[one] if "s" in letters else 0)
        cleared |= 0o7 << SHIFT[one] | SPECIAL[one]
    if sign == "=":
        return (mode & ~cleared) | given
    return mode | given if sign == "+" else mode & ~given
