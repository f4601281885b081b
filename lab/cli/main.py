"""``lab``: the commands and what happens when one fails.

A command's module is imported when the command is asked for, and imports what is heavy only inside its
function: ``lab --help`` answers before pandas could have been found on disk.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from lab import __version__
from lab.errors import LabError

COMMANDS = {
    "compare": "lab.cli.compare:compare",
    "run": "lab.cli.run:run",
    "build": "lab.cli.build:build",
    "image": "lab.cli.build:app",
    "report": "lab.cli.report:report",
    "doctor": "lab.cli.doctor:doctor",
    "clean": "lab.cli.clean:clean",
    "bench": "lab.cli.bench:app",
}
"""Every command, in the order ``lab --help`` shows them, and the function or typer app behind it."""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        target: typer.Typer | Callable[..., Any] = getattr(import_module(module), attribute)
        if not isinstance(target, typer.Typer):
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command()(target)
            target = single
        command = get_command(target)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup, no_args_is_help=True, add_completion=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


def _version(asked: bool) -> None:
    if asked:
        print(f"lab {__version__}")
        raise typer.Exit


@app.callback()
def lab(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every external command to stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The same application behind different isolation boundaries, measured.

    Start with: lab compare web-app
    """
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr, force=True)
    if verbose:  # what lab does, not what the libraries below it do
        logging.getLogger("lab").setLevel(logging.DEBUG)


def main() -> None:
    """Run the command line; turn lab's errors into one clear line, the remedy, and an exit code."""
    try:
        app()
    except LabError as error:
        sys.exit(report_error(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output went away: not an error (and nothing more may be flushed to it)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        sys.exit(report_error(_from_os_error(error)))
    except Exception as error:
        sys.exit(report_error(_from_bug(error)))


def report_error(error: LabError) -> int:
    """Print ``error`` to stderr: evidence first, then what, then the remedy. Returns the exit code."""
    if error.detail:
        print("\n".join(f"  | {line}" for line in error.detail.splitlines()), file=sys.stderr)
    print(f"lab: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"     {error.hint}", file=sys.stderr)
    return error.exit_code


def _from_os_error(error: OSError) -> LabError:
    """What the operating system refused, with the remedy where there is an obvious one."""
    import errno

    hints = {
        errno.ENOSPC: "free some disk space (lab clean; df -h), or set LAB_HOME to a larger disk",
        errno.EPERM: "run it as root: sudo ./bootstrap lab …",
        errno.EACCES: "run it as root: sudo ./bootstrap lab …",
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


if __name__ == "__main__":
    main()
