"""The reference that Docker and Kubernetes use."""

from __future__ import annotations

from lab.backends.reference import Reference, binary_knob


class Runc(Reference):
    """The same bundle under runc."""

    name = "runc"
    title = "container (runc)"
    mechanism = "the same container as lab's, made by runc, the runtime that Docker and Kubernetes use"
    order = 30
    program = "runc"
    package = "runc"
    rootless = True
    knobs = (binary_knob("runc"),)
