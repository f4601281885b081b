"""What a probe's answer means, in words."""

from __future__ import annotations

import textwrap

from lab.isolation.base import Answer, Boundary, Group, Mechanism, Probe, Severity

CONSEQUENCE = {
    Severity.ESCAPE: "Whoever controls the application could reach or change something of the host.",
    Severity.LEAK: "The application learns something about the host or its other tenants.",
    Severity.INFORMATION: "By itself it harms nobody; it tells another kind of boundary than the one that was meant.",
}


OTHERS = (Boundary.DOCKER, Boundary.PODMAN, Boundary.BUBBLEWRAP, Boundary.NSPAWN)
"""Containers with the defaults of others."""

FILTERED_BY_NSPAWN = ("bpf", "open-by-handle", "perf-events", "swap", "watch-files")
"""What its root has the capability for, and its filter refuses: questions by their names."""


def mechanism_of(probe: Probe, boundary: Boundary) -> Mechanism:
    """What answers ``probe`` behind ``boundary``."""
    if boundary in (Boundary.OWN_KERNEL, Boundary.USER_MODE_LINUX, Boundary.LIBKRUN) or (
        boundary is Boundary.USER_SPACE_KERNEL and probe.group != Group.LIMITS
    ):
        return Mechanism.OWN_KERNEL
    if boundary is Boundary.USER_NAMESPACE and _differs_from_container(probe, boundary):
        return Mechanism.NAMESPACE
    if boundary in OTHERS and _differs_from_container(probe, boundary):
        reaches = {answer.reach for answer in probe.expected[boundary].answers}
        opened = Mechanism.NAMESPACE if "own" in reaches else Mechanism.CAPABILITY
        return Mechanism.NONE if "open" in reaches else opened
    if boundary is Boundary.NSPAWN and probe.id in FILTERED_BY_NSPAWN:
        return Mechanism.SECCOMP
    everywhere = not probe.together or probe.mechanism in (Mechanism.RESOURCE_LIMIT, Mechanism.HARDWARE)
    return probe.mechanism if boundary is not Boundary.BARE or everywhere else Mechanism.NONE


def _differs_from_container(probe: Probe, boundary: Boundary) -> bool:
    return probe.expected[boundary].answers != probe.expected[Boundary.CONTAINER].answers


def surprise(probe: Probe, boundary: Boundary, answer: Answer) -> str:
    """Which mechanism is missing, or new, when ``answer`` is not one that is expected of ``boundary``."""
    expected = {wanted.reach for wanted in probe.expected[boundary].answers}
    usual = mechanism_of(probe, boundary)
    if answer.reach == "open":
        what = {Mechanism.NONE: "something that", Mechanism.OWN_KERNEL: "the boundary between the kernels, which"}
        return f"{what.get(usual, f'what ({usual})')} should keep it from the host is missing or has a hole"
    if "open" in expected:
        return "something new stops it: another namespace, a masked path, a filter or a security module"
    if answer.reach == "closed":
        return (
            "it is stopped where the instance's own was expected: a narrower set-up, or a kernel without the feature"
        )
    return (
        "it works on something of the instance's own, where it should not work at all: a wider set-up than was meant"
    )


KINDS = {
    Boundary.BARE: "a bare process",
    Boundary.CONTAINER: "a container",
    Boundary.USER_NAMESPACE: "a container in a user namespace",
    Boundary.DOCKER: "a container of Docker's",
    Boundary.PODMAN: "a container of podman's",
    Boundary.BUBBLEWRAP: "a sandbox of bubblewrap's",
    Boundary.NSPAWN: "a container of systemd-nspawn's",
    Boundary.USER_SPACE_KERNEL: "an instance with a kernel in user space",
    Boundary.USER_MODE_LINUX: "a User-mode Linux",
    Boundary.OWN_KERNEL: "an instance with its own kernel",
    Boundary.LIBKRUN: "a machine with libkrun's kernel",
}


def how(probe: Probe) -> str:
    """How it is asked: the class's own words, in one paragraph."""
    return " ".join((type(probe).__doc__ or "").split())


def explanation(probe: Probe, width: int = 100) -> str:
    """All there is to know about a probe, as text for a terminal ``width`` columns wide."""
    kinds = _kinds_of(probe)
    surprises = [
        f"“{answer}” from {called}: {surprise(probe, kind, answer)}."
        for kind, called in kinds.items()
        for answer in _others(probe, kind)
    ]
    parts = [
        ("asked", how(probe)),
        ("stopped by", f"{probe.mechanism}, where a container stops it"),
        ("matters", f"{probe.severity}. {CONSEQUENCE[probe.severity]}"),
        *(
            (f"expected of {called}", f"{' or '.join(wanted.answers)}: {wanted.because}")
            for kind, called in kinds.items()
            for wanted in [probe.expected[kind]]
        ),
        ("controls", f"must say yes on {probe.positive}, and no in {probe.negative}; else it is inconclusive"),
        ("a surprise means", " ".join([*surprises, probe.surprise])),
        ("read on", ", ".join(probe.pages)),
    ]
    lines = [f"{probe.question}  ({probe.id}, {probe.group})"]
    for title, text in parts:
        filled = textwrap.wrap(text, width - 4, break_on_hyphens=False)
        lines += ["", title, *(f"    {line}" for line in filled)]
    return "\n".join(lines)


def _kinds_of(probe: Probe) -> dict[Boundary, str]:
    """What is expected of each kind, said once where a user namespace or another maker changes nothing."""
    usual = probe.expected[Boundary.CONTAINER]
    same = {kind for kind in (Boundary.USER_NAMESPACE, *OTHERS) if probe.expected[kind] == usual}
    once = dict(KINDS)
    if Boundary.USER_NAMESPACE in same:
        once[Boundary.CONTAINER] = "a container, in a user namespace too"
    return {kind: called for kind, called in once.items() if kind not in same}


def _others(probe: Probe, kind: Boundary) -> list[Answer]:
    """One answer of each reach that ``probe`` would not be expected to give behind ``kind``."""
    expected = {answer.reach for answer in probe.expected[kind].answers}
    return [answer for answer in (Answer.YES, Answer.NO) if answer.reach not in expected]
