"""``lab``: what runs first. The help of all commands is a page that lies ready; anything else is `lab.cli.app`'s.

A command line is parsed by typer, whose import takes longer than the interpreter's start: whoever asks which commands
there are need not wait for it. A test compares the page with what typer would print.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HELP = Path(__file__).with_name("help.txt")
COLUMNS = 80  # no line of help is longer, and on a narrower terminal typer breaks them anew


def main() -> None:
    """Run the command line, and end with its exit code."""
    _open_standard_streams()
    if sys.argv[1:] in (["--help"], ["-h"]) and _columns() >= COLUMNS and "_LAB_COMPLETE" not in os.environ:
        sys.exit(_print_help())
    from lab.cli import app

    app.main()


def _print_help() -> int:
    try:
        sys.stdout.write(HELP.read_text())
        sys.stdout.flush()
    except OSError as error:
        from lab.cli import app

        return app.exit_code_of(error)
    return 0


def _columns() -> int:
    """As shutil.get_terminal_size, which takes a while to import, and typer with it."""
    try:
        columns = int(os.environ.get("COLUMNS", 0))
        return columns if columns > 0 else os.get_terminal_size(1).columns or COLUMNS
    except (ValueError, OSError):
        return COLUMNS


def _open_standard_streams() -> None:
    """Give a closed standard stream to /dev/null: else the next file opened would become it."""
    for number, name, flags, mode in (
        (0, "stdin", os.O_RDONLY, "r"),
        (1, "stdout", os.O_WRONLY, "w"),
        (2, "stderr", os.O_WRONLY, "w"),
    ):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - it lives as long as the process


if __name__ == "__main__":
    main()
