"""What a caller may read besides the exit code: lines in the file that ``--log`` names, as runc writes them.

containerd's shim and Podman look for the last line whose level is ``error`` to learn why a verb failed.
"""

from __future__ import annotations

import os
import time

from lab.errors import UsageError
from lab.shims import dumps

FORMATS = ("text", "json")
MODE = 0o600  # with --debug, the environment that `exec` was told is in it


class Log:
    """Appends to a file, or to standard error when there is none: warnings, and with ``debug`` all of it."""

    def __init__(self, path: str = "", form: str = "text", *, debug: bool = False) -> None:
        if form not in FORMATS:
            raise UsageError(f"--log-format {form}: not one of {', '.join(FORMATS)}")
        self.words = ["--log", path, "--log-format", form] if path else []  # that lead another command here
        self._form = form
        self._debug = debug
        self._descriptor = -1
        if path:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, MODE)
        elif debug:
            self._descriptor = os.dup(2)

    def debug(self, text: str) -> None:
        if self._debug:
            self._write("debug", text)

    def warn(self, text: str) -> None:
        self._write("warning", text, 2)

    def error(self, text: str) -> None:
        self._write("error", text)

    def _write(self, level: str, text: str, otherwise: int = -1) -> None:
        """``otherwise`` is where it goes when there is no log."""
        descriptor = self._descriptor if self._descriptor >= 0 else otherwise
        if descriptor < 0:
            return
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._form == "json":
            line = dumps({"level": level, "msg": text, "time": at})
        else:
            line = f"time={dumps(at)} level={level} msg={dumps(text)}"
        os.write(descriptor, f"{line}\n".encode())
