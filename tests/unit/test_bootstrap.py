"""./bootstrap in a folder of its own, with stand-ins for apt-get, dpkg-query and .venv's Python."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
SYSTEMS = ("debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04")

TOOLS = {
    "apt-get": 'echo "apt-get $*" >> "$CALLS"; exit ${APT_EXIT:-0}',
    "dpkg": "exit ${DPKG_EXIT:-0}",
    "dpkg-query": 'shift 3; (( $# )) || echo "installed ${PROVIDED:-}"\n'
    'for name; do [[ " $MISSING " == *" $name "* ]] || echo "installed $name"; done',
    "getent": "exit 0",
    "uname": "echo ${MACHINE:-x86_64}",
}
PIP = (
    'echo "pip $* $PIP_CONSTRAINT ${PIP_CERT:+cert $PIP_CERT}" >> "$CALLS"\n'
    "echo pip was here; sleep ${PIP_SECONDS:-0}; exit ${PIP_EXIT:-0}"
)


class Checkout:
    """A checkout whose .venv is whole in bootstrap's eyes until something listed changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.user: int | None = None
        self.calls = path / "calls"
        for name in ("bootstrap", "packages.apt", "constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, path)
        for name, body in TOOLS.items():
            self._write(path / "tools" / name, body)
        self._write(path / ".venv" / "bin" / "python", PIP)
        (path / ".venv" / ".bootstrap-stamp").write_text("of yesterday")
        self.calls.touch()
        assert self.run("true").returncode == 0
        self.calls.write_text("")

    def _write(self, path: Path, body: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def popen(self, *argv: str, user: int | None = None, **environment: str) -> subprocess.Popen[str]:
        path = f"{self.path / 'tools'}:{os.environ['PATH']}"
        return subprocess.Popen(
            [self.path / "bootstrap", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, user=user,
            env={**os.environ, "PATH": path, "CALLS": str(self.calls), "MISSING": "", **environment},
        )  # fmt: skip

    def run(self, *argv: str, user: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.popen(*argv, user=user or self.user, **environment)
        stdout, stderr = process.communicate(timeout=250)
        return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)

    def outdate(self) -> None:
        with (self.path / "constraints.txt").open("a") as file:
            file.write("another==1.0\n")


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    with TemporaryDirectory(prefix="lab-test-") as folder:
        Path(folder).chmod(0o755)
        yield Checkout(Path(folder))


def test_without_a_command_it_says_how_to_use_it(checkout: Checkout) -> None:
    done = checkout.run()
    assert done.returncode == 2
    assert "usage: ./bootstrap" in done.stderr


def test_when_all_is_there_it_becomes_the_command(checkout: Checkout) -> None:
    process = checkout.popen("bash", "-c", 'echo $$ $VIRTUAL_ENV ${PATH%%:*} "$1"; exit 7', "-", "two words")
    stdout, stderr = process.communicate(timeout=250)
    venv = checkout.path / ".venv"
    assert stdout == f"{process.pid} {venv} {venv}/bin two words\n"
    assert stderr == ""
    assert process.returncode == 7
    assert checkout.calls.read_text() == ""


def test_a_signal_that_ends_the_command_is_passed_on(checkout: Checkout) -> None:
    assert checkout.run("bash", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_when_all_is_there_it_costs_less_than_starting_python(checkout: Checkout) -> None:
    def cpu_seconds(run: Callable[[], subprocess.CompletedProcess[str]]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run().returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    imports = [sys.executable, "-c", "import typer"]
    python = lambda: subprocess.run(imports, capture_output=True, text=True, check=False)  # noqa: E731
    assert min(cpu_seconds(lambda: checkout.run("true")) for _ in range(3)) < cpu_seconds(python)


def test_a_changed_list_installs_again_with_the_constraints(checkout: Checkout) -> None:
    checkout.outdate()
    assert checkout.run("true").returncode == 0
    assert "pip -m pip install" in checkout.calls.read_text()
    assert f"{checkout.path}/constraints.txt" in checkout.calls.read_text()
    assert [line.split()[2] for line in checkout.calls.read_text().splitlines()] == ["pip", "compileall"]
    checkout.calls.write_text("")
    assert checkout.run("true").returncode == 0
    assert checkout.calls.read_text() == ""


def test_lab_alone_asks_for_less_than_its_tests(checkout: Checkout) -> None:
    """And what was installed for the tests is enough for lab."""
    checkout.run("lab", "--version")
    assert checkout.calls.read_text() == ""
    checkout.outdate()
    checkout.run("lab", "--version")
    assert re.search(r"\[measure\]", checkout.calls.read_text())
    checkout.calls.write_text("")
    checkout.run("lab", "--version")
    assert checkout.calls.read_text() == ""
    checkout.run("pytest", "--version")
    assert re.search(r"\[dev\]", checkout.calls.read_text())


def test_a_failed_installation_shows_the_end_of_its_log_and_is_not_mistaken_for_a_whole_one(
    checkout: Checkout,
) -> None:
    checkout.outdate()
    done = checkout.run("echo", "ran", PIP_EXIT="1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "pip was here" in done.stderr
    assert "compileall" not in checkout.calls.read_text()
    assert not (checkout.path / ".venv" / ".bootstrap-stamp").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get is only called as root")
def test_apt_and_pip_trust_what_is_lent(checkout: Checkout) -> None:
    for lent, told in (("", 0), ("/lent.pem", 1)):
        checkout.outdate()
        checkout.calls.write_text("")
        assert checkout.run("true", MISSING="skopeo", LAB_CA=lent).returncode == 0
        calls = checkout.calls.read_text()
        assert calls.count("--option Acquire::https::CaInfo=/lent.pem") == told, calls
        assert len(re.findall("^pip -m pip install .* cert /lent.pem$", calls, re.MULTILINE)) == told, calls


def test_two_at_once_install_once(checkout: Checkout) -> None:
    checkout.outdate()
    first, second = (checkout.popen("true", PIP_SECONDS="0.3") for _ in range(2))
    assert first.wait(250) == second.wait(250) == 0
    first.communicate()
    second.communicate()
    assert checkout.calls.read_text().count("pip install") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get is only called as root")
def test_only_missing_packages_are_installed(checkout: Checkout) -> None:
    checkout.outdate()
    assert checkout.run("true", MISSING="wrk qemu-utils").returncode == 0
    apt = [line for line in checkout.calls.read_text().splitlines() if line.startswith("apt-get")]
    assert len(apt) == 1
    assert apt[0].endswith("install --yes --no-remove --no-install-recommends qemu-utils wrk")


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get is only called as root")
def test_what_another_package_provides_is_not_missing(checkout: Checkout) -> None:
    """Docker's own containerd.io conflicts with runc, since it has that in it."""
    checkout.outdate()
    assert checkout.run("true", MISSING="runc wrk", PROVIDED="containerd (= 1.7), runc (= 1.2)").returncode == 0
    assert checkout.calls.read_text().splitlines()[0].endswith("--no-install-recommends wrk")


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get is only called as root")
def test_what_tests_alone_need_is_installed_where_they_are_required(checkout: Checkout) -> None:
    missing = {"MISSING": "docker.io", "LAB_REQUIRE": ""}
    checkout.outdate()
    assert checkout.run("true", **missing).returncode == 0
    assert "apt-get" not in checkout.calls.read_text()
    checkout.calls.write_text("")
    assert checkout.run("true", **missing | {"LAB_REQUIRE": "container"}).returncode == 0
    assert "--no-install-recommends docker.io" in checkout.calls.read_text()
    checkout.calls.write_text("")
    for required in ("", "container"):
        assert checkout.run("true", **missing | {"LAB_REQUIRE": required}).returncode == 0
        assert checkout.calls.read_text() == "", "what is there for tests is there for all"


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get is only called as root")
def test_what_tests_alone_look_for_is_left_to_them(checkout: Checkout) -> None:
    checkout.outdate()
    for command, missing, installed in (("lab", "fio wrk", "wrk"), ("true", "fio", "fio")):
        checkout.run(command, MISSING=missing)
        assert checkout.calls.read_text().splitlines()[0].endswith(f"--no-install-recommends {installed}")
        checkout.calls.write_text("")


def test_services_that_come_with_a_package_are_masked(tmp_path: Path) -> None:
    """But for those that somebody has installed, or has decided about."""
    units, of_packages = tmp_path / "etc", tmp_path / "lib"
    units.mkdir()
    of_packages.mkdir()
    (units / "docker.socket").write_text("mine")
    (of_packages / "containerd.service").write_text("")
    places = f"units={units}; units_of_packages={of_packages}"
    script = f"source {ROOT / 'bootstrap'}; {places}; apt() {{ :; }}; apt_install docker.io wrk"
    subprocess.run(["bash", "-euc", script], check=True)
    assert {path.name: path.is_symlink() for path in units.iterdir()} == {
        "docker.socket": False,
        "docker.service": True,
    }
    subprocess.run(["bash", "-euc", script.replace("docker.io", "podman")], check=True)
    assert (units / "podman.socket").is_symlink()
    assert (units / "podman-auto-update.timer").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get is only called as root")
def test_when_apt_fails_its_lists_are_refreshed_before_giving_up(checkout: Checkout) -> None:
    checkout.outdate()
    done = checkout.run("true", MISSING="wrk", APT_EXIT="100")
    assert done.returncode == 1
    assert "the system packages could not be installed" in done.stderr
    assert " update\n" in checkout.calls.read_text()


@pytest.fixture
def users_own(checkout: Checkout) -> Checkout:
    """Outdated, and an ordinary user's, where that can be had."""
    checkout.outdate()
    if os.geteuid() == 0:
        shutil.rmtree(checkout.path / ".bootstrap")
        for path in (checkout.path, *checkout.path.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        checkout.user = NOBODY
    return checkout


def test_without_root_it_does_what_it_can_and_tells_what_is_missing(users_own: Checkout) -> None:
    done = users_own.run("bash", "-c", "echo ran; exit 7", MISSING="wrk podman")
    assert (done.returncode, done.stdout) == (7, "ran\n")
    calls = users_own.calls.read_text()
    assert "apt-get" not in calls
    assert re.search(r"pip install .*\[dev\]", calls)
    assert "sudo ./bootstrap bash" in done.stderr
    for line in ("wrk: the HTTP load", "podman: a manager of containers"):
        assert line in done.stderr
    assert "microvm" in done.stderr.partition("works without it")[2]
    users_own.calls.write_text("")
    again = users_own.run("true", MISSING="wrk podman")
    assert (again.returncode, users_own.calls.read_text()) == (0, ""), "it is installed anew each time"
    assert {"wrk", "podman"} <= {*again.stderr.split()}
    assert users_own.run("true", MISSING="").returncode == 0
    assert "pip install" in users_own.calls.read_text(), "what was made without root is taken for all"
    users_own.calls.write_text("")
    assert users_own.run("true", MISSING="wrk").stderr == ""


@pytest.mark.parametrize(
    ("missing", "works", "does_not"),
    [
        ("qemu-utils", ("container", "lab build", "lab report"), ("microvm",)),
        ("gcc", ("lab report",), ("container", "microvm")),
        ("mmdebstrap", ("lab build from",), ("microvm",)),
        ("uidmap", ("container", "run as root"), ("lab build", "microvm")),
    ],
)
def test_what_works_without_root_is_what_nothing_is_missing_for(
    users_own: Checkout, missing: str, works: tuple[str, ...], does_not: tuple[str, ...]
) -> None:
    told = users_own.run("true", MISSING=missing).stderr.partition("works without it")[2]
    for words in works:
        assert words in told
    for words in does_not:
        assert words not in told


def test_without_root_what_can_t_be_built_is_left_out(users_own: Checkout) -> None:
    done = users_own.run("lab", "--version", MISSING="libvirt-dev")
    installed = users_own.calls.read_text().splitlines()[0]
    assert not re.search(r"libvirt|\[", installed.partition("--editable")[2].partition(" ")[0])
    assert "libvirt-python" not in installed
    for name in ("pyroute2", "zstandard"):
        assert f" {name} " in installed
    assert "container" in done.stderr.partition("works without it")[2]
    assert "microvm" not in done.stderr.partition("works without it")[2]
    users_own.calls.write_text("")
    users_own.run("true", MISSING="libvirt-dev")
    assert users_own.run("lab", "--version", MISSING="libvirt-dev").stderr.count("pip") == 0
    assert {"pytest", "pyroute2"} <= {*users_own.calls.read_text().splitlines()[0].split()}, (
        "the tests' own are missing"
    )


def test_without_root_a_missing_python_or_a_checkout_of_root_s_ends_it(users_own: Checkout) -> None:
    users_own._write(users_own.path / "tools/getent", "exit 2")
    done = users_own.run("true")
    assert done.returncode == 0
    assert "libvirt-qemu: a system user" in done.stderr
    (users_own.path / ".venv/.bootstrap-stamp").unlink()
    places = f"root={users_own.path}; venv=$root/.venv; stamp=$venv/.bootstrap-stamp"
    stand_ins = "system=debian-13; remedy=REMEDY; interpreter() { echo /nowhere; }"
    script = f"source {ROOT / 'bootstrap'}; {places}; {stand_ins}; install_python"
    none = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=False)
    assert (none.returncode, "python3-venv" in none.stderr, "REMEDY" in none.stderr) == (2, True, True)
    if os.geteuid() == 0:
        for path in (users_own.path, users_own.path / ".venv"):
            os.chown(path, 0, 0)
        refused = users_own.run("true")
        assert refused.returncode == 2
        assert "sudo ./bootstrap true" in refused.stderr


@pytest.mark.parametrize(("machine", "too_old"), [("riscv64", "0"), ("x86_64", "1")])
def test_on_another_system_it_prints_what_to_install(checkout: Checkout, machine: str, too_old: str) -> None:
    checkout.outdate()
    done = checkout.run("pytest", MACHINE=machine, DPKG_EXIT=too_old)
    assert done.returncode == 2
    assert "qemu-system-x86" in done.stderr
    assert "pip install -c constraints.txt" in done.stderr
    assert checkout.calls.read_text() == ""


@pytest.mark.parametrize("system", SYSTEMS)
def test_conditions_select_one_python_per_system(system: str) -> None:

    def packages(required: str, extra: str = "dev") -> list[str]:
        script = f"source {ROOT / 'bootstrap'}; system={system}; extra={extra}; packages"
        words = ["bash", "-c", f"LAB_REQUIRE={required}; {script}"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    names = packages("")
    assert len(names) == len(set(names)) > 20
    assert "qemu-system-x86" in names
    assert ("python3.11-venv" in names) == (system == "ubuntu-22.04")
    assert ("python3-venv" in names) == (system != "ubuntu-22.04")
    assert ("chromium" in names) == system.startswith("debian-")
    assert "docker.io" not in names
    added = {"docker.io"} | ({"docker-cli"} if system == "debian-13" else set())
    assert set(packages("container")) == {*names} | added
    least = packages("", "measure")
    assert {"qemu-system-x86", "runc", "mmdebstrap"} <= {*least} < {*names}
    assert not {"chromium", "buildah", "fio"} & {*least}
    made, called = ({*packages("", extra)} for extra in ("build", "depends"))
    assert called < made < {*least}
    assert "qemu-system-x86" in called
    assert "libvirt-dev" in made - called
    assert "runc" in {*least} - made


def test_every_system_package_says_why() -> None:
    lines = (ROOT / "packages.apt").read_text().splitlines()
    assert [line for line in lines if line.startswith("qemu-system")]
    for line in lines:
        assert not line or re.fullmatch(
            r"#.*|[a-z0-9.+-]+( \[(!?[a-z]+-[0-9.]+|[a-z]+)( required| tests| build| reference)?\])? +# \S.*", line
        ), line


def test_every_dependency_is_pinned_by_name_and_version_alone() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+]*", line) for line in lines)
    pinned = {normalise(line.partition("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        asked += [need for need in extra if not need.startswith(project["project"]["name"])]
    assert {normalise(re.split(r"[\[<>=!~; ]", need)[0]) for need in asked} <= pinned


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture
def kit(checkout: Checkout) -> Path:
    """A package of it and its sum."""
    parts = checkout.path / "parts"
    (parts / "wheels").mkdir(parents=True)
    (parts / "wheels/one.whl").write_text("a package")
    (parts / "SHA256SUMS").write_text(f"{sha256(b'a package').hexdigest()}  wheels/one.whl\n{'0' * 64}  blobs/none\n")
    subprocess.run(["tar", "-cf", checkout.path / "kit.tar", "-C", parts, "SHA256SUMS", "wheels"], check=True)
    pip = 'echo "pip ${PIP_NO_INDEX-} $(cat ${PIP_FIND_LINKS-/dev/null}/one.whl)" >> "$CALLS"'
    for name, body in (("python", pip), ("lab", 'echo "lab $*" >> "$CALLS"')):
        checkout._write(checkout.path / ".venv/bin" / name, body)
    checkout.outdate()
    return checkout.path / "kit.tar"


def test_a_kit_gives_the_packages_and_is_taken_in(checkout: Checkout, kit: Path) -> None:
    assert checkout.run("--kit", str(kit), "echo").returncode == 2, "it holds nothing for other commands than lab's"
    assert checkout.run("--kit", str(kit), "lab", "ps").returncode == 0
    first, _, *rest = checkout.calls.read_text().splitlines()
    assert first == "pip 1 a package"
    assert rest == [f"lab class kit --install {kit}", "lab ps"]
    assert not (checkout.path / ".bootstrap/kit").exists()
    checkout.calls.write_text("")
    assert checkout.run("--kit", str(kit)).returncode == 0
    assert checkout.calls.read_text() == f"lab class kit --install {kit}\n"


def test_a_kit_that_is_none_or_broken_installs_nothing(checkout: Checkout, kit: Path) -> None:
    absent = checkout.run("--kit", str(kit.with_name("absent")), "lab")
    assert (absent.returncode, "--kit wants a file" in absent.stderr) == (2, True)
    subprocess.run(["sed", "-i", "s/a package/a parcel!/", kit], check=True)
    forged = checkout.run("--kit", str(kit), "lab")
    assert (forged.returncode, "wheels/one.whl: FAILED" in forged.stderr) == (1, True)
    assert checkout.calls.read_text() == ""
