"""``lab``: the commands and what happens when one fails.

A command's module is imported when the command is asked for, and imports what is heavy only inside its
function: ``lab --version`` answers before pandas could have been found on disk.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from lab import __version__
from lab.cli import coercion, help, light
from lab.commands import completion
from lab.commands.interrupt import Interruptible
from lab.commands.output import harmless
from lab.errors import LabError, UsageError
from lab.host.identity import privilege
from lab.studies.registry import studies

COMMANDS = {
    "Measure": {
        "isolation": ("lab.cli.isolation:app", "Ask from inside what each boundary stops, show the answers."),
    },
    "Run instances": {
        "run": ("lab.cli.instances.run:run", "Run one copy on any backend, in the foreground or with -d."),
        "start": ("lab.cli.instances.ending:start", "Start instances that have ended anew, from their image."),
        "ps": ("lab.cli.instances.ps:ps", "List detached instances, the newest first, as they really are."),
        "logs": ("lab.cli.instances.logs:logs", "Print what an instance has written."),
        "exec": ("lab.cli.instances.execute:execute", "Run a command in an instance, and end with its exit code."),
        "cp": ("lab.cli.instances.cp:cp", "Copy files between a running instance and this host."),
        "top": ("lab.cli.instances.top:top", "Show what instances use: CPU, memory, processes, disk."),
        "port": ("lab.cli.instances.ps:port", "List an instance's published ports."),
        "inspect": ("lab.cli.instances.ps:inspect", "Print everything that is known of instances, as JSON."),
        "wait": ("lab.cli.instances.ending:wait", "Wait until instances have ended, and print their exit codes."),
        "stop": ("lab.cli.instances.ending:stop", "Stop instances: their stop signal, time to obey, SIGKILL."),
        "kill": ("lab.cli.instances.ending:kill", "Send instances a signal, SIGKILL unless another is named."),
        "rm": ("lab.cli.instances.ending:rm", "Remove instances that have ended: record and logs."),
    },
    "Images and scenarios": {
        "build": ("lab.cli.images.build:build", "Build an image from a Dockerfile and keep it in lab's store."),
        "image": ("lab.cli.images.image:app", "Images: look at them, move them, remove them."),
        "scenario": ("lab.cli.images.scenario:app", "Look at the scenarios, and start one of your own."),
    },
    "Results": {
        "report": ("lab.cli.results.report:report", "Write a run's report again, from its folder alone."),
        "results": ("lab.cli.results.results:app", "Look at the runs that were measured; remove some."),
        "diff": ("lab.cli.results.diff:diff", "Say what changed between two runs, and how sure that is."),
        "hosts": (
            "lab.cli.results.hosts:hosts",
            "Say what many hosts' runs tell together, and about the next.",
        ),
        "watch": ("lab.cli.results.watch:watch", "Measure again when something changes, or at a time of day."),
        "sweep": ("lab.cli.results.sweep:app", "Measure a plan's scenarios on many hosts, and gather the runs."),
        "publish": ("lab.cli.results.publish:publish", "Write all results as a site: runs, time lines, changes."),
    },
    "In class": {
        "class": ("lab.cli.classroom.app:app", "Lessons to predict in, a page for everybody's guesses, marks."),
        "race": ("lab.cli.classroom.race:race", "Watch backends start the same application side by side."),
    },
    "This host, and lab itself": {
        "doctor": ("lab.cli.host.doctor:doctor", "Check this host, and print what to do about each lack."),
        "clean": ("lab.cli.host.clean:clean", "Remove what killed lab processes left behind."),
        "bench": ("lab.cli.host.bench:app", "Measure lab itself, beside what it is made of."),
    },
}
"""Every command but the studies', below the heading of ``lab --help``: the function or typer app behind it, and its
first sentence.

The sentence stands here, too, so that the help imports none of them.
"""

GROUP_OF_STUDIES = "Measure"
"""The heading below which the studies' own commands stand, too."""

ELSEWHERE = {
    "images": "image ls",
    "rmi": "image rm",
    "ladder": "isolation ladder",
    "surface": "isolation surface",
    "runs": "results ls",
    "ls": "ps",
    "trend": "results trend",
    "site": "publish",
    "merge": "results merge",
    "attach": "logs -f",
    "create": "run -d",
    "restart": "stop",
    "stats": "top",
    "info": "doctor",
    "prune": "image prune",
    **{name: f"image {name}" for name in ("pull", "push", "save", "load", "import", "export", "history", "verify")},
}
"""What people type who know Docker, or forget the group, and the command that does it here."""


SETTINGS = {"exec": {"allow_interspersed_args": False}}  # what follows the name is the command's own


def commands() -> dict[str, dict[str, tuple[str, str]]]:
    """Every command below its heading: those of the table, and those of the studies, by name."""
    found = {heading: dict(group) for heading, group in COMMANDS.items()}
    own = {each.command: (each.function, each.sentence) for each in studies() if " " not in each.command}
    found[GROUP_OF_STUDIES] = dict(sorted((found[GROUP_OF_STUDIES] | own).items()))
    return found


def names() -> dict[str, str]:
    """Where the function or typer app of every command is."""
    return {name: target for group in commands().values() for name, (target, _) in group.items()}


def target_of(name: str) -> str:
    """The same of one command, "" of none."""
    return names().get(name, "")


class Escaped(Exception):
    """Carries what typer would turn into an exit code of its own, out to `main`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are needed."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, OSError) as error:
            raise Escaped(error) from error

    def get_params(self, ctx: Any) -> Any:
        return coercion.spared(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(names())

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        longest = max(map(len, names()))
        for heading, group in commands().items():
            with formatter.section(heading):
                rows = [(name.ljust(longest), sentence) for name, (_, sentence) in group.items()]
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Raises UsageError for a name that no command has, with the one that may be meant."""
        name = args[0]
        if not target_of(name) and not name.startswith("-"):
            known = {**names(), **ELSEWHERE}
            hint = f"lab {ELSEWHERE[name]}" if name in ELSEWHERE else help.near(name, known) or "lab --help"
            raise UsageError(f"there is no command lab {name}", hint=hint)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module, _, attribute = target_of(cmd_name).partition(":")
        if not module:
            return None
        target: typer.Typer | Callable[..., Any] = getattr(import_module(module), attribute)
        if not isinstance(target, typer.Typer):
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(context_settings=SETTINGS.get(cmd_name))(target)
            target = single
        command = get_command(target)
        command.name = cmd_name
        help.shape(command, cmd_name)
        coercion.spare(command)
        return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"lab {__version__}")
        raise typer.Exit


@app.callback()
def lab(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every external command to stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours, as NO_COLOR in the environment.")] = False,
    ca: Annotated[
        str,
        typer.Option(
            "--ca", metavar="FILE", help="Certificates (PEM) to lend to what is fetched, and to RUN; or LAB_CA."
        ),
    ] = "",
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The same application behind different isolation boundaries, measured.

    Start with: lab compare web-app
    """
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr, force=True)
    help.speak(quiet=quiet, no_color=no_color, verbose=verbose)
    if ca:
        help.lend(ca)


def main() -> None:
    """Run the command line; turn lab's errors into one clear line, the remedy, and an exit code.

    A signal that asks lab to end is an orderly end for every command: it unwinds once, and the exit code is
    128 + n. Whoever repeats it is told that cleaning up goes on.
    """
    if os.environ.get("_LAB_COMPLETE") == "complete_bash" and "\n" in os.environ.get("COMP_WORDS", ""):
        completion.join_words(os.environ)
    interruptible = Interruptible()
    interruptible.when_impatient = _say_patience
    interruptible.arm()  # for good: the last moments of the process are no better to be torn apart
    code = _run()
    if interruptible.interrupted_by is not None:
        code = 128 + interruptible.interrupted_by
    sys.exit(code)


def _run() -> int:
    try:
        code = app(prog_name="lab", standalone_mode=False)
        sys.stdout.flush()
    except Escaped as escaped:
        return exit_code_of(escaped.error)
    except Exception as error:
        return exit_code_of(error)
    return code if isinstance(code, int) else 0


def exit_code_of(error: BaseException) -> int:
    """Say what went wrong, if it has to be said."""
    match error:
        case LabError():
            return report_error(error)
        case KeyboardInterrupt():
            return 130
        case BrokenPipeError() if _reader_is_gone():
            # not an error, and nothing more may be flushed to it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        case OSError():
            return report_error(_from_os_error(error))
        case typer.TyperException():
            return _report_usage(error)
        case ModuleNotFoundError() if told := light.explained(error):
            return report_error(told)
        case Exception():
            return report_error(_from_bug(error))
        case _:
            raise error


def _report_usage(error: Any) -> int:
    """What the command line's parser refused: one line, and where to read on."""
    text = help.plain(str(error.format_message()))
    if "\n" in text:  # the help itself, which no arguments at all ask for
        print(text)
    else:
        path = error.ctx.command_path if getattr(error, "ctx", None) else "lab"
        report_error(UsageError(text[:1].lower() + text[1:].rstrip("."), hint=f"{path} --help"))
    return int(error.exit_code)


def _reader_is_gone() -> bool:
    """Whether it is our own output that nobody reads: a pipe inside lab can break too, and that is an error."""
    import select

    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            poll.register(stream.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _say_patience() -> None:
    with suppress(OSError):  # a signal handler: no buffered stream may be touched
        os.write(2, b"lab: stopping; what was made is being removed\n")


def report_error(error: LabError) -> int:
    """Print ``error`` to stderr: evidence first, then what, then the remedy. Returns the exit code."""
    if error.detail:
        print("\n".join(f"  | {harmless(line)}" for line in error.detail.splitlines()), file=sys.stderr)
    print(f"lab: {harmless(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"     {harmless(error.hint)}", file=sys.stderr)
    return error.exit_code


def _from_os_error(error: OSError) -> LabError:
    """What the operating system refused, with the remedy where there is an obvious one."""
    import errno

    hints = {
        errno.ENOSPC: "free some disk space (lab clean; df -h), or set LAB_HOME to a larger disk",
        errno.EPERM: privilege.remedy("…"),
        errno.EACCES: privilege.remedy("…"),
        errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    }
    if logging.getLogger("lab").isEnabledFor(logging.DEBUG):
        logging.getLogger().exception("the failing call")
    return LabError(str(error), hint=hints.get(error.errno or 0, "lab doctor checks this host; lab -v shows more"))


def _from_bug(error: Exception) -> LabError:
    """Anything lab did not foresee: one line for whoever uses it, the traceback for whoever mends it."""
    if logging.getLogger("lab").isEnabledFor(logging.DEBUG):
        logging.getLogger().exception("the traceback")
    where = "lab -v COMMAND … shows the traceback; please report it with that"
    return LabError(f"a bug in lab: {type(error).__name__}: {error}", hint=where)
