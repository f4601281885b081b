"""The reference in C, which Podman uses where it is installed.

On a hybrid host crun refuses to work ("cgroups in hybrid mode not supported", 1.8): it is shown v1 alone. That
changes nothing for the container: the v2 tree has no controller there, and lab puts it into its group.
"""

from __future__ import annotations

from lab.backends.reference import Reference, binary_knob


class Crun(Reference):
    """The same bundle under crun."""

    name = "crun"
    title = "container (crun)"
    mechanism = "the same container as lab's, made by crun, a runtime written in C"
    order = 35
    program = "crun"
    package = "crun"
    rootless = True
    knobs = (binary_knob("crun"),)
