"""Whose work a traced thread does: lab's, that of putting a boundary up, or the instance's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.studies.surface.lineage import Born, Executed, Lineage, Side, Step, find_becoming
from lab.studies.surface.tracing import Symbols, Traced, attribute

LAB, TOOL, SHIM, APP, WORKER, THREAD = 10, 20, 30, 40, 50, 60
STEPS: list[Step] = [
    Born(time=100, parent=LAB, child=TOOL, is_thread=False),
    Executed(time=110, pid=TOOL, former=TOOL, program="/usr/sbin/tc"),
    Born(time=200, parent=LAB, child=SHIM, is_thread=False),
    Executed(time=210, pid=SHIM, former=SHIM, program="/.lab/inside"),
    Born(time=220, parent=SHIM, child=APP, is_thread=False),
    Executed(time=230, pid=APP, former=APP, program="/usr/bin/python3"),
    Born(time=240, parent=APP, child=WORKER, is_thread=False),
    Executed(time=250, pid=WORKER, former=WORKER, program="/usr/bin/python3"),
    Born(time=260, parent=WORKER, child=THREAD, is_thread=True),
]
APPLICATION = STEPS[5]


def lineage() -> Lineage:
    becomes = find_becoming(STEPS, {LAB}, {SHIM, APP, WORKER}, "python3")
    assert becomes == APPLICATION
    return Lineage(STEPS, {LAB}, becomes, Side.LAB)


def test_work_is_lab_s_then_the_boundary_s_then_the_instance_s() -> None:
    found = lineage()
    assert found.side(LAB, 50) is found.side(LAB, 900) is Side.LAB
    assert found.side(TOOL, 120) is found.side(SHIM, 205) is found.side(SHIM, 900) is Side.SETUP
    assert [found.side(APP, at) for at in (225, 229, 230, 900)] == [Side.SETUP] * 2 + [Side.INSTANCE] * 2
    assert found.side(WORKER, 245) is found.side(THREAD, 300) is Side.INSTANCE
    assert found.side(999, 300) is Side.OTHER


def test_a_machine_begins_with_its_monitor() -> None:
    """Whatever runs inside: nothing is executed on the host under the application's name."""
    steps: list[Step] = [
        Born(time=1, parent=LAB, child=2, is_thread=False),
        Executed(time=2, pid=2, former=2, program="/var/lib/lab/libexec/qemu"),
        Executed(time=3, pid=2, former=2, program="/usr/bin/qemu-system-x86_64"),
        Born(time=4, parent=2, child=5, is_thread=True),
    ]
    becomes = find_becoming(steps, {LAB}, {2}, "python3")
    assert becomes == steps[2]
    assert Lineage(steps, {LAB}, becomes, Side.LAB).side(5, 9) is Side.INSTANCE


def test_a_kernel_that_is_a_program_begins_with_its_own_execution() -> None:
    """gVisor's Sentry has a sibling that is older, the gofer, whose execution is not the instance's beginning."""
    steps: list[Step] = [
        Born(time=1, parent=LAB, child=2, is_thread=False),
        Executed(time=2, pid=2, former=2, program="/usr/bin/runsc"),
        Born(time=3, parent=2, child=5, is_thread=False),
        Executed(time=4, pid=5, former=5, program="/proc/self/exe"),
        Born(time=5, parent=2, child=6, is_thread=False),
        Executed(time=6, pid=6, former=6, program="/proc/self/exe"),
    ]
    assert find_becoming(steps, {LAB}, {5, 6}, "python3", kernel=6) == steps[5]
    assert find_becoming(steps, {LAB}, {5, 6}, "python3") == steps[3]


def test_a_shell_that_becomes_what_encloses_the_instance_is_not_the_application() -> None:
    """As nspawn is begun: of an image whose CMD is a line, the application is a shell, too."""
    steps: list[Step] = [
        Born(time=1, parent=LAB, child=2, is_thread=False),
        Executed(time=2, pid=2, former=2, program="/bin/sh"),
        Executed(time=3, pid=2, former=2, program="/usr/bin/systemd-nspawn"),
        Born(time=4, parent=2, child=5, is_thread=False),
        Executed(time=6, pid=5, former=5, program="/bin/sh"),
        Executed(time=7, pid=5, former=5, program="/usr/bin/python3"),
    ]
    assert find_becoming(steps, {LAB}, {2, 5}, "/bin/sh") == steps[4]
    assert find_becoming(steps, {LAB}, {2, 5}, "python3") == steps[5]


def test_who_is_no_forebear_is_not_mistaken_for_the_instance() -> None:
    """lab's own tools may be called like the application."""
    tool: Step = Executed(time=105, pid=TOOL, former=TOOL, program="/usr/bin/python3")
    assert find_becoming([tool, *STEPS], {LAB}, {SHIM, APP}, "python3") == APPLICATION
    assert find_becoming(STEPS[:2], {LAB}, {APP}, "python3") is None
    assert find_becoming([], {LAB}, set(), "python3") is None


def test_a_thread_that_executes_becomes_its_process() -> None:
    steps: list[Step] = [
        Born(time=1, parent=APP, child=41, is_thread=True),
        Executed(time=2, pid=APP, former=41, program="/bin/other"),
    ]
    assert Lineage(steps, {APP}, None, Side.INSTANCE).side(APP, 3) is Side.INSTANCE


@given(st.permutations(STEPS))
def test_the_order_of_processors_does_not_matter(steps: list[Step]) -> None:
    becomes = find_becoming(steps, {LAB}, {SHIM, APP, WORKER}, "python3")
    found = Lineage(steps, {LAB}, becomes, Side.LAB)
    assert (found.side(APP, 229), found.side(APP, 231), found.side(THREAD, 300)) == (
        Side.SETUP, Side.INSTANCE, Side.INSTANCE
    )  # fmt: skip


def test_calls_and_functions_are_charged_to_whose_work_they_are() -> None:
    symbols = Symbols(["0000000000001000 T do_exec", "0000000000002000 t do_fork", "0000000000003000 D data"])
    assert symbols.name(0x1004) == "do_exec"
    assert symbols.name(0x3004) == "do_fork", "data is no function"
    traced = Traced(
        steps=STEPS,
        calls=[(40, LAB, 0), (225, APP, 0), (235, APP, 0), (236, APP, 1), (2000, APP, 1), (236, 999, 1)],
        exits=[(300, THREAD)],
        functions={
            (APP, False, 0x1000): [225, 260],  # before its execve and after it
            (APP, False, 0x2000): [226, 227],
            (APP, True, 0x1000): [300, 300],  # an interrupt that came in its time
            (7, False, 0x2000): [300, 300],  # a thread of the kernel's
            (TOOL, False, 0x1000): [5, 6],  # before the window
        },
        lost=3,
    )
    counts = attribute(traced, lineage(), {7}, symbols, (50, 1000))
    assert counts.calls[Side.SETUP] == {"read": 1}
    assert counts.calls[Side.INSTANCE] == {"read": 1, "write": 1}
    assert Side.LAB not in counts.calls
    assert counts.exits == {Side.INSTANCE: 1}
    assert counts.functions == {
        Side.SETUP: {"do_exec", "do_fork"}, Side.INSTANCE: {"do_exec"}, Side.KERNEL: {"do_exec", "do_fork"},
    }  # fmt: skip
    assert counts.lost == 3
