"""Whether each arm's processes ran on the CPUs that were kept for instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lab.analysis.data import Observed
from lab.analysis.noise import Remark
from lab.analysis.quantities import some
from lab.host.cpulist import numbers


def kept(settings: Mapping[str, Any]) -> str:
    """The instances' CPUs, as a list; "" where they had none of their own, or nobody recorded it."""
    return str((settings.get("placement") or {}).get("instances", ""))


def named(cpus: str) -> str:
    """A list of CPUs in words: ``CPU 1``, ``CPUs 2-3``."""
    return f"CPU{'' if cpus.isdigit() else 's'} {cpus}"


def remarks(loaded: Observed) -> Iterator[Remark]:
    """What to know where an arm's processes might run elsewhere."""
    own = set(numbers(kept(loaded.run.settings)))
    seen = {arm.label: loaded.run.parity.get(arm.label) for arm in loaded.arms} if own else {}
    strayed = [arm for arm, of in seen.items() if not own.issuperset(numbers(_allowed(of)))]
    if strayed:
        yield Remark(
            kind="parity",
            sentence=f"{some(strayed)} might run on other CPUs than those that were kept for instances.",
            advice="Don't compare its times with the others'. Repeat the run with --placement off.",
        )


def _allowed(seen: object) -> str:
    limits = seen.get("limits") if isinstance(seen, Mapping) else None
    return str(limits.get("cpus_allowed", "")) if isinstance(limits, Mapping) else ""
