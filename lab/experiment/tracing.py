"""Whether this host lets anybody see which of its kernel's functions run: asked without switching anything on.

Looked at in a mount namespace of its own, since perf(1) for one mounts tracefs on the host for good.
"""

from __future__ import annotations

from lab.errors import CommandError
from lab.host.command import run

LOOK = (
    'mount -t tracefs lab "$0" && head -c 1 "$0/available_filter_functions" >/dev/null && cat "$0/available_tracers"'
)
PLACE = "/sys/kernel/tracing"
SECONDS = 10.0


def function_tracing() -> str:
    """``possible here (…)``, or ``not measurable here: why``."""
    try:
        done = run(["unshare", "--mount", "sh", "-c", LOOK, PLACE], timeout_seconds=SECONDS)
    except CommandError as error:
        why = (error.detail or error.message).strip().splitlines()[-1]
        return f"not measurable here: {why}"
    tracers = done.stdout.decode().split()
    if "function" not in tracers:
        return f"not measurable here: this kernel has no function tracer (it has: {', '.join(tracers)})"
    return f"possible here (tracers: {', '.join(tracers)}), not measured by this command"
