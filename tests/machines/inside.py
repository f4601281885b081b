"""What tests do in an ordinary machine: lab's commands as a user types them, and what they may have left."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from .debian import CHECKOUT
from .machine import Machine

SNAPSHOT = """
import json, sys
sys.path.insert(0, "tests")
from dataclasses import fields
from host_state import snapshot
state = snapshot()
print(json.dumps({field.name: sorted(getattr(state, field.name)) for field in fields(state)}))
"""
RUNNING = "ls -A /run/lab 2> /dev/null; pgrep -x qemu-system-x86"
"""`host_state` leaves out what belongs to a living lab, as another one's; here there is no other."""

GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=300).read().decode())"
"""For Python: print what an address answers."""

ITS_OWN = ("/run/user/", "/run/credentials/")
"""Mounts of login sessions and services, which come and go."""


def lab(
    machine: Machine, *words: str, code: int = 0, user: str = "root", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run lab there to its end, which must have that exit code."""
    sudo = () if user == "root" else ("sudo",)
    done = machine.run(*sudo, "./bootstrap", "lab", *words, user=user, directory=CHECKOUT, **options)
    assert done.returncode == code, f"lab {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def shell(machine: Machine, line: str, **options: Any) -> str:
    """The output of a line for the shell, in the checkout; it must succeed."""
    done = machine.run(line, directory=CHECKOUT, **options)
    assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def state(machine: Machine) -> dict[str, list[str]]:
    """What lab could have left in it (`host_state`), and how systemd is."""
    done = machine.run(".venv/bin/python", "-c", SNAPSHOT, directory=CHECKOUT)
    assert done.returncode == 0, done.stderr
    seen: dict[str, list[str]] = json.loads(done.stdout)
    seen["mounts"] = [mount for mount in seen["mounts"] if not mount.startswith(ITS_OWN)]
    seen["running"] = machine.run(RUNNING).stdout.splitlines()
    return seen | state_of_systemd(machine)


def state_of_systemd(machine: Machine) -> dict[str, list[str]]:
    """Whether all that it started works."""
    return {
        "systemd": [machine.run("systemctl is-system-running --wait").stdout.strip()],
        "failed units": machine.run("systemctl --failed --plain --no-legend").stdout.splitlines(),
    }
