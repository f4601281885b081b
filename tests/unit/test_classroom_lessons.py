"""Lessons: the grammar of their questions, what a run answers, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import noisy_run
from synthetic import write_run
from typer.testing import CliRunner

import lab
from lab.classroom.questions import lesson as lessons
from lab.classroom.questions.answers import Answer, Evaluator, Unanswered
from lab.classroom.questions.expressions import Form, parse
from lab.classroom.questions.lesson import SHIPPED, create, locate, names, read
from lab.classroom.questions.material import material
from lab.classroom.questions.showing import figure_of, showing
from lab.cli.classroom.lessons import app
from lab.errors import ResultsError, UsageError
from lab.isolation.registry import probes
from lab.reports.figures import plots

SAMPLE = Path(__file__).parents[2] / "results" / "sample"
NEEDS_ANOTHER_RUN = {"noisy.slowdown(container, cpu, with-limits)"}
ORDER = [
    "what-they-run", "resources", "speed", "isolation", "dockers-promise", "images-and-layers", "noisy-neighbours",
    "no-conclusion",
]  # fmt: skip


@pytest.fixture(scope="module")
def ask() -> Evaluator:
    return Evaluator(lab.load(str(SAMPLE)))


def test_eight_lessons_follow_the_usual_introduction() -> None:
    assert names() == ORDER
    assert sum(len(read(SHIPPED / name).questions) for name in ORDER) > 25


@pytest.mark.parametrize("name", ORDER)
def test_the_run_that_comes_with_lab_answers_what_a_lesson_asks(name: str) -> None:
    made = material(read(SHIPPED / name), SAMPLE)
    silent = {each["bind"] for each in made["questions"] if "reason" in each["answer"]}
    assert silent <= NEEDS_ANOTHER_RUN
    for each in made["questions"]:
        answer = each["answer"]
        if "reason" in answer:
            assert answer["needs"].startswith("lab ")
        elif each["choices"]:
            assert len(answer["right"]) == 1, each["bind"]
        else:
            assert answer["value"] is not None
        assert "{{" not in each["text"] + each["explanation"] + each["mechanism"]
        assert "does not tell" not in each["text"] + each["explanation"] + each["mechanism"]


@pytest.mark.parametrize(
    ("asked", "figure"),
    [
        ("boot.ratio(vm, container)", "boot-distribution"),
        ("boot.kernel(vm)", "boot-phases"),
        ("boot.longest(vm)", "boot-phases"),
        ("memory.pss@after-load(vm)", "memory"),
        ("cpu.compute.ratio(vm, process)", "cpu"),
        ("load.latency.p99(container)", "load"),
        ("isolation(container, kernel-release)", "isolation"),
        ("isolation.count(vm, open)", "isolation"),
        ("kernel(container)", ""),
        ("image.layers()", ""),
    ],
)
def test_a_question_s_figure_is_that_of_its_quantity(asked: str, figure: str) -> None:
    found = figure_of(parse(asked), "boot.total")
    assert found == figure
    assert not found or found in [plot.name for plot in plots()]


def test_what_a_run_has_to_show_after_a_reveal(tmp_path: Path) -> None:
    shown = showing(read(SHIPPED / "speed"), SAMPLE, "sample")
    assert b"lab report sample" in shown.race
    assert shown.of(0) == ("race", "figure")
    assert shown.figures[3].alt.startswith("Phases of a start")
    assert all(each.svg.startswith(b"<?xml") and b"<svg" in each.svg for each in shown.figures.values())
    kernels = showing(read(SHIPPED / "what-they-run"), SAMPLE, "sample")
    assert [kernels.of(place) for place in (0, 2)] == [("race",), ("race", "figure")]
    neighbours = showing(read(SHIPPED / "noisy-neighbours"), noisy_run(tmp_path).path, "neighbours")
    assert (neighbours.race, neighbours.of(0)) == (b"", ()), "a run that timed no start"


def test_the_probes_that_lessons_ask_about_exist() -> None:
    known = {probe.id for probe in probes()}
    asked = {
        each.bind.arguments[1] for name in ORDER for each in read(SHIPPED / name).questions
        if each.bind.form is Form.ANSWER
    }  # fmt: skip
    assert len(asked) > 5
    assert asked <= known


def test_values_are_those_of_the_analysis(ask: Evaluator) -> None:
    loaded = lab.load(str(SAMPLE))
    table = loaded.summary()
    row = table[(table["quantity"] == "memory.pss") & (table["arm"] == "vm") & (table["state"] == "after-load")].iloc[
        0
    ]
    found = ask(parse("memory.pss@after-load(vm)"))
    assert isinstance(found, Answer)
    assert (found.value, found.low, found.high, found.unit) == (row["median"], row["low"], row["high"], "bytes")
    table = loaded.ratios("container")
    row = table[(table["quantity"] == "boot.total") & (table["arm"] == "vm")].iloc[0]
    found = ask(parse("boot.ratio(vm, container)"))
    assert isinstance(found, Answer)
    assert (found.value, found.low, found.high, found.unit) == (row["ratio"], row["low"], row["high"], "×")
    assert any("emulation" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("boot(docker)", "has no docker"),
        ("job.total(vm)", "no job.total of vm"),
        ("memory.pss@asleep(vm)", "memory.pss, asleep"),
        ("isolation(vm, dmi)", "could not be answered"),
        ("isolation(vm, unheard-of)", "did not ask"),
        ("boot.kernel.ratio(vm, process)", "no boot.kernel"),
        ("noisy.slowdown(vm, cpu, with-limits)", "lab noisy"),
    ],
)
def test_what_a_run_lacks_is_said_and_never_made_up(ask: Evaluator, text: str, reason: str) -> None:
    found = ask(parse(text))
    assert isinstance(found, Unanswered)
    assert reason in found.reason


def test_few_blocks_give_no_interval(tmp_path: Path) -> None:
    found = Evaluator(lab.load(str(write_run(tmp_path, blocks=2).path)))(parse("boot.ratio(microvm, process)"))
    assert isinstance(found, Answer)
    assert found.value > 1
    assert math.isnan(found.low)
    assert "too few" in found.sure


def test_a_slowdown_is_taken_from_a_run_of_noisy_neighbours(tmp_path: Path) -> None:
    ask = Evaluator(lab.load(str(noisy_run(tmp_path).path)))
    found = ask(parse("noisy.slowdown(container, cpu, without-limits)"))
    assert isinstance(found, Answer)
    assert found.value == pytest.approx(2.0, rel=0.05)
    assert found.low < 2 < found.high
    silent = ask(parse("noisy.slowdown(container, memory, without-limits)"))
    assert isinstance(silent, Unanswered)
    assert "nobody" in silent.reason
    assert isinstance(ask(parse("noisy.slowdown(container, forks, with-limits)")), Unanswered)


@pytest.mark.parametrize(
    "text",
    [
        "", "boot", "boot(", "boot()", "boot(vm, container)", "boot.ratio(vm)", "speed(vm)", "boot.total.mean(vm)",
        "isolation(vm)", "isolation.count(vm, broken)", "noisy.slowdown(vm, cpu, sometimes)", "kernel@idle(vm)",
        "boot(vm) + boot(vm)", "boot(vm); boot(vm)", "__import__('os').system('true')", "boot(__import__('os'))",
        "boot(vm))", "boot.ratio(vm, boot(vm))", "Boot(vm)", "boot(v m)", "boot(vm,)", "boot(" + "v" * 300 + ")",
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert refused.value.hint


@given(st.text(max_size=250))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        parse(text)
    except UsageError:
        return
    assert text.strip().endswith(")")


def broken(folder: Path, file: str, old: str, new: str) -> Path:
    create(folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("lesson.toml", 'title = "Own"', 'title = ""', "title"),
        ("lesson.toml", 'unit = "times"', 'unit = "MiB"', "MiB"),
        ("lesson.toml", 'unit = "times"', "", "no unit"),
        ("lesson.toml", 'unit = "times"', 'unit = "times"\nwithin = 0.5', "within"),
        ("lesson.toml", 'unit = "times"', 'unit = "times"\nanswer = 3', "answer"),
        ("lesson.toml", "boot.ratio(vm, container)", "boot.ratio(vm)", "takes 2"),
        ("lesson.toml", 'is = ["own"]', 'is = ["mine"]', "no answer of"),
        ("lesson.toml", 'is = ["own"]', 'is = ["host"]', "two choices"),
        ("lesson.toml", 'is = ["own"]', "from = 1", "no answer of"),
        ("lesson.toml", 'name = "vm-boot"', 'name = "../x"', "name"),
        ("lesson.toml", 'name = "vm-boot"', 'name = "whose-kernel"', "same name"),
        ("lesson.toml", "minutes = 10", "minutes = ", "lesson.toml"),
        ("vm-boot.md", "## Mechanism", "## Mechanics", "Mechanics"),
        ("vm-boot.md", "What happens in that time, and why.", "", "mechanism"),
        ("vm-boot.md", "{{ boot(vm) }}", "{{ boost(vm) }}", "boost"),
        ("vm-boot.md", "{{ boot(vm) }}", "{{ boot(vm)", "no end"),
        ("intro.md", "What", "{{ x }}", "x"),
    ],
)
def test_a_lesson_that_is_not_whole_is_refused_with_what_is_wrong(
    tmp_path: Path, file: str, old: str, new: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        read(broken(tmp_path / "own", file, old, new))


def test_choices_whose_bounds_overlap_are_refused_and_an_interval_may_leave_two_right(tmp_path: Path) -> None:
    choices = 'unit = "times"\nchoices = [{text = "few", below = %s}, {text = "many", from = 178}]'
    folder = broken(tmp_path / "own", "lesson.toml", 'unit = "times"', choices % 190)
    with pytest.raises(UsageError, match="overlap"):
        read(folder)
    (question, _) = material(read(broken(tmp_path / "two", "lesson.toml", 'unit = "times"', choices % 178)), SAMPLE)[
        "questions"
    ]
    assert question["answer"]["low"] < 178 < question["answer"]["high"]
    assert question["answer"]["right"] == [0, 1]


def test_a_new_lesson_is_one_and_never_written_over_another(tmp_path: Path) -> None:
    create(tmp_path / "own")
    made = material(read(locate(str(tmp_path / "own"))), SAMPLE)
    assert all("reason" not in each["answer"] for each in made["questions"])
    with pytest.raises(UsageError, match="already"):
        create(tmp_path / "own")
    with pytest.raises(UsageError, match="can't name"):
        create(tmp_path / "Own lesson")


def test_the_texts_of_a_lesson_bring_no_html_and_no_picture_from_elsewhere(tmp_path: Path) -> None:
    text = "<script>alert(1)</script> ![x](http://example.com/x.png) [y](javascript:alert(1)) **bold**"
    folder = broken(tmp_path / "own", "vm-boot.md", "What happens in that time, and why.", text)
    mechanism = material(read(folder), SAMPLE)["questions"][0]["mechanism"]
    assert "<strong>bold</strong>" in mechanism
    for bad in ("<script", "<img", "src=", '"javascript'):
        assert bad not in mechanism


def test_a_lesson_of_another_run_says_what_it_lacks(tmp_path: Path) -> None:
    made = material(read(SHIPPED / "speed"), noisy_run(tmp_path).path)
    reasons = [each["answer"]["reason"] for each in made["questions"] if "reason" in each["answer"]]
    assert len(reasons) == len(made["questions"])
    assert "boot.total" in reasons[0]
    json.dumps(made, allow_nan=False)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    listed = json.loads(runner.invoke(app, ["ls", "--json=-"]).stdout)
    assert [each["name"] for each in listed] == ORDER
    shown = runner.invoke(app, ["show", "speed"]).stdout
    assert "measured" not in shown, "a teacher may show it to a class"
    assert "measured: 178 ×" in runner.invoke(app, ["show", "speed", "--run", "sample"]).stdout
    assert runner.invoke(app, ["check"]).exit_code == 0
    assert runner.invoke(app, ["check", "speed", "isolation", "--run", "sample"]).exit_code == 0
    silent = runner.invoke(app, ["check", "noisy-neighbours", "--run", "sample"])
    assert isinstance(silent.exception, ResultsError)
    assert "lab noisy" in silent.exception.hint
    monkeypatch.chdir(tmp_path)
    assert runner.invoke(app, ["new", "own"]).exit_code == 0
    assert runner.invoke(app, ["check", "own", "--run", "sample"]).exit_code == 0, "it is found from everywhere"
    with pytest.raises(UsageError, match="nope"):
        locate("nope")
    shutil.rmtree("own")


def test_a_lesson_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(tmp_path / "own")
    monkeypatch.setattr(lessons, "LONGEST_FILE", 10)
    with pytest.raises(UsageError, match="longer"):
        read(tmp_path / "own")
