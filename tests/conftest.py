"""Tests by privilege: the directory says what a test needs, and the need is tried, never guessed.

unit/       anywhere, without root
fuzz/       anywhere; by night a million inputs
mutation/   anywhere; by night each small mistake in what everything rests on
browser/    Chromium, without a window
container/  root, namespaces and an overlay mount
vm/         QEMU and libvirt's QEMU driver (the accelerator does not matter)
machines/   root, QEMU and what makes a Debian: lab in ordinary machines, and only where they are asked for

Several processes may share them (``-n 3``, `sharing`). Those that are marked ``alone`` then wait until no other test
runs, and keep the others waiting: because they compare instruments, or because any lab command removes what dead
sessions left, so that one that looks at it must be the only one that runs lab.

Those of machines/ take longer than all others: they run when the command line names them or their marker,
``machines``. Those that are marked ``nightly`` take hours, and run when ``-m`` names them.

Where the need is not met the tests are skipped, or, when ``LAB_REQUIRE=browser,container,vm`` names it, fail:
a machine that is there to run them must not go green because it could not.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# Python keeps what it has compiled, whatever the environment says: else thousands of processes compile lab anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

HELPERS = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "conftest")
pytest.register_assert_rewrite(*HELPERS)  # so that what they assert says, too, what it found

ORDER = ("unit", "fuzz", "mutation", "browser", "container", "vm", "machines")
SHARED_ORDER = ("vm", "unit", "fuzz", "mutation", "browser", "container", "machines")
"""Two processes begin with vm, which takes longest: see `sharing`."""
LONGEST = (
    "test_style.py", "test_ready.py", "test_images_bases.py", "test_compare.py", "test_detached.py",
    "test_dockerfiles.py", "test_noisy_neighbour.py",
)  # fmt: skip
"""Files of unit/ and container/ that take half a minute or more. Begun last, one would keep a process when the others
are done.
"""
PRIVILEGES = ("browser", "container", "vm", "machines")
SESSION_SECONDS = 7200.0
FULL_COLLECTIONS_AFTER = 200  # of the middle generation, where Python has 10
GUEST = pytest.StashKey[tempfile.TemporaryDirectory[str]]()

TRY_CONTAINER = """
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir lower upper work merged
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
touch merged/file && test -e upper/file
"""

TRY_VM = """
import pathlib, sys
import libvirt
root = pathlib.Path(sys.argv[1])
(root / "etc").mkdir()
(root / "etc" / "qemu.conf").write_text('user = "root"\\ngroup = "root"\\n' if sys.argv[2] == "0" else "")
libvirt.virEventRegisterDefaultImpl()
libvirt.open(f"qemu:///embed?root={root}").close()
"""


def pytest_configure(config: pytest.Config) -> None:
    if find_spec("hypothesis"):  # some tests run inside a guest, which has pytest alone
        import hypothesis

        hypothesis.settings.register_profile("lab", deadline=None)  # a busy host is no defect of the code
        hypothesis.settings.load_profile("lab")
    for privilege in PRIVILEGES:
        config.addinivalue_line("markers", f"{privilege}: lives in tests/{privilege}, set by itself")
    config.addinivalue_line("markers", "nightly: takes long, and is run by -m nightly alone")
    config.addinivalue_line("markers", "alone: while it runs, no other test does")
    if unknown := required() - set(PRIVILEGES):
        raise pytest.UsageError(f"LAB_REQUIRE names {', '.join(sorted(unknown))}; known: {', '.join(PRIVILEGES)}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three processes share whole folders of tests where there are two processors; a file runs in this process.

    Most tests of container/ and vm/ wait for something half of their time: hence one more than there are processors.
    ``-n auto`` is pyproject.toml's; ``-n 0`` makes one process do all. A machine of tests/machines needs both.
    """
    folders = [Path(word) for word in config.args]
    shared = all(folder.is_dir() and "machines" not in folder.parts for folder in folders)
    return 3 if shared and (os.cpu_count() or 1) > 1 else 0


class Turned(pytest.Dir):
    """A folder of whose files each process begins with others: pytest rewrites the assertions of all, and a process
    finds what another has rewritten. Where nothing was rewritten yet, that is a third of the work for each.
    """

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        found, processes = list(super().collect()), self.config.workerinput  # type: ignore[attr-defined]
        first = len(found) * int(processes["workerid"].removeprefix("gw")) // processes["workercount"]
        return found[first:] + found[:first]


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return Turned.from_parent(parent, path=path) if hasattr(parent.config, "workerinput") else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick tests first, where one process does all; a marker per privilege, so that ``-m 'not vm'`` works, and none
    that has to be asked for.
    """
    is_shared = hasattr(config, "workerinput")
    for item in items:
        if (directory := directory_of(item)) in PRIVILEGES:
            item.add_marker(directory)
    left_out = [item for item in items if not is_asked_for(item, config)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    items.sort(key=functools.partial(turn_of, is_shared=is_shared))


def pytest_collection_finish() -> None:
    """Thousands of tests are kept to the end, and looking through all of them for garbage, ever again, finds none."""
    gc.set_threshold(700, 10, FULL_COLLECTIONS_AFTER)


def turn_of(item: pytest.Item, *, is_shared: bool) -> tuple[int, int, Path]:
    """What a test is sorted by: its folder, and where processes share them whether its file takes long, and its name,
    so that all processes have one order. Those that run alone are first, before there are others to wait for; a
    machine's is not, since that needs a guest.
    """
    order, directory = SHARED_ORDER if is_shared else ORDER, directory_of(item)
    if is_shared and is_alone(item) and directory != "vm":
        return -1, 0, item.path
    is_long = is_shared and item.path.name in LONGEST
    return order.index(directory) if directory in order else 0, 0 if is_long else 1, item.path


def is_asked_for(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether a slow test is named, by its marker or by its place."""
    expression = str(config.option.markexpr)
    if item.get_closest_marker("nightly"):
        return "nightly" in expression
    if directory_of(item) != "machines" or "machines" in expression:
        return True
    folder = Path(__file__).parent / "machines"
    named = (config.invocation_params.dir / word.partition("::")[0] for word in config.args)
    return any(path.resolve().is_relative_to(folder) for path in named)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from sharing import ByFile

    return ByFile(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process where the guest of all is, which no process removes: see `lab_home`."""
    node.workerinput["guest"] = guest_of(node.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    if (made := config.stash.get(GUEST, None)) is not None:
        made.cleanup()


def guest_of(config: pytest.Config) -> str:
    """A folder for the session's guest, which is there until the session ends."""
    if GUEST not in config.stash:
        config.stash[GUEST] = tempfile.TemporaryDirectory(prefix="lab-test-guest-", dir="/var/tmp")
    return config.stash[GUEST].name


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Take turns with other processes, setup and teardown included, before the time limit of the test begins.

    Those that run alone and follow one another are waited for once.
    """
    if not hasattr(item.config, "workerinput"):
        return (yield)
    from sharing import TURN

    TURN.take(alone=is_alone(item))
    try:
        return (yield)
    finally:
        if not (nextitem and is_alone(item) and is_alone(nextitem)):
            TURN.give()


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    directory = directory_of(item)
    if directory in PRIVILEGES and (obstacle := find_obstacle(directory)):
        skip_or_fail(directory, obstacle)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what lab's own error has to show: a guest's console, what a program complained of."""
    report = yield
    if call.excinfo and (detail := getattr(call.excinfo.value, "detail", "")):
        report.sections.append(("Detail of the error", str(detail)))
    return report


@pytest.fixture(scope="module")
def missing(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """``missing("loop devices")`` for a need beyond the directory's: skips, or fails when it is required."""
    return lambda what: skip_or_fail(directory_of(request.node), f"this host has no {what}")


@pytest.fixture(scope="session", autouse=True)
def lab_home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """One LAB_HOME for the whole session, never the user's: slow artefacts are built once and shared.

    ``LAB_TEST_HOME`` keeps it between sessions; else it is made on a disk and removed at the end. Where processes
    share the tests each has its own, and all have one guest: the first that needs it makes it, the others wait.
    """
    kept = os.environ.get("LAB_TEST_HOME")
    home = Path(kept).absolute() if kept else Path(tempfile.mkdtemp(prefix="lab-test-", dir="/var/tmp"))
    home.mkdir(parents=True, exist_ok=True)
    if not kept and (guest := getattr(request.config, "workerinput", {}).get("guest")):
        (home / "guest").symlink_to(guest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(home))
        yield home
    if not kept:
        shutil.rmtree(home)


@pytest.fixture(scope="module", autouse=True)
def _what_is_known_of_kvm(lab_home: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Where processes share the tests, one asks whether KVM boots a guest, and none asks again: where it does not,
    lab waits a quarter of a minute for it, and doubts the answer ten minutes later.
    """
    if (guest := getattr(request.config, "workerinput", {}).get("guest")) is None or "LAB_TEST_HOME" in os.environ:
        yield
        return
    own, shared = lab_home / "cache" / "kvm.json", Path(guest, "kvm.json")
    if shared.exists():
        own.parent.mkdir(exist_ok=True)
        shutil.copy(shared, own)
    yield
    if own.exists() and not shared.exists():
        known = json.loads(own.read_text())
        doubted_at = known.get("until") and time.clock_gettime(time.CLOCK_BOOTTIME) + SESSION_SECONDS
        unfinished = shared.with_name(f"kvm.json.{os.getpid()}")
        unfinished.write_text(json.dumps(known | {"until": doubted_at}))
        unfinished.rename(shared)


def directory_of(item: pytest.Item | pytest.Collector) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


def required() -> set[str]:
    return {word.strip() for word in os.environ.get("LAB_REQUIRE", "").split(",") if word.strip()}


def skip_or_fail(privilege: str, reason: str) -> None:
    if privilege in required():
        pytest.fail(f"{reason} (LAB_REQUIRE={os.environ['LAB_REQUIRE']})", pytrace=False)
    pytest.skip(reason)


@functools.cache
def find_obstacle(privilege: str) -> str:
    """Why the tests of ``privilege`` can't run here; empty when they can."""
    with tempfile.TemporaryDirectory(prefix="lab-test-") as scratch:
        if privilege == "browser":
            if (chromium := shutil.which("chromium")) is None:
                return "needs chromium"
            headless = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={scratch}"]
            return failure([*headless, "--dump-dom", "data:text/html,it+runs"])
        if privilege == "container":
            if os.geteuid() != 0:
                return "needs root"
            namespaces = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork"]
            return failure([*namespaces, "bash", "-ec", TRY_CONTAINER, "-", scratch])
        if shutil.which("qemu-system-x86_64") is None:
            return "needs qemu-system-x86_64"
        if privilege == "machines":
            lacking = [name for name in ("mmdebstrap", "mke2fs", "qemu-img", "ssh") if shutil.which(name) is None]
            return f"needs {', '.join(lacking)}" if lacking else "" if os.geteuid() == 0 else "needs root"
        return failure([sys.executable, "-c", TRY_VM, scratch, str(os.geteuid())])


def failure(argv: list[str]) -> str:
    """The last line a failed command said; empty when it worked."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"{argv[0]} exited with {done.returncode}"]
    return "" if done.returncode == 0 else lines[-1]


@pytest.fixture
def same_host() -> Iterator[None]:
    """The host is after the test as it was before it."""
    from host_state import assert_unchanged, snapshot

    before = snapshot()
    yield
    assert_unchanged(before)


@pytest.fixture(scope="module", autouse=True)
def brought_backends_are_forgotten() -> Iterator[None]:
    """What a file's tests brought (a disk, a runtime of one's own) is a backend to the rest of its process."""
    yield
    if registry := sys.modules.get("lab.backends.registry"):
        registry._admitted.clear()
        registry._words.clear()


@pytest.fixture(scope="module", autouse=True)
def _commands_are_forked(lab_home: Path, request: pytest.FixtureRequest) -> None:
    """Those of container/ and vm/ are, from a process that is there before any of them looks at processes."""
    if directory_of(request.node) in ("container", "vm"):
        import preloaded

        preloaded.begin()


@pytest.fixture(scope="module", autouse=True)
def quick(request: pytest.FixtureRequest) -> Iterator[None]:
    """Unit tests wait for no disk, and draw nothing twice: see `quick`."""
    if directory_of(request.node) != "unit":
        yield
        return
    from quick import draw_once, wait_for_no_disk

    with pytest.MonkeyPatch.context() as patch:
        wait_for_no_disk(patch)
        draw_once(patch)
        yield
