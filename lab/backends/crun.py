"""The reference in C, which Podman uses where it is installed.

On a hybrid host crun refuses to work ("cgroups in hybrid mode not supported", 1.8): it is shown v1 alone. That
changes nothing for the container: the v2 tree has no controller there, and lab puts it into its group.
"""

from __future__ import annotations

from lab.backends.container import Container
from lab.backends.reference import SHARED_DIFFERENCES, Reference, Runtime
from lab.host.survey.checks import Tool
from lab.instance import Parity


class Crun(Reference):
    """The same bundle under crun."""

    name = "crun"
    title = "container (crun)"
    mechanism = "the same container as lab's, made by crun, a runtime written in C"
    order = 35
    runtime = Runtime(tool=Tool(program="crun", package="crun", required_by=("crun",)), refuses_hybrid=True)
    parity = Parity(
        differences=(
            *Container.parity.differences,
            *SHARED_DIFFERENCES,
            "Where it has to be shown cgroup v1 alone, a shell enters the v2 group first: part of its boot time.",
        )
    )
