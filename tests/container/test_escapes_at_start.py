"""Ways out that use the runtime itself while it starts a container: its program, its descriptors, its mounts."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import RUNTIMES, Bundle, configuration, installed
from escaping import SUCCEEDED, Ask, Attempt
from oci import BASE_INTERPRETER
from roots import fill, open_folder
from running import Run, Start

from lab.errors import LaunchError
from lab.model import Process
from lab.runtime import bundle as defaults
from lab.runtime.launcher.launcher import Directory, Overlay
from lab.runtime.plan import Enter

STARTS = 40
STARTS_OF_A_PROGRAM = 5
RENAME_EXCHANGE = 2


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    if not installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def hostile(escape_root: Path) -> Iterator[Bundle]:
    """An image whose dynamic loader is not the usual one, and whose programs lead back to whoever starts them."""
    if platform.machine() != "x86_64":
        pytest.skip("the loader is for x86-64")
    with open_folder() as folder:
        root = folder / "rootfs"
        root.mkdir()
        fill(root)
        shutil.copy(escape_root / "bin" / "escape", root / "bin" / "escape")
        for name in ("lib64", "proc"):
            (root / name).mkdir()
        source = Path(__file__).with_name("loader.c")
        flags = ["-O1", "-nostdlib", "-static", "-fno-stack-protector", "-Wl,-Ttext-segment=0x60000000"]
        subprocess.run(["gcc", *flags, "-o", root / "lib64" / "ld-linux-x86-64.so.2", source], check=True)
        (root / "bin" / "script").write_text("#!/proc/self/exe\n")
        (root / "bin" / "script").chmod(0o755)
        (root / "bin" / "itself").symlink_to("/proc/self/exe")
        yield Bundle(folder=folder, value=configuration())


@pytest.mark.parametrize("word", ["/proc/self/exe", "script", "itself"])
def test_no_image_gets_hold_of_the_runtimes_program(hostile: Bundle, runtime: str, word: str) -> None:
    """CVE-2019-5736: who executes /proc/self/exe has the runtime's program in its hands, to be written to later.

    lab-oci puts a sealed program in between, runc 1.1 a read-only mount of itself, or a sealed copy.
    """
    hostile.value["process"]["args"] = [word]
    program = BASE_INTERPRETER if runtime == "lab-oci" else str(shutil.which(runtime))
    ended = hostile.run(runtime, check=False)
    assert ended.output.strip() != f"{Path(program).stat().st_ino} w"
    assert ended.exit_code != 0 or re.fullmatch(r"\d+ [rw]\n", ended.output)


def test_the_loader_gets_hold_of_who_does_not_take_care(hostile: Bundle) -> None:
    """The control: the same interpreter enters the same root and executes the same, without what lab does before."""
    code = "import os; os.chroot('.'); os.execv('/proc/self/exe', ['x'])"
    script = f'mount -t proc proc proc && exec "{BASE_INTERPRETER}" -IS -c "{code}"'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(words, cwd=hostile.root, capture_output=True, text=True, check=True, timeout=250)
    assert done.stdout.strip() == f"{Path(BASE_INTERPRETER).stat().st_ino} w"


def test_under_the_helper_the_program_is_on_a_read_only_mount(start: Start, escape_root: Path) -> None:
    """What `lab run` starts is started by lab's helper, inside: an image gets hold of that one alone.

    A program that runs is busy for who would write to it; its time could be set on a writable mount. The control is a
    copy of it.
    """
    script = "cp /.lab/inside /tmp/copy && touch /tmp/copy && echo control; touch /.lab/inside; umount /.lab"
    container, output = start(script, root=Overlay(lower=(escape_root,)), init=True)
    assert container.wait(120) is not None
    container.close()
    assert output.text().startswith("control\n")
    assert "Read-only file system" in output.text()
    assert "Operation not permitted" in output.text() or "can't unmount" in output.text()


def test_no_descriptor_and_no_directory_of_the_runtimes_is_left(
    hostile: Bundle, runtime: str, tmp_path: Path
) -> None:
    """CVE-2024-21626: one descriptor of a folder of the host's leads to all its files.

    The control hands one over, which is what --preserve-fds is for.
    """
    (tmp_path / "canary").write_text("")
    for verb in ("leaked_descriptor", "climb"):
        hostile.value["process"]["args"] = ["escape", verb, str(tmp_path / "canary")]
        assert hostile.run(runtime).output.startswith("stopped: ")
    open_it = ["bash", "-c", 'exec 3< "$0" && exec "$@"', str(tmp_path)]
    for verb in ("leaked_descriptor", "climb"):
        hostile.value["process"]["args"] = ["escape", verb, str(tmp_path / "canary")]
        assert hostile.run(runtime, "--preserve-fds", "1", prefix=open_it).output.strip() == SUCCEEDED


def test_root_does_not_leave_its_root(
    attempt: Ask, attempt_under_runc: Ask, run: Run, escape_root: Path, tmp_path: Path
) -> None:
    """chroot(2) binds nobody who may call it again: the root has been changed for good, by pivot_root(2).

    The control is what lab's backend `process` does: a chroot, and it says that it isolates nothing.
    """
    (tmp_path / "canary").write_text("")
    words = ("leave_chroot", str(tmp_path / "canary"))
    for ask in (attempt, attempt_under_runc):
        assert ask(Attempt(words=words, layers={}).config()).startswith("stopped: ")
    config = defaults.process_config(Process(argv=("/bin/escape", *words)))
    control = run(config=config, root=Overlay(lower=(escape_root,)), init=False, enter=Enter.CHROOT)
    assert control.output.strip() == SUCCEEDED


class Swapping:
    """Swaps two names as fast as it can until it is left (renameat2(2), RENAME_EXCHANGE)."""

    def __init__(self, first: Path, second: Path) -> None:
        code = (
            "import ctypes, sys\n"
            "swap, first, second = ctypes.CDLL(None).renameat2, *(word.encode() for word in sys.argv[1:])\n"
            f"while swap(-100, first, -100, second, {RENAME_EXCHANGE}) == 0: pass\n"
        )
        self._process = subprocess.Popen([sys.executable, "-IS", "-c", code, first, second])

    def __enter__(self) -> None:
        time.sleep(0.1)

    def __exit__(self, *_error: object) -> None:
        assert self._process.poll() is None, "it has stopped swapping"
        self._process.kill()
        self._process.wait()


@pytest.fixture
def trap(hostile: Bundle, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A folder in the image that is now itself, now a link to one of the host's: the two names, and the latter."""
    victim = tmp_path / "victim"
    victim.mkdir()
    folder, link = hostile.root / "data", hostile.root / "link"
    folder.mkdir()
    link.symlink_to(f"../../../../../../../../..{victim}")
    return folder, link, victim


def test_a_mount_point_that_is_swapped_for_a_link_stays_in_the_root(
    start: Start, hostile: Bundle, trap: tuple[Path, Path, Path]
) -> None:
    """As CVE-2021-30465: who checks a path and then uses it can be made to mount, and to make folders, elsewhere."""
    folder, link, victim = trap
    before = Path("/proc/self/mountinfo").read_text()
    mounts = (defaults.bind(hostile.folder / "rootfs" / "bin", "/data/below/it"),)
    config = defaults.container_config(Process(argv=("true",)), extra_mounts=mounts)
    ended = 0
    with Swapping(folder, link):
        for _ in range(STARTS):
            try:
                container, _output = start(config=config, root=Directory(path=hostile.root), init=False)
            except LaunchError:  # refused is as good as resolved inside
                continue
            ended += container.wait(120) is not None
            container.close()
    assert not list(victim.iterdir()), "a folder was made on the host"
    assert Path("/proc/self/mountinfo").read_text() == before
    assert ended, "not one start succeeded: nothing was shown"


def test_the_runtimes_mount_within_the_root_whoever_swaps(
    hostile: Bundle, runtime: str, trap: tuple[Path, Path, Path]
) -> None:
    """The same under both command lines. A mount outside is made by neither; a folder was by runc until 1.1.14 and
    1.2.0-rc.3 (CVE-2024-45310), which may be the one that is here.
    """
    folder, link, victim = trap
    before = Path("/proc/self/mountinfo").read_text()
    source = str(hostile.root / "bin")
    hostile.mount("/data/below/it", type="bind", source=source, options=["bind", "ro"])
    hostile.value["process"]["args"] = ["true"]
    ended: list[int] = []
    with Swapping(folder, link):
        while len(ended) < STARTS_OF_A_PROGRAM or (0 not in ended and len(ended) < STARTS):
            ended.append(hostile.run(runtime, check=False).exit_code)
    assert Path("/proc/self/mountinfo").read_text() == before
    assert runtime == "runc" or not list(victim.iterdir()), "a folder was made on the host"
    assert 0 in ended, "not one start succeeded: nothing was shown"


def test_what_hides_files_is_not_the_images_to_choose(hostile: Bundle, runtime: str, tmp_path: Path) -> None:
    """As CVE-2025-31133: files are hidden below /dev/null, and an image's may be a link to a file of the kernel's.

    The control hides the file below what the link leads to, as a runtime did that took the image's for a device.
    """
    hostile.value["mounts"] = [each for each in hostile.value["mounts"] if not each["destination"].startswith("/dev")]
    for name in ("dev", "etc"):
        (hostile.root / name).mkdir()
    (hostile.root / "etc" / "open").write_text("from the link\n")
    (hostile.root / "etc" / "hidden").write_text("hidden\n")
    (hostile.root / "dev" / "null").symlink_to("/etc/open")
    hostile.value["linux"]["maskedPaths"] = ["/etc/hidden"]
    hostile.script("cat /etc/hidden")
    said = hostile.run(runtime, check=False)
    assert "from the link" not in said.output
    assert "hidden" not in said.output
    script = f'mount --bind "{hostile.root}/etc/open" "{hostile.root}/etc/hidden" && cat "{hostile.root}/etc/hidden"'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    control = subprocess.run(words, capture_output=True, text=True, check=True, timeout=250)
    assert control.stdout == "from the link\n"


def test_who_checks_first_and_uses_then_is_fooled(hostile: Bundle, trap: tuple[Path, Path, Path]) -> None:
    """The control: with paths in place of descriptors, the same swapping wins."""
    folder, link, victim = trap
    deadline = time.monotonic() + 100
    with Swapping(folder, link):
        while not list(victim.iterdir()) and time.monotonic() < deadline:
            try:
                if os.path.realpath(folder).startswith(str(hostile.root)):
                    (folder / "below").mkdir(exist_ok=True)
            except OSError:  # swapped in the middle of it
                continue
    assert list(victim.iterdir()), "the check was never passed by"
