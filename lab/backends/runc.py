"""The reference that Docker and Kubernetes use."""

from __future__ import annotations

from lab.backends.container import Container
from lab.backends.reference import SHARED_DIFFERENCES, Reference, Runtime
from lab.host.survey.checks import Tool
from lab.instance import Parity


class Runc(Reference):
    """The same bundle under runc."""

    name = "runc"
    title = "container (runc)"
    mechanism = "the same container as lab's, made by runc, the runtime that Docker and Kubernetes use"
    order = 30
    runtime = Runtime(tool=Tool(program="runc", package="runc", required_by=("runc",)))
    parity = Parity(
        differences=(
            *Container.parity.differences,
            *SHARED_DIFFERENCES,
            "The device /dev/net/tun is allowed: runc 1.1 adds it to what the configuration allows.",
        )
    )
