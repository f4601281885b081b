"""The pages that teach how to extend lab: their examples work as they stand."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from local_instance import LOOPBACK, LocalInstance

from lab.isolation import battery, breakout
from lab.isolation.base import Answer, Boundary, Privilege
from lab.isolation.registry import probes
from lab.metrics.base import Metric, Subject
from lab.model import Limits, Scenario
from lab.results.record import Status

DOCS = Path(__file__).parents[2] / "docs"


def example(page: str, kind: type) -> Any:
    """The one class derived from ``kind`` in the page's one Python block, made."""
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(block, page, "exec"), scope)
    (made,) = (x for x in scope.values() if isinstance(x, type) and issubclass(x, kind) and x.__module__ == "example")
    return made()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_probe_of_the_page_tells_root_from_others() -> None:
    probe = example("adding-a-probe.md", Privilege)
    with battery.host_context() as context:
        context = replace(context, limits=Limits())
        bare, closed = battery.on_host, battery.in_closed_place
        places = battery.Places(inside=bare, host=bare, closed=closed, limited=closed)
        on_host = battery.ask(probe, places, context, Boundary.BARE)
        refused = battery.ask(probe, replace(places, inside=without_privilege), context, Boundary.CONTAINER)
    assert (on_host.status, on_host.text, on_host.detail["as_expected"]) == (Status.OK, "yes", True), on_host.detail
    assert (refused.status, refused.text, refused.detail["as_expected"]) == (Status.OK, "no", True), refused.detail


def without_privilege(lines: bytes, timeout_seconds: float) -> Any:
    """The same questions by a root that lacks every capability."""
    from lab.host.command import run
    from lab.inside import build

    words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", build.program(), "batch"]
    return run(words, stdin=lines, timeout_seconds=timeout_seconds)


def test_the_table_of_answers_is_complete() -> None:
    rows = re.findall(r"^\| `([\w ]+)` \|.*\| (\w+) \|$", (DOCS / "adding-a-probe.md").read_text(), re.MULTILINE)
    assert dict(rows) == {answer.value: answer.reach for answer in Answer} | {"inconclusive": "unknown"}


def test_the_metric_of_the_page_counts(tmp_path: Path) -> None:
    metric = example("adding-a-metric.md", Metric)
    scenario = Scenario(name="s", title="S", directory=Path(), dockerfile=Path())
    with LocalInstance(["sleep", "10"], tmp_path) as instance:
        subject = Subject.before_launch(scenario=scenario, network=LOOPBACK, idle_seconds=0.01)
        subject.launched(instance)
        (seen,) = metric.idle(subject)
    assert (seen.quantity, seen.value, seen.unit) == ("threads.count", 1, "1")


def test_every_hook_is_on_the_page() -> None:
    text = (DOCS / "adding-a-metric.md").read_text()
    hooks = [name for name, value in vars(Metric).items() if callable(value) and not name.startswith("_")]
    assert sorted(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == sorted(hooks)


def table_of_probes() -> str:
    """Every probe in a Markdown table per group."""
    lines: list[str] = []
    heading = ""
    for probe in probes():
        if probe.group != heading:
            heading = probe.group
            lines += ["", f"### {heading.capitalize()}", ""]
            lines += [
                f"| probe | question | stopped by | {' | '.join(Boundary)} |",
                "| --- | --- | --- |" + " --- |" * len(Boundary),
            ]
        answers = " | ".join(" or ".join(probe.expected[kind].answers) for kind in Boundary)
        lines.append(f"| `{probe.id}` | {probe.question} | {probe.mechanism} | {answers} |")
    return "\n".join(lines).lstrip("\n") + "\n"


def table_of_escapes() -> str:
    """Every question to one who has broken out, in a Markdown table."""
    lines = [
        "| question | out of root's container | out of an ordinary user's | since |",
        "| --- | --- | --- | --- |",
    ]
    heading = ""
    for each in breakout.questions():
        if each.heading != heading:
            heading = each.heading
            lines.append(f"| **{heading}** | | | |")
        answers = " or ".join(each.rootless.answers)
        lines.append(f"| {each.probe.question} (`{each.probe.id}`) | yes | {answers} | {each.rootless.because} |")
    return "\n".join(lines) + "\n"


def test_every_probe_is_in_the_page_as_the_code_has_it() -> None:
    page = (DOCS / "isolation.md").read_text()
    assert table_of_probes() in page, f"docs/isolation.md should have this:\n{table_of_probes()}"


def test_what_who_breaks_out_reaches_is_in_the_page_as_the_code_has_it() -> None:
    page = (DOCS / "isolation.md").read_text()
    assert table_of_escapes() in page, f"docs/isolation.md should have this:\n{table_of_escapes()}"


def test_no_usual_question_is_silently_missing() -> None:
    page = (DOCS / "isolation.md").read_text()
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 68))
    named = {word for _, where in rows for word in re.findall(r"`([a-z-]+)`", where)}
    assert named <= {probe.id for probe in probes()}
    assert all("`" in where or "not a question to one instance" in where for _, where in rows)
