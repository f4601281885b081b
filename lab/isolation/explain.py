"""What a probe's answer means, in words."""

from __future__ import annotations

from lab.isolation.base import Answer, Boundary, Mechanism, Probe, Severity

CONSEQUENCE = {
    Severity.ESCAPE: "Whoever controls the application could reach or change something of the host.",
    Severity.LEAK: "The application learns something about the host or its other tenants.",
    Severity.INFORMATION: "By itself it harms nobody; it tells another kind of boundary than the one that was meant.",
}


def mechanism_of(probe: Probe, boundary: Boundary) -> Mechanism:
    """What answers ``probe`` behind ``boundary``."""
    if boundary is Boundary.OWN_KERNEL:
        return Mechanism.OWN_KERNEL
    everywhere = not probe.together or probe.mechanism in (Mechanism.RESOURCE_LIMIT, Mechanism.HARDWARE)
    return probe.mechanism if boundary is Boundary.CONTAINER or everywhere else Mechanism.NONE


def surprise(probe: Probe, boundary: Boundary, answer: Answer) -> str:
    """Which mechanism is missing, or new, when ``answer`` is not one that is expected of ``boundary``."""
    expected = {wanted.reach for wanted in probe.expected[boundary].answers}
    usual = mechanism_of(probe, boundary)
    if answer.reach == "open":
        missing = "the boundary between the kernels" if usual is Mechanism.OWN_KERNEL else f"the {usual}"
        if usual is Mechanism.NONE:
            missing = "what kept it away from the host"
        return f"{missing} that should stop it is missing or has a hole"
    if "open" in expected:
        return "something new stops it: another namespace, a masked path, a filter or a security module"
    if answer.reach == "closed":
        return (
            "it is stopped where the instance's own was expected: a narrower set-up, or a kernel without the feature"
        )
    return (
        "it works on something of the instance's own, where it should not work at all: a wider set-up than was meant"
    )
