"""``lab-oci``: global options, then a verb. One line on standard error and in the log for whatever goes wrong.

Exit codes are runc's: 0; the application's for ``run`` and ``exec``; 255 when ``exec`` itself fails; 1 otherwise, and
2 for a command line that can't be meant.
"""

from __future__ import annotations

import os
import sys

from lab.errors import LabError, UsageError
from lab.host.identity import ownspace
from lab.runtime import versions
from lab.runtime.oci.log import Log
from lab.runtime.oci.options import FALSE, FLAG, TRUE, VALUE, parse
from lab.runtime.oci.store import DEFAULT_ROOT, Entry
from lab.shims import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from lab.runtime.oci.options import Arguments

    Verb = Callable[["Call"], int]

GLOBAL = {
    "root": VALUE,
    "log": VALUE,
    "log-format": VALUE,
    "debug": FLAG,
    "systemd-cgroup": FLAG,
    "cgroup-manager": VALUE,
    "rootless": VALUE,
    "criu": VALUE,  # where a program is that is never called
    "version v": FLAG,
    "help h": FLAG,
}

VERBS = {  # verb: its module, and what it does
    "create": ("life", "ID  make a container from a bundle, up to its application's execution"),
    "start": ("life", "ID  execute the application of a created container"),
    "run": ("life", "ID  create, start, wait, delete; with --detach only the first two"),
    "delete": ("life", "ID  remove what is left of a container; --force kills it first"),
    "state": ("tables", "ID  its state, as the runtime specification's JSON"),
    "list": ("tables", "all containers"),
    "ps": ("tables", "ID [ps options]  its processes"),
    "kill": ("signals", "ID [SIGNAL]  send a signal to its first process; --all, to all of them"),
    "exec": ("execute", "ID COMMAND…  one more process in a container"),
    "pause": ("groups", "ID  freeze its processes"),
    "resume": ("groups", "ID  let them go on"),
    "update": ("groups", "ID  change its limits"),
    "events": ("events", "ID  its resource usage, again and again; --stats, once"),
    "await": ("awaiting", ""),  # `run` itself, after a while
    "spec": ("describe", "write a config.json to begin with"),
    "features": ("describe", "what this runtime can do, as the runtime specification's JSON"),
}
FAILED, MISUSED, EXEC_FAILED = 1, 2, 255


class Call:
    """One verb with all that was said on the command line."""

    def __init__(self, root: str, log: Log, given: Arguments, *, by_systemd: bool = False) -> None:
        self.root = root
        self.by_systemd = by_systemd  # whether systemd is to be asked for control groups
        self.log = log
        self.given = given

    def entry(self) -> Entry:
        """The container the verb is about."""
        return Entry(self.root, self.given.only_word("container id"))

    def say(self, text: str) -> int:
        """To standard output; 0, the exit code."""
        return say(text)

    def say_json(self, value: object) -> int:
        """The same, as JSON for people and programs."""
        from json import dumps

        return say(dumps(value, indent=2) + "\n")

    def ignored(self, path: str) -> None:
        """A property that the specification doesn't know: runtimes are to go on (config.md, "Extensibility")."""
        self.log.warn(f"config.json: {path} is unknown and ignored")

    def tell_hooks(self, name: str, hooks: list[dict[str, Any]], state: dict[str, object]) -> None:
        """Run hooks whose failure is only told."""
        if hooks:
            from lab.runtime import hooks as running

            for failed in running.run_all(name, hooks, state):
                self.log.warn(failed)

    def write_pid(self, pid: int) -> None:
        """To ``--pid-file``, whole or not at all."""
        path = self.given.value("pid-file")
        if path:
            folder, name = os.path.split(path)
            new = os.path.join(folder, f".{name}.{os.getpid()}")
            # the folder may be another user's: nothing that is there already is followed or written to
            opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with os.fdopen(opened, "w") as file:
                file.write(str(pid))
            os.rename(new, path)


class Interrupted(BaseException):
    """A signal wants this process to end; what it has made is undone on the way out."""


def main(at_end: Callable[[], None] = lambda: None) -> NoReturn:
    """The executable. Leaves without the interpreter's own farewell, which takes as long as some verbs; ``at_end`` is
    called before.
    """
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    code = call(sys.argv[1:])
    at_end()
    os._exit(code)


def installed() -> NoReturn:
    """pip's script: start again as the executable beside this file would be started."""
    interpreter = getattr(sys, "_base_executable", "") or sys.executable
    executable = os.path.join(os.path.dirname(__file__), "lab-oci")
    os.execv(interpreter, [interpreter, "-IS", executable, *sys.argv[1:]])


def interrupt(number: int, _frame: object) -> None:
    raise Interrupted(number)


def call(words: list[str]) -> int:
    """Carry out a command line, and tell its exit code."""
    log = Log()
    verb = ""
    try:
        given = parse("lab-oci", GLOBAL, words)
        if given.flag("version"):
            return say(version())
        if given.flag("help") or not given.words or given.words[0] == "help":
            return say(usage())
        log = Log(given.value("log"), given.value("log-format", "text"), debug=given.flag("debug"))
        verb, *rest = given.words
        ownspace.recognise()
        refuse(given)
        root = os.path.abspath(given.value("root") or usual_root())
        return carry_out(verb, rest, root, log, by_systemd=asks_systemd(given))
    except Interrupted as signal_number:
        return fail(log, f"{verb} was interrupted by signal {signal_number}", 128 + int(str(signal_number)))
    except UsageError as error:
        return fail(log, f"{error}", EXEC_FAILED if verb == "exec" else MISUSED)
    except LabError as error:
        return fail(log, f"{verb}: {error}" if verb else f"{error}", EXEC_FAILED if verb == "exec" else FAILED)
    except OSError as error:
        from lab.runtime.oci.steps import describe

        return fail(log, f"{verb}: {describe(error)}", EXEC_FAILED if verb == "exec" else FAILED)
    except Exception as error:
        import traceback

        log.debug("".join(traceback.format_exception(error)))
        return fail(log, f"{verb}: a mistake in lab-oci: {error!r} (--debug --log FILE holds where)", FAILED)


def refuse(given: Arguments) -> None:
    """What runc can do and this runtime can't: said, not ignored. Raises UsageError."""
    manager = given.value("cgroup-manager", "cgroupfs")
    if manager not in ("cgroupfs", "systemd"):
        raise UsageError(f"--cgroup-manager {manager}: neither cgroupfs nor systemd")
    if asks_systemd(given):
        from lab.host.cgroup import delegation

        if not delegation.here():
            raise UsageError(
                "no systemd that answers on D-Bus manages this host's cgroups, or not in version 2 alone",
                hint="leave out --systemd-cgroup; podman: --cgroup-manager=cgroupfs",
            )
    wanted = given.value("rootless", "auto")
    if wanted not in ("auto", *TRUE, *FALSE):
        raise UsageError(f"--rootless {wanted}: neither auto nor true nor false")
    if wanted in FALSE and ownspace.ordinary_user() > 0:
        raise UsageError("--rootless false: you are not root", hint="leave it out, or sudo lab-oci …")


def usual_root() -> str:
    """Where states are kept unless ``--root`` says it. Raises LabError as `rootless.default_root` does."""
    if ownspace.ordinary_user() <= 0:
        return DEFAULT_ROOT
    from lab.runtime.oci import rootless

    return rootless.default_root(DEFAULT_ROOT)


def asks_systemd(given: Arguments) -> bool:
    """Whether systemd is to make the control groups."""
    return given.flag("systemd-cgroup") or given.value("cgroup-manager", "") == "systemd"


def carry_out(verb: str, words: list[str], root: str, log: Log, *, by_systemd: bool = False) -> int:
    """Import the verb's module, which nobody else has to wait for, and call it."""
    if verb not in VERBS:
        raise UsageError(f"there is no verb {verb}", hint="lab-oci --help")
    name = f"lab.runtime.oci.verbs.{VERBS[verb][0]}"
    __import__(name)
    module = sys.modules[name]
    known = module.OPTIONS[verb] | {"help h": FLAG}
    given = parse(verb, known, words)
    if given.flag("help"):
        return say(usage_of(verb, known))
    log.debug(f"{verb} {' '.join(words)}")
    function: Verb = getattr(module, {"exec": "execute", "list": "list_all", "await": "await_child"}.get(verb, verb))
    if ownspace.user_id() != 0:
        from lab.runtime.oci import rootless  # root's `await` keeps it for as long as a container runs

        if verb in rootless.GO_IN:
            rootless.go_in(verb, Entry(root, given.words[0] if given.words else ""))
    elif verb == "exec":  # an ordinary user who is outside has nothing that could be joined
        stand_on_read_only()
    return function(Call(root, log, given, by_systemd=by_systemd))


def stand_on_read_only() -> None:
    """Start again from a read-only mount, unless that has happened: processes that others can trace, while they are
    still this program, begin here.
    """
    from lab.runtime import readonly

    readonly.start_again(["-IS", *sys.argv])


def usage() -> str:
    lines = [
        "usage: lab-oci [global options] VERB [options] …",
        "",
        f"An OCI runtime (runtime-spec {versions.RANGE}).",
        "",
    ]
    lines += [f"  {verb:<9} {what}" for verb, (_, what) in VERBS.items() if what]
    lines += ["", "global options:", *options_of(GLOBAL), "", "lab-oci VERB --help tells the verb's own options."]
    return "\n".join(lines) + "\n"


def usage_of(verb: str, known: dict[str, str]) -> str:
    return "\n".join([f"usage: lab-oci {verb} [options] {VERBS[verb][1]}", "", *options_of(known)]) + "\n"


def options_of(known: dict[str, str]) -> list[str]:
    lines = []
    for names, kind in known.items():
        spelled = ", ".join(f"--{name}" if len(name) > 1 else f"-{name}" for name in names.split())
        lines.append(f"  {spelled}{'' if kind == FLAG else ' VALUE'}")
    return lines


def version() -> str:
    from lab import __version__

    return f"lab-oci version {__version__}\nspec: {versions.NEWEST}\n"


def say(text: str) -> int:
    """To standard output; 0, the exit code."""
    write_all(1, text)
    return 0


def fail(log: Log, text: str, code: int) -> int:
    """To standard error and to the log; ``code``."""
    log.error(text)
    write_all(2, f"{text}\n")
    return code


def write_all(descriptor: int, text: str) -> None:
    rest = text.encode(errors="surrogateescape")
    while rest:
        rest = rest[os.write(descriptor, rest) :]
