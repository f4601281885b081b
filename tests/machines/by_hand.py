"""An ordinary machine by hand, to see what lab does there.

sudo ./bootstrap tests/machines/ordinary shell              # Debian 13 with this checkout; a shell in it, as root
sudo ./bootstrap tests/machines/ordinary run -- ./bootstrap lab doctor
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from lab.errors import LabError

from . import checkout, machine
from .debian import CHECKOUT, HOME, USER, VERSIONS, Root
from .disk import cache


def main() -> int:
    """The exit code, which is the command's."""
    if os.geteuid() != 0:
        sys.exit("machine: needs root: sudo ./bootstrap tests/machines/ordinary …")
    try:
        return act(parse())
    except (machine.MachineError, LabError) as error:
        sys.exit(f"machine: {error}")
    except KeyboardInterrupt:
        return 130


def act(options: argparse.Namespace) -> int:
    if options.verb == "ls":
        return ls()
    # a checkout has machines of its own, so that several people can work on one host
    place = hashlib.sha256(str(checkout.ROOT).encode()).hexdigest()[:6]
    folder = cache() / "running" / f"{place}-{options.name or options.suite + ('-fresh' if options.fresh else '')}"
    if options.verb == "down":
        return down(folder)
    root = Root(suite=options.suite, fresh=options.fresh)
    here = up(root, folder, options)
    if not root.fresh and not options.no_push:
        here.push()
    if options.verb == "up":
        return 0
    directory = HOME if root.fresh else CHECKOUT
    if options.verb == "shell":
        return talk(here, options.user, f"cd {directory} && exec bash -l", terminal=True)
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not words:
        sys.exit("run WHAT? for example: run -- ./bootstrap lab doctor")
    terminal = options.terminal or (sys.stdin.isatty() and sys.stdout.isatty())
    return talk(here, options.user, machine.remote(words, directory), terminal=terminal)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ordinary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A machine stays until it is taken down. shell and run start it if need be, and bring this checkout's "
        "files there first, uncommitted changes included.",
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in {
        "shell": "a shell in it", "run": "one command in it, whose exit code is this command's",
        "up": "start it", "down": "end it, and throw away what it wrote",
    }.items():  # fmt: skip
        one = verbs.add_parser(verb, help=text)
        one.add_argument("--suite", choices=sorted(VERSIONS), default="trixie", help="default: trixie, Debian 13")
        one.add_argument("--fresh", action="store_true", help="with nothing of lab's on its disk")
        one.add_argument("--name", default="", help="for a second one of the same kind")
        if verb != "down":
            one.add_argument("--cpus", type=int, default=1)
            one.add_argument("--memory", default="4G")
            one.add_argument("--no-push", action="store_true", help="leave the files that are there")
        if verb in ("shell", "run"):
            one.add_argument("--user", choices=("root", USER), default="root")
        if verb == "run":
            one.add_argument("-t", "--terminal", action="store_true", help="with a terminal, even if none is here")
            one.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD…")
    verbs.add_parser("ls", help="those that run")
    return parser.parse_args()


def up(root: Root, folder: Path, options: argparse.Namespace) -> machine.Machine:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        here = machine.Machine(folder)
        if here.is_running:
            return here
        if folder.exists():
            here.stop()
        say(f"starting Debian {VERSIONS[root.suite]}, about a minute: see {folder}/{machine.CONSOLE}")
        return machine.start(root, folder, processors=options.cpus, memory=options.memory, outlives=True)


def talk(here: machine.Machine, user: str, line: str, *, terminal: bool) -> int:
    """The user's own streams; a login session of its own, which ends with the command."""
    return subprocess.run([*here.ssh(user, own_session=True, terminal=terminal), line], check=False).returncode


def down(folder: Path) -> int:
    if not folder.exists():
        say(f"there is no {folder}")
        return 1
    machine.Machine(folder).stop()
    return 0


def ls() -> int:
    for folder in sorted((cache() / "running").glob("*/")):
        one = machine.Machine(folder)
        state = f"runs, QEMU {one.pid}, ssh on port {one.state['port']}" if one.is_running else "has ended"
        sys.stdout.write(f"{folder} {state}\n")
    return 0


def say(text: str) -> None:
    sys.stderr.write(f"machine: {text}\n")
