"""A signal that doesn't wake the main thread, as one doesn't that comes just before it falls asleep: here another
thread takes it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

WAITS = """
import os, queue, signal, sys, threading
from lab.host import waits

def handler(number, frame):
    print("handled", flush=True)
    os._exit(3)

def send():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, handler)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
threading.Timer(0.1, send).start()
event, (reading, writing) = threading.Event(), os.pipe()
if sys.argv[1] == "a lock":
    waits.waited(lambda seconds: event.wait(seconds) or None)
else:
    waits.readable(reading)
"""


@pytest.mark.parametrize("what", ["a lock", "a pipe"])
def test_its_handler_runs_nevertheless(what: str) -> None:
    words = (sys.executable, "-c", WAITS, what)
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "handled\n"), done.stderr
