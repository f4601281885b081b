"""Run the tests of one module against each of its mutants: ``python tests/mutation/driver.py NAME``.

The tests are collected once. Each mutant then has a process of its own, forked from there, in which the code of the
function that holds the mistake is another, and runs the tests that come past it, the quickest first. A mistake that
happens on import has a process that imports the mutant in the module's place. No file is changed, so that a checkout
that is in use stays as it is.

A test that fails, an import that fails and a mutant that runs much longer than the module does, all kill.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import hypothesis
import pytest
from mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "pandas", "scipy.stats", "statsmodels.stats.multitest", "statsmodels.stats.power", "zstandard")
PATIENCE_SECONDS, PATIENCE = 10, 4
"""A mutant has so many seconds, and so many times what the tests that it runs took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A module and the tests that hold it, the quickest first."""

    module: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return ROOT / f"{self.module.replace('.', '/')}.py"


TARGETS = {
    "statistics": Target(
        module="lab.analysis.inference.statistics", tests=("tests/unit/test_analysis_statistics.py",)
    ),
    "estimate": Target(
        module="lab.analysis.inference.estimate",
        tests=("tests/unit/test_estimate_edges.py", "tests/unit/test_estimate.py"),
    ),
    "judge": Target(
        module="lab.analysis.inference.judge", tests=("tests/unit/test_judge.py", "tests/unit/test_estimate.py")
    ),
    "seccomp": Target(
        module="lab.runtime.seccomp.compiler",
        tests=("tests/unit/test_runtime_seccomp.py", "tests/unit/test_seccomp_listener.py"),
    ),
    "bpf": Target(
        module="lab.runtime.seccomp.bpf", tests=("tests/unit/test_bpf.py", "tests/unit/test_runtime_seccomp.py")
    ),
    "layers": Target(
        module="lab.images.layers",
        tests=("tests/container/test_images_pack.py", "tests/container/test_images_layers.py"),
    ),
    "ledger": Target(
        module="lab.host.session.ledger",
        tests=("tests/unit/test_ledger_resources.py", "tests/unit/test_ledger_session.py"),
    ),
}


# -- a mutant in the module's place ----------------------------------------------------------------------------


class Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a mutant to whoever imports the module."""

    def __init__(self, target: Target, code: str) -> None:
        self.target, self.code = target, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.target.module:
            return None
        return importlib.util.spec_from_file_location(fullname, str(self.target.path), loader=self)  # type: ignore[arg-type]

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.code, str(self.target.path), "exec"), vars(module))


def exchange(module: ModuleType, code: str) -> None:
    """Give every function of a module the code that it has in the mutant, whoever holds the function."""
    codes = {one.co_qualname: one for one in _codes(compile(code, module.__file__ or "", "exec"))}
    for function in _functions(vars(module), module.__name__):
        function.__code__ = codes[function.__code__.co_qualname]


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _functions(names: Any, module: str) -> Iterator[FunctionType]:
    """Those of a namespace and of its classes, below whatever decorates them. A cache forgets what it knows."""
    for value in names.values():
        if isinstance(value, type) and value.__module__ == module:
            yield from _functions(vars(value), module)
        if isinstance(value, property):
            value = value.fget
        if callable(forget := getattr(value, "cache_clear", None)):
            forget()
        while hasattr(value, "__wrapped__") or isinstance(value, classmethod | staticmethod):
            value = getattr(value, "__wrapped__", None) or value.__func__
        if (
            isinstance(value, FunctionType)
            and value.__module__ == module
            and value.__code__.co_filename != "<string>"
        ):
            yield value


# -- processes -------------------------------------------------------------------------------------------------


def forked(work: Callable[[], int]) -> int:
    """The pid of a child that says nothing, with ``work``'s exit code; 1 should it raise."""
    if pid := os.fork():
        return pid
    try:
        os.setpgid(0, 0)
        with Path(os.devnull).open("r+b", buffering=0) as nowhere:
            for descriptor in (0, 1, 2):
                os.dup2(nowhere.fileno(), descriptor)
        os._exit(work())
    finally:
        os._exit(1)


def ended(pid: int, seconds: float) -> int:
    """Its exit code; 1 when it had to be killed, with all that it started."""
    deadline = time.monotonic() + seconds
    code = 1
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.005)
    for end in (lambda: os.killpg(pid, signal.SIGKILL), lambda: os.waitpid(pid, 0)):
        try:
            end()
        except (ProcessLookupError, ChildProcessError):
            pass
    return code


# -- tests -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Survey:
    """Which lines of the module each test comes past, and how long it takes."""

    path: str
    module: ModuleType
    lines: dict[str, set[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    now: set[int] = field(default_factory=set)

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != self.path:
            return None
        self.now.add(frame.f_lineno)
        return self.trace

    def run(self, items: Sequence[pytest.Item], run: Callable[[pytest.Item, pytest.Item | None], None]) -> None:
        for item, following in zip(items, [*items[1:], None], strict=True):
            list(_functions(vars(self.module), self.module.__name__))  # what is cached would not be come past
            self.now = self.lines[item.nodeid] = set()
            began = time.monotonic()
            threading.settrace(self.trace)
            sys.settrace(self.trace)
            run(item, following)
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self.seconds[item.nodeid] = time.monotonic() - began


class Mutating:
    """A plugin of pytest's that does not run the tests, but all mutants."""

    def __init__(self, target: Target, chosen: Sequence[Mutant], survived: Callable[[Mutant], None]) -> None:
        self.target, self.chosen, self.survived = target, chosen, survived
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        with tempfile.NamedTemporaryFile() as file:
            ended(forked(lambda: self._survey(session, Path(file.name))), 900)
            lines, seconds, failed = json.loads(Path(file.name).read_text())
        if failed:
            raise SystemExit(f"the module as it is fails {', '.join(failed)}")
        items = {item.nodeid: item for item in session.items}
        self._control(session, sum(seconds.values()))
        for mutant in self.chosen:
            passing = [name for name in items if not set(lines[name]).isdisjoint(mutant.lines)]
            passing.sort(key=seconds.__getitem__)
            patience = PATIENCE_SECONDS + PATIENCE * sum(seconds[name] for name in passing)
            found = [items[name] for name in passing]
            if not found or ended(forked(lambda m=mutant, i=found: self._mutated(session, m.code, i)), patience) == 0:  # type: ignore[misc]
                self.survived(mutant)
        return True

    def _control(self, session: pytest.Session, seconds: float) -> None:
        """Exchanged for code without a mistake, the module passes: else whatever exchanges it would kill all."""
        sound = ast.unparse(ast.parse(self.target.path.read_text(encoding="utf-8")))
        if ended(forked(lambda: self._mutated(session, sound, session.items)), PATIENCE_SECONDS + PATIENCE * seconds):
            raise SystemExit(f"{self.target.module} fails with code that means the same")

    def _survey(self, session: pytest.Session, file: Path) -> int:
        survey = Survey(str(self.target.path), sys.modules[self.target.module])
        survey.run(session.items, self._run)
        lines = {name: sorted(lines) for name, lines in survey.lines.items()}
        file.write_text(json.dumps([lines, survey.seconds, self.failed]))
        return 0

    def _mutated(self, session: pytest.Session, code: str, items: Sequence[pytest.Item]) -> int:
        exchange(sys.modules[self.target.module], code)
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._run(item, following)
            if self.failed:
                session._setupstate.teardown_exact(None)
                return 1
        return 0

    def _run(self, item: pytest.Item, following: pytest.Item | None) -> None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def words(target: Target, scratch: Path) -> list[str]:
    quiet = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "timeout=0"]
    return [*quiet, f"--basetemp={scratch}/{os.getpid()}", *target.tests]


def imported(target: Target, mutant: Mutant, scratch: Path) -> int:
    """All tests, with the mutant in the module's place."""
    sys.meta_path.insert(0, Instead(target, mutant.code))
    return int(pytest.main(words(target, scratch)))


def survivors(target: Target, scratch: Path, *, every: int = 1, only: str = "") -> tuple[int, list[str]]:
    """How many mutants there were, and the names of those that no test kills.

    Only those are made whose names hold ``only``, and of these the first of ``every`` so many.
    """
    chosen = [mutant for mutant in mutants(target.path.read_text(encoding="utf-8")) if only in mutant.name][::every]
    found: list[Mutant] = []

    def survived(mutant: Mutant) -> None:
        found.append(mutant)
        sys.__stderr__.write(f"{mutant.line}: {mutant.name}\n")  # type: ignore[union-attr]
        sys.__stderr__.flush()  # type: ignore[union-attr]

    began = time.monotonic()
    if ended(forked(lambda: int(pytest.main(words(target, scratch)))), 900):
        raise SystemExit(f"the tests of {target.module} fail as it is")
    patience = PATIENCE_SECONDS + PATIENCE * (time.monotonic() - began)
    for mutant in chosen:
        if not mutant.is_inside and ended(forked(lambda m=mutant: imported(target, m, scratch)), patience) == 0:  # type: ignore[misc]
            survived(mutant)
    plugin = Mutating(target, [mutant for mutant in chosen if mutant.is_inside], survived)
    if code := pytest.main([*words(target, scratch), "-s"], plugins=[plugin]):
        raise SystemExit(f"pytest ended with {code!r}")
    return len(chosen), [mutant.name for mutant in sorted(found, key=lambda mutant: mutant.line)]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth mutant")
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutants whose name holds this")
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    for name in HEAVY:
        importlib.import_module(name)
    # The same examples for every mutant, and none kept in the checkout.
    hypothesis.settings.register_profile("mutation", database=None, derandomize=True, deadline=None)
    hypothesis.settings.load_profile("mutation")
    with tempfile.TemporaryDirectory(prefix="lab-test-", dir="/var/tmp") as name:
        os.environ["LAB_TEST_HOME"] = f"{name}/home"
        total, left = survivors(TARGETS[given.name], Path(name), every=given.every, only=given.only)
    sys.stdout.write(json.dumps({"mutants": total, "survivors": left}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
