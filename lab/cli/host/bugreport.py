"""``lab doctor --report FILE``: what a bug report needs, in a file that names nobody."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.errors import LabError

UNSAID = ("identity", "noise")  # of the host's facts: one tells hosts apart, the other is of this moment alone
MORE_VERSIONS = {"systemd": ("systemctl", "--version"), "e2fsprogs": ("mke2fs", "-V"), "libc": ("ldd", "--version")}


def require_new(path: Path) -> None:
    """Raises LabError unless ``path`` can be written and is nobody's yet."""
    if path.exists():
        raise LabError(f"{path} exists already", hint="remove it, or choose another name")
    if not path.parent.is_dir():
        raise LabError(f"there is no directory {path.parent}", hint=f"mkdir -p {path.parent}")


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Write what `lab doctor --json` found, and the console of the proof. Only the owner may read the file."""
    from lab.host.survey.anonymous import anonymous

    text = anonymous("\n".join(_lines(found)) + "\n")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise LabError(f"{path} can't be written: {error.strerror}") from error
    print(f"report: {path}; read it before you attach it", file=sys.stderr)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield "# What lab doctor found"
    yield ""
    yield "Host names, users, home folders, addresses and values of the environment are taken out of it, as far as"
    yield "they can be told; words in brackets stand in their place."
    yield from _heading("Versions")
    yield from (f"- {name} {version}" for name, version in {**found["versions"], **_more_versions()}.items())
    yield from _heading("Checks")
    for check in found["checks"]:
        remedy = "" if check["ok"] else f" — remedy: {check['remedy']}"
        yield f"- {'ok ' if check['ok'] else 'NOT'} {check['name']}: {check['found']}{remedy}"
    yield from _heading("Backends")
    for each in found["backends"]:
        yield f"- {each['name']}: {'usable' if each['usable'] else 'not usable: ' + ', '.join(each['obstacles'])}"
    yield from _heading("What runs guests")
    yield f"{found['accelerator'] or 'nothing'}: {found['accelerator_note']}"
    yield from _console()
    yield from _heading("The host")
    told = {name: value for name, value in found["host"].items() if name not in UNSAID}
    yield "```json"
    yield json.dumps(told, indent=1, ensure_ascii=False)
    yield "```"
    settings = sorted(name for name in os.environ if name.startswith("LAB_"))
    yield from _heading("Settings")
    yield f"In the environment, without their values: {', '.join(settings) or 'none of lab’s'}"


def _heading(title: str) -> Iterator[str]:
    yield from ("", f"## {title}", "")


def _console() -> Iterator[str]:
    """What the guest of the proof wrote to its console, if one was booted for it."""
    from lab.host.home import home
    from lab.hypervisor.accelerator import last_proof

    proof = last_proof(home())
    if proof is None:
        return
    text = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in proof.console)
    yield ""
    yield f"The end of the console when KVM was asked for a proof ({proof.accelerator}):"
    yield ""
    yield from (f"    {line}".rstrip() for line in text.splitlines() or ["nothing was written there"])


def _more_versions() -> dict[str, str]:
    from lab.errors import CommandError
    from lab.host.command import run
    from lab.host.survey.facts import find_version

    found = {}
    for name, words in MORE_VERSIONS.items():
        try:
            done = run(words, timeout_seconds=20, check=False)
        except CommandError:
            continue
        told = (done.stdout + done.stderr).decode("utf-8", "replace").partition("\n")[0]
        numbers = [word for word in told.replace("(", " ").replace(")", " ").split() if word[:1].isdigit()]
        if version := find_version(told) or next(iter(numbers), None):
            found[name] = version
    return found
