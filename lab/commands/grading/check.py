"""A folder of hand-ins, one after the other: no two students' code runs at the same time."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.classroom.exercise import handin
from lab.classroom.exercise import notebook as notebooks
from lab.classroom.exercise.graded import Graded, nothing
from lab.classroom.exercise.handout import Exercise, Student
from lab.commands.grading.grade import grade
from lab.commands.interrupt import Interruptible
from lab.commands.output import Manner
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.backends.site import Site
    from lab.commands.grading.sandbox import Sandbox
    from lab.images.store import Image

IMAGE = "lab-grading"
FOLDER = Path(handin.__file__).parent / "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What one hand-in may take, and the image that it is executed in; "" is lab's own."""

    timeout_seconds: float
    memory_bytes: int
    image: str = ""


def check(exercise: Exercise, paths: Sequence[Path], how: How) -> Generator[Graded]:
    """Grade every hand-in, by name, and then those who handed in nothing; without ``paths`` the teacher's solutions,
    with each student's seed.

    Raises UsageError before anything is executed; LabError when lab can't execute; Interrupted.
    """
    found = handin.find(paths, exercise) if paths else []
    with Interruptible() as interruptible, _open() as site:
        try:
            sandbox = _sandbox(site, how)
            if not paths:
                for student in exercise.students or (
                    Student(name=exercise.name, seed=exercise.seed or 0, person={}),
                ):
                    steps = handin.steps(exercise, student, exercise.notebook)
                    yield grade(sandbox, student.name, student.person, steps, how.timeout_seconds)
            for each in found:
                yield _grade(sandbox, exercise, each, how.timeout_seconds)
        finally:
            interruptible.disarm()
    handed_in = {each.student.name for each in found if each.student}
    for student in exercise.students if paths else ():
        if student.name not in handed_in:
            yield nothing(exercise, student.name, "nothing was handed in", student.person)


def _open() -> Site:
    from lab.backends.site import Site

    return Site.open()


def _grade(sandbox: Sandbox, exercise: Exercise, each: handin.HandIn, timeout_seconds: float) -> Graded:
    if each.student is None:
        return nothing(exercise, each.name, "no student of this exercise has that name", {})
    assert each.file is not None
    try:
        handed_in = notebooks.read(each.file)
    except UsageError as error:
        remark = error.message.replace(str(each.file), "the file")  # the page is a student's: no folders of this host
        return nothing(exercise, each.name, remark, each.student.person)
    steps = handin.steps(exercise, each.student, handed_in)
    remark = _remark(handed_in, exercise, each.student)
    return grade(sandbox, each.name, each.student.person, steps, timeout_seconds, remark)


def _remark(handed_in: dict[str, object], exercise: Exercise, student: Student) -> str:
    """That the file was made for somebody else, as it says itself: worth a look, and no more."""
    metadata = handed_in.get("metadata")
    told = metadata.get("lab") if isinstance(metadata, dict) else None
    made_for = told.get("student") if isinstance(told, dict) else None
    others = {each.name for each in exercise.students} - {student.name}
    return (
        f"the file says that it was made for {made_for}" if isinstance(made_for, str) and made_for in others else ""
    )


def _sandbox(site: Site, how: How) -> Sandbox:
    from lab.commands.grading.sandbox import Sandbox

    found = site.store.find(how.image) if how.image else _built(site)
    return Sandbox(site.launcher, site.store.lower_directories(found), site.scratch, how.memory_bytes)


def _built(site: Site) -> Image:
    """lab's own image for it, built or out of the cache."""
    from lab.commands.building.container_steps import ContainerSteps
    from lab.commands.building.view import Failures, Steps
    from lab.images.build import build

    return build(
        FOLDER,
        dockerfile=FOLDER / "Dockerfile",
        tag=IMAGE,
        build_args={},
        store=site.store,
        runner=ContainerSteps(site.launcher),
        progress=Failures() if Manner.quiet else Steps(sys.stderr, patient=True),
    )
