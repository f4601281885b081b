"""What ``lab run --explain`` knows and how it prints, without a container."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

import pytest
from traces import parse

from lab.backends.support.programs.ocicontainer import Made
from lab.cli.instances import explain
from lab.cli.instances.explain import INDENT, WIDTH, Explainer
from lab.cli.instances.explanations import CONTAINER, EXPLANATIONS, Explanation, number
from lab.host.clock import Part, Remark, Taken, Timeline
from lab.hypervisor.boot import Boot
from lab.model import Kernel, Phase
from lab.runtime import plan
from lab.runtime.plan import Before, Instead, Progress, Step

PAGE = re.compile(r"[a-z_0-9-]+\([1-8]\)|config\.md|formatdomain\.html")


def test_every_step_is_explained_and_numbered_in_its_order() -> None:
    assert set(EXPLANATIONS) >= {str(name) for kind in (Step, Before, Instead, Boot, Made) for name in kind}
    assert [str(step) for step in Step] == list(CONTAINER)
    assert [number(step) for step in CONTAINER] == list(range(1, len(CONTAINER) + 1))
    assert number(Before.CGROUP) is None


@pytest.mark.parametrize(("step", "explained"), EXPLANATIONS.items())
def test_an_explanation_is_a_line_with_a_page_to_read(step: str, explained: Explanation) -> None:
    assert PAGE.fullmatch(explained.page), explained.page
    assert explained.what.endswith(".")
    assert len(explained.what) <= WIDTH - INDENT
    assert not explained.reason or re.match(r"CVE-\d{4}-\d+: \w", explained.reason)
    assert len(explained.reason) <= WIDTH - INDENT


def step_of(name: str, began: float, ended: float, *, side: str = "child", parts: tuple[Part, ...] = ()) -> Taken:
    return Taken(side=side, step=name, began=began, ended=ended, parts=parts)


def printed(kernel: Kernel, remarks: Mapping[str, Remark], *heard: Taken | tuple[Phase, float]) -> str:
    stream = io.StringIO()
    explainer = Explainer(stream, kernel)
    explainer.remark(remarks)
    for each in heard:
        if isinstance(each, Taken):
            explainer.taken(each)
        else:
            explainer.marked(*each)
    return stream.getvalue()


def test_a_container_s_last_steps_are_known_from_its_phases() -> None:
    text = printed(
        Kernel.HOST,
        {Step.EXECVE: Remark("true"), Step.ENTER: Remark("Only /.", instead=True, page="chroot(2)")},
        (Phase.REQUESTED, 1.0),
        step_of(Step.MOUNTS, 1.001, 1.004, parts=(Part(text="proc on /proc", began=1.001, ended=1.002),)),
        step_of(Step.ENTER, 1.004, 1.005),
        step_of(Step.SECCOMP, 1.005, 1.006),
        (Phase.ISOLATED, 1.0065),
        (Phase.INIT, 1.008),
        (Phase.EXECUTED, 1.010),
        (Phase.STOPPING, 2.0),
    )
    lines = parse(text)
    steps = [line.step for line in lines]
    assert steps == [Step.MOUNTS, Step.ENTER, Step.SECCOMP, Step.EXECVE, "start the application"]
    assert [(line.at, line.took) for line in lines] == [(1, 3), (4, 1), (5, 1), (6, 2), (8, 2)]
    assert lines[0].parts == ("proc on /proc",)
    assert lines[1].page == "chroot(2)"
    assert "takes the place of the old one" not in text
    assert "here: true" in text
    assert text.rstrip().endswith("the application runs; now it is its own")


def test_a_guest_s_first_byte_may_be_here_before_its_launch_has_returned() -> None:
    text = printed(
        Kernel.OWN,
        {},
        (Phase.REQUESTED, 1.0),
        step_of(Boot.LAUNCH, 1.0, 1.2, side="lab"),
        (Phase.KERNEL, 1.5),
        (Phase.INIT, 3.0),
        (Phase.EXECUTED, 4.0),
    )
    early = printed(
        Kernel.OWN,
        {},
        (Phase.REQUESTED, 1.0),
        (Phase.KERNEL, 1.1),
        step_of(Boot.LAUNCH, 1.0, 1.2, side="lab"),
        (Phase.INIT, 3.0),
        (Phase.EXECUTED, 4.0),
    )
    assert [line.told for line in parse(text)] == [line.told for line in parse(early)]
    assert [line.took for line in parse(text)] == [200, 300, 1500, 1000]
    assert [line.took for line in parse(early)] == [200, 0, 1900, 1000]


def test_a_restored_guest_has_one_step_of_its_own_and_runs_with_it() -> None:
    text = printed(
        Kernel.OWN,
        {},
        (Phase.REQUESTED, 1.0),
        step_of(Boot.LAUNCH, 1.0, 1.2, side="lab"),
        (Phase.RESTORED, 1.3),
    )
    assert [(line.step, line.took) for line in parse(text)] == [(Boot.LAUNCH, 200), (Boot.WAKE, 100)]
    assert text.rstrip().endswith("the application runs; now it is its own")


def test_whoever_reads_may_go_away() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    explainer = explain.Explainer(Gone(), Kernel.HOST)
    explainer.marked(Phase.REQUESTED, 1.0)
    explainer.taken(step_of(Step.CLONE, 1.0, 1.1))


def test_without_a_listener_nothing_is_timed_or_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise AssertionError("it costs something")

    monkeypatch.setattr(plan, "_now", fail)
    monkeypatch.setattr("lab.host.clock.now", fail)
    progress = Progress()
    progress.enter(Step.MOUNTS)
    progress.did(fail)
    progress.enter(Step.MASKS)
    progress.finish()
    with Timeline().step("lab", Before.CGROUP):
        pass


def test_the_time_that_telling_takes_belongs_to_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    told: list[dict[str, object]] = []

    def tell(taken: dict[str, object]) -> None:
        told.append(taken)
        for _ in range(10):
            next(clock)

    monkeypatch.setattr(plan, "_now", lambda: float(next(clock)) + 1)
    progress = Progress(tell=tell)
    progress.enter(Step.CLONE)
    progress.enter(Step.MOUNTS)
    progress.did(lambda: "proc on /proc")
    progress.finish()
    progress.finish()
    assert told == [
        {"step": Step.CLONE, "began": 1.0, "ended": 2.0, "parts": []},
        {"step": Step.MOUNTS, "began": 13.0, "ended": 15.0, "parts": [("proc on /proc", 13.0, 14.0)]},
    ]
