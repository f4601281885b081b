"""A service and a timer of systemd's that carry a plan out (systemd.service(5), systemd.timer(5))."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.commands.watching.plan import Plan

LOOKS = "hourly"
"""How often a timer looks whether what is named has changed (systemd.time(7))."""


def units(plan: Plan) -> dict[str, str]:
    """The two files by name. Put into /etc/systemd/system, ``systemctl enable --now NAME.timer`` begins."""
    name = f"lab-watch-{plan.name}"
    lab = Path(sys.executable).with_name("lab")
    service = f"""\
[Unit]
Description=lab measures {plan.name} again

[Service]
Type=oneshot
ExecStart={_quoted(lab)} watch {_quoted(plan.path)} --once
KillSignal=SIGINT
KillMode=mixed
TimeoutStopSec=3min
"""
    times = [f"*-*-* {each:%H:%M}:00" for each in plan.at]
    if plan.flags or any(plan.named.values()) or plan.every_seconds is not None:
        times.append(LOOKS)
    timer = "\n".join(
        [
            "[Unit]", f"Description=When lab measures {plan.name} again", "",
            "[Timer]", *(f"OnCalendar={each}" for each in times), "Persistent=true", "",
            "[Install]", "WantedBy=timers.target", "",
        ]
    )  # fmt: skip
    return {f"{name}.service": service, f"{name}.timer": timer}


def _quoted(path: Path) -> str:
    """One word of a command line there: specifiers, variables and quotes mean themselves."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'
