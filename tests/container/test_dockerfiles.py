"""Fidelity: every Dockerfile of the corpus, built by lab and by Debian's buildah, gives the same image.

The same files (path, type, mode, owner, attributes, content or link target) and the same configuration; where the one
fails the other does, at the same line.

What buildah makes of each is kept in tests/golden/buildah.json, since it takes three times as long as lab and changes
with Debian's package alone; by night it is asked whether it still answers so. After a change of the corpus this asks
it anew:

    sudo LAB_WRITE_ANSWERS=1 ./bootstrap pytest -n 0 -m nightly tests/container/test_dockerfiles.py
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from corpus import (
    BASE,
    FOLDER,
    Buildah,
    Case,
    Result,
    cases,
    describe,
    differences,
    make_base,
    make_context,
    memory_folder,
    plain_config,
)  # fmt: skip

from lab.commands.building.container_steps import ContainerSteps
from lab.commands.building.images import _labels, parse_arguments, parse_secret
from lab.errors import LabError
from lab.images.build import Options, build
from lab.images.ociconfig import config_to_oci
from lab.images.stages.mounts import Offer
from lab.images.store import Store
from lab.images.tree import Tree
from lab.runtime.launcher.launcher import Launcher

AT_ONCE = 3  # builds of buildah's beside each other: it waits a lot
DOCUMENT = FOLDER.parents[1] / "docs" / "dockerfile.md"
ANSWERS = FOLDER.parent / "golden" / "buildah.json"
Answer = Result | str
"""An image, or why there is none: all that lab says, the step at which buildah failed ("" where it names none)."""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "context"
    folder.mkdir()
    make_context(folder)
    return folder


@pytest.fixture(scope="module")
def port(context: Path) -> Iterator[int]:
    """A web server on the loopback with the context's files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=context)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    yield from memory_folder()


@pytest.fixture(scope="module")
def store(memory: Path) -> Store:
    return Store.open(memory / "home")


@pytest.fixture(scope="module")
def base(lab: object, store: Store) -> dict[str, str]:
    """Every file of the image that most cases begin with."""
    return describe(Tree(store.lower_directories(store.find(BASE))))


@pytest.fixture(scope="module")
def lab(memory: Path, context: Path, store: Store) -> Iterator[Callable[[Case, str], Answer]]:
    """Builds a case with lab; the base is there."""
    folder = memory / "base"
    folder.mkdir()
    make_base(folder)
    with Launcher.start(session=f"test-corpus-{os.getpid()}", scratch=memory / "launcher") as launcher:
        runner = ContainerSteps(launcher)
        build(folder, dockerfile=folder / "Dockerfile", tag=BASE, build_args={}, store=store, runner=runner)

        def one(case: Case, options: str) -> Answer:
            dockerfile = folder / "case" / "Dockerfile"
            dockerfile.parent.mkdir(exist_ok=True)
            shutil.copy(case.dockerfile, dockerfile)
            ignore = dockerfile.with_name("Dockerfile.dockerignore")
            ignore.unlink(missing_ok=True)
            if case.ignore.exists():
                shutil.copy(case.ignore, ignore)
            arguments, chosen = _understood(options)
            try:
                image = build(
                    context, dockerfile=dockerfile, tag="case", build_args=arguments, store=store, runner=runner,
                    options=chosen,
                )  # fmt: skip
            except LabError as error:
                return error.message
            author = {"author": image.config.author} if image.config.author else {}
            config = plain_config(config_to_oci(image.config, [])["config"]) | author
            return Result(files=describe(Tree(store.lower_directories(image))), config=config)

        yield one


def _understood(text: str) -> tuple[dict[str, str], Options]:
    """The options of a case as lab's own command line reads them."""
    words = shlex.split(text)
    given = list(zip(words[::2], words[1::2], strict=True))

    def values(name: str) -> list[str]:
        return [value for option, value in given if option == name]

    target = "".join(values("--target"))
    secrets = dict(parse_secret(word, {}) for word in values("--secret"))
    options = Options(target=target, offer=Offer(secrets=secrets), labels=_labels(values("--label")))
    return parse_arguments(values("--build-arg"), {}), options


@pytest.fixture(scope="module")
def answers(
    request: pytest.FixtureRequest, memory: Path, lab: object, context: Path, port: int
) -> Iterator[dict[str, Future[Answer]]]:
    """What buildah makes of every case that is to be tested, as it comes."""
    for program in ("buildah", "skopeo"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    buildah = Buildah(memory)
    buildah.take(memory / "home" / "images", BASE)
    ours = (item for item in request.session.items if item.path == request.path and "case" in _params(item))
    chosen = {item.callspec.params["case"].name for item in ours}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            case.name: pool.submit(_ask, buildah, case, context, shlex.split(_filled(case, context, port)))
            for case in cases()
            if case.name in chosen
        }
        pool.shutdown(cancel_futures=True)


def _ask(buildah: Buildah, case: Case, context: Path, options: list[str]) -> Answer:
    answer = buildah.build(case, context, options)
    if isinstance(answer, Result):
        return answer
    step = re.search(r'at STEP "(.*?)": ', answer)
    return step[1] if step else ""


@pytest.fixture(scope="module")
def recorded(base: dict[str, str]) -> dict[str, Answer]:
    """What buildah once made of every case."""
    kept = json.loads(ANSWERS.read_text(encoding="utf-8"))
    return {name: _whole(answer, base) for name, answer in kept.items()}


def _whole(kept: Any, base: dict[str, str]) -> Answer:
    """An answer out of its record, which says of the files what differs from the base: null for one that is gone."""
    if isinstance(kept, str):
        return kept
    files = {path: line for path, line in {**base, **kept["files"]}.items() if line is not None}
    return Result(files=files, config=kept["config"])


def _record(answer: Answer, base: dict[str, str]) -> Any:
    if isinstance(answer, str):
        return answer
    paths = sorted(path for path in {**base, **answer.files} if answer.files.get(path) != base.get(path))
    return {"files": {path: answer.files.get(path) for path in paths}, "config": answer.config}


def _params(item: pytest.Item) -> dict[str, object]:
    return getattr(getattr(item, "callspec", None), "params", {})


def _filled(case: Case, context: Path, port: int) -> str:
    return case.options.replace("{port}", str(port)).replace("{context}", str(context))


@pytest.mark.parametrize("case", [one for one in cases() if one.error_line is None], ids=lambda case: case.name)
def test_the_same_image(
    case: Case, lab: Callable[[Case, str], Answer], recorded: dict[str, Answer], context: Path, port: int
) -> None:
    ours, theirs = lab(case, _filled(case, context, port)), recorded[case.name]
    assert isinstance(ours, Result), ours
    assert isinstance(theirs, Result), theirs
    found = differences(ours, theirs)
    assert found.keys() == case.differences, found


@pytest.mark.parametrize("case", [one for one in cases() if one.error_line is not None], ids=lambda case: case.name)
def test_the_same_error(
    case: Case, lab: Callable[[Case, str], Answer], recorded: dict[str, Answer], context: Path, port: int
) -> None:
    ours, theirs = lab(case, _filled(case, context, port)), recorded[case.name]
    assert isinstance(ours, str), "lab builds it"
    assert "\n" not in ours
    if case.error_line:
        assert ours.startswith(f"Dockerfile:{case.error_line}: "), ours
    if case.differs:
        assert isinstance(theirs, Result), f"buildah fails too: {case.differs} no longer holds"
        return
    assert isinstance(theirs, str), "buildah builds it"
    if theirs:
        assert _words(case.error_text).startswith(_words(theirs)), theirs


@pytest.mark.nightly
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_buildah_still_answers_so(
    case: Case, answers: dict[str, Future[Answer]], recorded: dict[str, Answer], base: dict[str, str]
) -> None:
    theirs = answers[case.name].result()
    if os.environ.get("LAB_WRITE_ANSWERS"):
        kept = json.loads(ANSWERS.read_text(encoding="utf-8"))
        kept = {one.name: kept[one.name] for one in cases() if one.name in kept} | {case.name: _record(theirs, base)}
        text = json.dumps(dict(sorted(kept.items())), indent=1)
        ANSWERS.write_text(f"{text}\n", encoding="utf-8")
        return
    assert theirs == recorded[case.name]


def _words(text: str) -> str:
    """An instruction in lower case, its exec form written as if it were none."""
    return re.sub(r'[\[\]",]', "", text).lower()


def test_every_difference_is_argued() -> None:
    text = DOCUMENT.read_text()
    assert {case.differs for case in cases() if case.differs and f"### {case.differs}\n" not in text} == set()


def test_the_corpus_is_large_enough() -> None:
    assert len([case for case in cases() if not case.differs]) >= 60
