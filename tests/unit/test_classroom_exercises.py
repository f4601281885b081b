"""Exercises without executing one: the student's version, the key, whose hand-in is which, and what is executed."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exercising import SECRET, answered, cell, handed_out, key_of, made, notebook, teachers
from typer.testing import CliRunner

from lab.classroom.exercise import handin, handout, release
from lab.classroom.exercise import notebook as notebooks
from lab.classroom.exercise.inside.plain import NotPlain, bound, decode, encode, needed, refused
from lab.classroom.exercise.notebook import Role
from lab.cli.classroom.exercises import app
from lab.errors import UsageError

ROOT = Path(__file__).parents[2]


def sources(told: dict[str, Any]) -> dict[str, str]:
    return {notebooks.marks_of(each).get("grade_id", ""): notebooks.source_of(each) for each in told["cells"]}


def test_a_students_version_has_neither_solutions_nor_hidden_tests(tmp_path: Path) -> None:
    folder = made(tmp_path, "ada", "bob")
    for name in ("ada", "bob"):
        told = handed_out(folder, name)
        whole = json.dumps(told)
        assert SECRET not in whole
        assert "2 * value" not in whole
        assert "Because." not in whole
        assert sources(told)["double"] == "def double(value):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
        assert sources(told)["word"] == "# YOUR CODE HERE\nraise NotImplementedError()"
        assert sources(told)["why"] == "YOUR ANSWER HERE"
        assert sources(told)["test-double"] == "assert double(2) == 4, 'twice two'"
    assert stat.S_IMODE(key_of(folder).stat().st_mode) == 0o600
    assert SECRET in key_of(folder).read_text()


def test_outputs_and_pictures_of_solutions_are_not_handed_out(tmp_path: Path) -> None:
    whole = teachers()
    whole["cells"][3] |= {"outputs": [{"output_type": "stream", "name": "stdout", "text": SECRET}]}
    whole["cells"][-1]["attachments"] = {"a.png": {"image/png": SECRET}}
    told = handed_out(made(tmp_path, whole=whole), "numbers")
    assert SECRET not in json.dumps(told)


def test_what_students_may_not_change_is_locked_and_has_nbgraders_checksum(tmp_path: Path) -> None:
    by_key = {
        notebooks.marks_of(each).get("grade_id", ""): each for each in handed_out(made(tmp_path), "numbers")["cells"]
    }
    for key in ("data", "test-double"):
        assert by_key[key]["metadata"]["editable"] is False
    assert "editable" not in by_key["double"]["metadata"]
    # as nbgrader 0.9 computed it of the same cell
    assert by_key["word"]["metadata"]["nbgrader"]["checksum"] == "51b08988773f573767a014f0591e058b"


def test_seeds_are_a_students_own_and_stay_when_another_comes(tmp_path: Path) -> None:
    seeds = {}
    for folder, names in ((tmp_path / "a", ("ada", "bob")), (tmp_path / "b", ("eve", "bob", "ada"))):
        folder.mkdir()
        made(folder, *names)
        for name in names:
            (line,) = [
                notebooks.source_of(each)
                for each in handed_out(folder / "made", name)["cells"]
                if "parameters" in notebooks.tags_of(each)
            ]
            seeds.setdefault(name, set()).add(line)
    assert all(len(lines) == 1 for lines in seeds.values())
    assert len(set.union(*seeds.values())) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda cells: cells.pop(-1) and [cells.pop() for _ in range(6)], "graded"),
        (lambda cells: cells[4].update(source="### BEGIN HIDDEN TESTS\nassert double(1)"), "no end"),
        (lambda cells: cells[2].update(source="### BEGIN SOLUTION\n1\n### END SOLUTION"), "solution stands in"),
        (lambda cells: cells[3].update(source="### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS"), "outside a test"),
        (lambda cells: cells[4].update(source="assert doubel(2)"), "doubel"),
        (lambda cells: cells[2].update(source="numbers = word = 1"), "word is defined"),
        (lambda cells: cells[2].update(source="%matplotlib inline"), "IPython"),
        (lambda cells: cells[1].update(source="seed = 1\nseed = 2"), "seed = NUMBER"),
        (lambda cells: cells[4]["metadata"]["nbgrader"].update(points=-1), "points"),
        (lambda cells: cells[4]["metadata"]["nbgrader"].update(points="2"), "points"),
        (lambda cells: cells[4]["metadata"]["nbgrader"].update(grade_id="double"), "two cells"),
        (lambda cells: cells[4]["metadata"]["nbgrader"].update(schema_version=1), "schema"),
        (lambda cells: cells.append(5), "neither"),
    ],
)
def test_a_notebook_that_can_not_be_graded_is_refused(tmp_path: Path, change: Any, says: str) -> None:
    whole = teachers()
    change(whole["cells"])
    with pytest.raises(UsageError, match=says):
        made(tmp_path, whole=whole)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"cells": 1, "nbformat": 4}', b'{"cells": [], "nbformat": 3}', b"\xff\xfe",
        b"[" * 200_000, b'{"nbformat": 4, "cells": [' + b"1," * 2000 + b"1]}", b"9" * 10_000,
        b" " * (notebooks.LARGEST_BYTES + 1),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_is_no_notebook_is_refused_in_a_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.ipynb").write_bytes(data)
    with pytest.raises(UsageError) as refusal:
        notebooks.read(tmp_path / "x.ipynb")
    assert "\n" not in refusal.value.message


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(teachers()))
    (tmp_path / "link.ipynb").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe.ipynb")
    for name in ("link.ipynb", "pipe.ipynb", ".", "absent.ipynb"):
        with pytest.raises(UsageError):
            notebooks.read(tmp_path / name)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"lab": "exercise"}', b"\xff", b"[" * 100_000])
def test_what_is_no_key_is_refused_in_a_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "key.json").write_bytes(data)
    with pytest.raises(UsageError, match="no key"):
        handout.open_key(tmp_path / "key.json")


def write(file: Path, told: dict[str, Any] | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told or notebook()))
    return file


def test_the_folder_says_whose_a_hand_in_is_and_then_the_file(tmp_path: Path) -> None:
    exercise = handout.open_key(key_of(made(tmp_path, "ada", "bob", "eve")))
    folder = tmp_path / "in"
    write(folder / "ada_17_assignsubmission_file_" / "numbers.ipynb")
    write(folder / "bob" / "ada.ipynb")  # bob's, whatever it is called
    write(folder / "Eve.ipynb")
    write(folder / "mallory.ipynb")
    write(folder / ".ipynb_checkpoints" / "ada.ipynb")
    found = {each.name: each for each in handin.find([folder], exercise)}
    assert set(found) == {"ada", "bob", "eve", "mallory"}
    assert found["mallory"].student is None
    write(folder / "ADA.ipynb")
    with pytest.raises(UsageError, match="two hand-ins are ada's"):
        handin.find([folder], exercise)
    with pytest.raises(UsageError, match="no file"):
        handin.find([tmp_path / "absent.ipynb"], exercise)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no hand-in"):
        handin.find([tmp_path / "empty"], exercise)


def planned(folder: Path, handed_in: dict[str, Any], name: str = "ada") -> list[handin.Step]:
    exercise = handout.open_key(key_of(folder))
    (student,) = (each for each in exercise.students if each.name == name)
    return handin.steps(exercise, student, handed_in)


def test_only_answers_and_a_students_own_cells_come_from_a_hand_in(tmp_path: Path) -> None:
    folder = made(tmp_path, "ada", "bob")
    theirs = answered(
        handed_out(folder, "ada"), double="def double(x): return 1", data="numbers = [1]", test_double=""
    )
    theirs["cells"].reverse()
    theirs["cells"] += [
        cell("own = 1"), cell("seed = 0") | {"metadata": {"tags": ["parameters"]}},
        cell("assert True", "test-double", grade=True, points=1000), cell("1", "test-new", grade=True, points=1000),
    ]  # fmt: skip
    steps = planned(folder, theirs)
    keyed = [step for step in steps if step.cell.key]
    assert [step.cell.key for step in keyed] == [
        "data", "double", "test-double", "sums", "test-sums", "word", "test-word", "why",
    ]  # fmt: skip
    by_key = {step.cell.key: step for step in keyed}
    assert by_key["double"].cell.source == "def double(x): return 1"
    assert SECRET in by_key["test-double"].cell.source
    assert "random" in by_key["data"].cell.source
    assert sum(step.cell.points for step in steps) == 8
    assert not by_key["why"].is_answered
    (seed,) = [step.cell.source for step in steps if step.cell.role is Role.PARAMETERS]
    assert seed == f"seed = {release_seed(folder, 'ada')}"
    free = [step.cell.source for step in steps if step.cell.role is Role.FREE]
    assert free == ["own = 1", "assert True", "1"]
    assert not any(step.cell.is_graded for step in steps if step.cell.role is Role.FREE)


def release_seed(folder: Path, name: str) -> int:
    return next(each.seed for each in handout.open_key(key_of(folder)).students if each.name == name)


def test_cells_of_any_kind_do_no_harm(tmp_path: Path) -> None:
    folder = made(tmp_path, "ada")
    strange: list[Any] = [
        None, 1, [], {}, {"cell_type": "code"}, {"cell_type": "code", "source": 5, "metadata": []},
        {"cell_type": "code", "source": [1, "a"], "metadata": {"nbgrader": 7, "tags": 5}},
        {"cell_type": "code", "source": "x", "metadata": {"nbgrader": {"grade_id": ["data"], "points": {}}}},
        {"cell_type": "markdown", "source": "", "metadata": {"nbgrader": {"grade_id": "double", "solution": True}}},
    ]  # fmt: skip
    told = notebook()
    told["cells"] = strange
    steps = planned(folder, told)
    assert [step.is_answered for step in steps if step.cell.role is Role.SOLUTION] == [False] * 3


def test_a_roster_names_files_by_nickname_or_by_login(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("nickname,name\nada,Ada L\nbob,Bob B\n")
    (tmp_path / "b.csv").write_text("name,email,id,login\nAda L,a@x,1,al1\nBob B,b@x,2,\n")
    assert set(handout.students_of(tmp_path / "a.csv")) == {"ada", "bob"}
    people = handout.students_of(tmp_path / "b.csv")
    assert {name: person["name"] for name, person in people.items()} == {"al1": "Ada L", "2": "Bob B"}
    student = handout.Student(name="al1", seed=1, person=people["al1"])
    assert student.known_as == {"al1", "ada l", "a@x", "1"}


def test_names_stay_in_their_folder(tmp_path: Path) -> None:
    folder = made(tmp_path, "../../etc/x", "..", "Zoë Q.")
    assert sorted(file.name for file in (folder / "handout").iterdir()) == [
        "Zoë Q.ipynb", "_.._etc_x.ipynb", "_.ipynb",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="same name"):
        handout.make(tmp_path / "numbers.ipynb", tmp_path / "other", {"a/b": {}, "a?b": {}}, 1)


VALUES: list[Any] = [
    None, True, 0, -3, 10**50, 1.5, "", "é\ud800", [], [1, [2]], (1, 2), {1, 2}, frozenset({"a"}),
    {"a": 1, 2: [3], (1,): 2},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=map(repr, VALUES))
def test_plain_values_cross_as_what_they_are(value: Any) -> None:
    came = decode(json.loads(json.dumps(encode(value))))
    assert came == value
    assert type(came) is type(value)


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def test_what_compares_in_a_way_of_its_own_crosses_as_its_base() -> None:
    assert decode(encode(Liar(1))) != 2
    assert decode(encode([Liar(1)])) != [2]


NESTED: list[Any] = []
NESTED.append(NESTED)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), object(), b"", 1j, 10**2000, NESTED, [object()], {object(): 1}]
)
def test_what_is_no_plain_value_does_not_cross(value: Any) -> None:
    with pytest.raises(NotPlain):
        encode(value)


@pytest.mark.parametrize(
    "told",
    [[], {}, ["object"], ["list", {}], ["dict", 1], ["dict", [1]], ["set", ["list"]], float("nan"), [["list"]]],
)
def test_what_was_not_encoded_is_not_decoded(told: Any) -> None:
    with pytest.raises(NotPlain):
        decode(told)


def test_names_that_a_test_needs() -> None:
    function = "import math\ndef near(a):\n    return abs(a - wanted) < eps\n"
    source = function + "for each in items: print([each * k for k in ks])"
    assert needed(source) - {"abs", "print"} == {"wanted", "eps", "items", "ks"}
    assert bound(source) == {"math", "near", "each"}


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("x = 1", ""), ("!ls", "IPython"), ("x = 1\n%time x", "line 2"), ("%%bash\nls", "IPython"),
        ("x = ", "no Python"), ("f?", "IPython"), ("a = (5\n% 3)", ""), ("\0", "Python"),
    ],
)  # fmt: skip
def test_what_is_no_plain_python_is_told_in_a_line(source: str, part: str) -> None:
    why = refused(source)
    assert part in why
    assert bool(why) == bool(part)


def test_the_programs_of_the_containers_need_nothing_but_the_standard_library() -> None:
    folder = ROOT / "lab" / "classroom" / "exercise" / "inside"
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                inner = name == "lab.classroom.exercise.inside.plain"
                assert inner or name.partition(".")[0] in sys.stdlib_module_names, f"{file.name} imports {name}"


class Judge:
    """The process of the tests, asked as lab asks it, but without a container."""

    def __init__(self) -> None:
        start = "from lab.classroom.exercise.inside.judge import main; main()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", start], cwd=ROOT, text=True, bufsize=1, **pipes)

    def ask(self, **message: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(message) + "\n")
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def judge() -> Iterator[Judge]:
    found = Judge()
    yield found
    found.process.kill()
    found.process.communicate()


def test_a_slow_answer_is_not_taken_for_that_of_the_next_question(judge: Judge) -> None:
    """Whoever could make a test's time run out while it waits would have the next mark, and not its own."""
    told = judge.ask(source="assert f(1) == 1", seconds=0.3, id=1)
    assert told == {"ask": {"do": "look", "names": ["f"]}, "id": 1}
    time.sleep(0.5)
    told = judge.ask(found={"f": {"callable": True}})
    assert told == {"ask": {"do": "call", "name": "f", "values": [1], "named": {}}, "id": 1}
    time.sleep(0.5)
    assert judge.ask(value=2)["error"]["type"] == "AssertionError"
    assert judge.ask(source="3", seconds=5, id=2) == {"done": True, "points": 3.0, "id": 2}
    told = judge.ask(source="while True: pass", seconds=0.2, id=3)
    assert (told["error"]["type"], told["id"]) == ("TookTooLong", 3)
    assert judge.process.stdin
    judge.process.stdin.write('{"value": 7}\n')  # too late
    assert judge.ask(source="1 + 1", seconds=5, id=4) == {"done": True, "points": 2.0, "id": 4}


def test_names_of_a_hand_in_are_asked_for_anew_by_each_test(judge: Judge) -> None:
    assert judge.ask(source="helper = lambda value: value == word", seconds=5, id=1)["ask"]["names"] == ["word"]
    assert judge.ask(found={"word": {"value": "a"}, "helper": {"value": 1}, "len": {"value": 1}})["points"] is None
    assert judge.ask(source="assert helper('b') and word", seconds=5, id=2)["ask"]["names"] == ["word"]
    assert "error" not in judge.ask(found={"word": {"value": "b"}})


@pytest.mark.parametrize(
    "answer",
    [{}, {"found": {}}, {"found": {"x": {}}}, {"found": {"x": {"value": ["odd"]}}}, {"ended": "gone"},
     {"error": {"type": "KeyError", "message": "x"}}, {"found": 5}, {"done": True, "points": 9}],
)  # fmt: skip
def test_no_answer_but_a_plain_value_passes_a_test(judge: Judge, answer: Any) -> None:
    judge.ask(source="x", seconds=5, id=1)
    told = judge.ask(**answer)
    assert "error" in told
    assert "points" not in told


def test_the_exercise_that_comes_with_lab_has_the_samples_numbers() -> None:
    told = notebooks.read(handout.locate("start-times"))
    assert sum(each.points for each in release.check(told)) == 11
    (data,) = (each.source for each in notebooks.cells(told) if each.key == "data")
    namespace: dict[str, Any] = {"seed": 3}
    exec(data, namespace)
    rows = [json.loads(line) for line in (ROOT / "results/sample/samples.jsonl").read_text().splitlines()]

    def measured(arm: str, quantity: str) -> list[float]:
        found = [(row["block"], row["value"]) for row in rows if (row["arm"], row["quantity"]) == (arm, quantity)]
        return [round(value, 4) for block, value in sorted(found) if block > 0]

    assert namespace["MEASURED"] == {arm: measured(arm, "boot.total") for arm in namespace["MEASURED"]}
    assert namespace["PHASES_OF_VM"] == {
        phase: measured("vm", f"boot.{phase}") for phase in namespace["PHASES_OF_VM"]
    }


def test_the_commands(tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["new", str(tmp_path / "mine.ipynb")])
    assert done.exit_code == 0, done.output
    words = ["make", str(tmp_path / "mine.ipynb"), str(tmp_path / "x"), "--student", "ada", "--student", "bob"]
    done = runner.invoke(app, [*words, "--seed", "3"])
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in (tmp_path / "x" / "handout").iterdir()) == ["ada.ipynb", "bob.ipynb"]
    assert isinstance(runner.invoke(app, ["new", str(tmp_path / "mine.ipynb")]).exception, UsageError)
    assert isinstance(runner.invoke(app, ["make", "absent", str(tmp_path / "y")]).exception, UsageError)


@pytest.mark.parametrize(
    "kind", ["[{0} for {0} in row]", "{{{0} for {0} in row}}", "sum({0} for {0} in row)", "{{{0}: 1 for {0} in row}}"]
)
def test_what_a_comprehension_runs_through_is_no_name_of_the_cell(kind: str) -> None:
    """In any version of Python: since 3.12 it shares its scope with what is around it."""
    cell = f"found = {kind.format('each')}"
    assert bound(cell) == {"found"}
    assert needed(cell) - {"sum"} == {"row"}
    assert needed(f"{cell}; print(each)") - {"sum", "print"} == {"row", "each"}
    assert bound("[last := one for one in row]") == {"last"}
