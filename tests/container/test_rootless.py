"""lab by an ordinary user: the same commands, in a user namespace of lab's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import preloaded
import pytest
from students import COUNT, FIRST, USER, Student, archived, enrolled, import_into, require_users, wait_until
from usable import trouble

from lab.backends.bubble import origin as bubble
from lab.backends.bwrap import Bwrap
from lab.host.cgroup import mounted
from lab.host.home import home
from lab.host.survey.checks import OF_ROOT

BACKENDS = ("process", "container")
REFERENCES = tuple(
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))
    for name in ("runc", "crun", "podman")
)
RUNC, CRUN, PODMAN = REFERENCES
OCI_RUNC = pytest.param("oci:runc", marks=RUNC.marks)
ALL = (*BACKENDS, "userns", *REFERENCES, "bwrap")
BY_NIGHT = tuple(
    pytest.param(*each.values, marks=(*each.marks, pytest.mark.nightly))
    for each in (
        pytest.param("userns"),
        *REFERENCES,
        pytest.param("bwrap"),
        pytest.param("oci:runc", marks=RUNC.marks),
    )
)
DAILY = (*BACKENDS, *BY_NIGHT)
"""What another runtime does beside is asked of all of them by `test_after_sigkill_nothing_is_left`."""
LEFT_BY_ITS_PARENT = "(setsid sleep 4711 &)"
V1 = ("memory", "cpu", "cpuacct", "pids", "freezer", "devices")
DOCKERFILE = """
FROM small
RUN mkdir -p /srv/a /srv/b && echo one > /srv/a/one && echo two > /srv/b/two && chown -R 33:44 /srv
RUN rm /srv/a/one && rm -r /srv/b && mkdir /srv/b && echo three > /srv/b/three && chmod 4755 /srv/b/three
COPY --chown=7:8 file /srv/
USER 33:44
CMD ["sh", "-c", "id -u; id -g; ls /srv/a /srv/b; stat -c '%u %g %a' /srv/b/three /srv/file"]
"""


@pytest.fixture(scope="module")
def archive(busybox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archived(busybox_root, tmp_path_factory.mktemp("rootless") / "small.tar")


@contextmanager
def reachable() -> Iterator[Path]:
    """A folder that the user can reach."""
    with tempfile.TemporaryDirectory(prefix="lab-test-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def place(missing: Callable[[str], None]) -> Iterator[Path]:
    require_users(missing)
    with reachable() as folder:
        yield folder


@pytest.fixture(scope="module")
def enrolled_once(archive: Path, missing: Callable[[str], None]) -> Iterator[Student]:
    require_users(missing)
    with reachable() as folder, enrolled(folder) as made:
        import_into(made, archive)
        yield made


def give_bwrap(student: Student) -> None:
    """The program, which would be fetched."""
    found = bubble.SOURCE.find()
    if found is not None and found.path.is_relative_to(home()):
        folder = student.store / "programs" / found.path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(found.path, folder)
        for path in (folder.parent, folder, folder / found.path.name):
            os.chown(path, student.user, student.user)


@pytest.fixture
def student(enrolled_once: Student) -> Iterator[Student]:
    """One with subordinate ids, without a control group, and with an image; nothing of a test's is left of it."""
    yield enrolled_once
    try:
        wait_until(lambda: enrolled_once.left() == [])
    finally:
        enrolled_once.kill()


@pytest.fixture(autouse=True)
def sandboxed(request: pytest.FixtureRequest, missing: Callable[[str], None]) -> None:
    """bwrap's program, which lab has fetched for the tests, is given to the user."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("backend") == "bwrap":
        if lacking := trouble(Bwrap):
            missing(lacking)
        give_bwrap(request.getfixturevalue("enrolled_once"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_root_inside_and_the_user_outside(student: Student, backend: str) -> None:
    script = "id -u; stat -c %u:%g /owned; tr -s ' ' < /proc/self/uid_map; touch /made; exit 7"
    done = student.lab("run", "--on", backend, "small", "--", "sh", "-c", script)
    assert done.returncode == 7, done.stderr
    assert done.stdout.split("\n")[:2] == ["0", "99:98"]
    table = [tuple(map(int, line.split())) for line in done.stdout.splitlines()[2:]]
    assert table[0] == (0, USER, 1)
    assert [(inside, outside - inside) for inside, outside, _ in table[1:]] == [
        (table[1][0], FIRST - 1),
        (1 + table[1][2], FIRST - 1),
    ]
    assert sum(count for _, _, count in table) == COUNT


@pytest.mark.parametrize("backend", DAILY)
def test_what_has_left_its_parent_ends_with_the_command(student: Student, backend: str) -> None:
    done = student.lab("run", "--on", backend, "small", "--", "sh", "-c", f"{LEFT_BY_ITS_PARENT}; sleep 0.3")
    assert done.returncode == 0, done.stderr
    assert student.left() == []


@pytest.mark.parametrize("backend", ALL)
def test_after_sigkill_nothing_is_left(student: Student, backend: str) -> None:
    process = student.begin("run", "--on", backend, "small", "--", "sh", "-c", f"{LEFT_BY_ITS_PARENT}; sleep 4712")
    for sleep in ("sleep 4711 ", "sleep 4712 "):  # and not the command that lab was given
        wait_until(lambda sleep=sleep: sleep in student.processes().values())
    process.kill()
    process.communicate()
    wait_until(lambda: student.left() == [])


@pytest.mark.parametrize("backend", DAILY)
def test_a_detached_instance_is_asked_from_outside_its_namespace(student: Student, backend: str) -> None:
    serve = "mkdir /www; echo hello > /www/index.html; httpd -p 8000 -h /www; sleep 4713"
    student.must(
        "run", "-d", "--on", backend, "--name", "web", "-p", "0:8000", "--wait", "small", "--", "sh", "-c", serve
    )
    port = student.must("port", "web").split(":")[-1].strip()
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=120).read() == b"hello\n"
    assert student.must("exec", "web", "--", "id", "-u").strip() == "0"
    assert "web" in student.must("top", "--once")
    assert student.must("stop", "--time", "1", "web").strip() == "web"
    assert "Exited" in student.must("ps", "-a")
    student.must("rm", "web")


@pytest.mark.parametrize("backend", ["container", BY_NIGHT[0], *BY_NIGHT[3:]])
def test_a_new_supervisor_joins_the_namespace_of_the_old_one(student: Student, backend: str) -> None:
    student.must("run", "-d", "--on", backend, "--name", "orphan", "small", "--", "sleep", "4714")
    student.kill("lab.supervisor")
    assert "supervisor lost" in student.must("ps")
    assert student.must("exec", "orphan", "--", "id", "-u").strip() == "0"
    student.must("rm", "-f", "orphan")


def test_strays_of_a_bare_process_end_with_the_next_command(student: Student) -> None:
    """All of lab's processes are killed at once, and so is what the instance's end is told by."""
    student.must("run", "-d", "--on", "process", "--name", "bare", "small", "--", "sh", "-c", "sleep 4715")
    student.must("exec", "bare", "--", "sh", "-c", LEFT_BY_ITS_PARENT)
    student.kill("lab.supervisor", "lab.runtime.spawner", "4715", "/.lab/inside")
    wait_until(lambda: list(student.processes().values()) == ["sleep 4711 "])
    student.must("clean")
    student.must("rm", "bare")
    assert student.left() == []


@pytest.mark.parametrize("backend", BY_NIGHT)
def test_what_can_t_be_executed_is_told_as_docker_tells_it(student: Student, backend: str) -> None:
    for program, code in (("nosuch", 127), ("/bin", 126)):
        assert student.lab("run", "--on", backend, "small", "--", program).returncode == code


@pytest.mark.nightly
@pytest.mark.parametrize("backend", ["bwrap"])
def test_a_sandbox_s_answers_are_the_expected_ones(student: Student, backend: str) -> None:
    asked = student.lab("isolation", "--on", backend, "--json")
    assert asked.returncode == 0, f"an answer is not the expected one: {asked.stdout}{asked.stderr}"


@pytest.mark.nightly
def test_podman_s_answers_and_its_other_runtime(student: Student, missing: Callable[[str], None]) -> None:
    if shutil.which("podman") is None:
        missing("podman")
    asked = student.lab("isolation", "--on", "podman", "--json")
    assert asked.returncode == 0, f"an answer is not the expected one: {asked.stdout}{asked.stderr}"
    words = ("run", "--on", "podman", "--knob", "runtime=lab-oci", "small", "--", "sh", "-c", "id -u; exit 5")
    done = student.lab(*words)
    assert (done.returncode, done.stdout) == (5, "0\n"), done.stderr


def test_a_limit_that_can_t_be_set_is_an_error_by_name(student: Student) -> None:
    for option, value in (("--memory", "64M"), ("--cpus", "0.5"), ("--pids", "20")):
        done = student.lab("run", option, value, "small", "--", "true")
        assert done.returncode != 0
        assert option in done.stderr
        assert "docs/rootless.md" in done.stderr


def test_a_container_sees_no_control_group_of_its_user_s(student: Student) -> None:
    assert student.must("run", "small", "--", "find", "/sys/fs/cgroup").split() == ["/sys/fs/cgroup"]


def test_a_start_is_explained(student: Student) -> None:
    done = student.lab("run", "--explain", "small", "--", "true")
    assert done.returncode == 0, done.stderr
    assert "place in cgroups" in done.stdout + done.stderr


def test_what_the_user_may_not_do_on_the_host_either_tells_nothing_of_a_boundary(student: Student) -> None:
    done = student.lab("isolation", "--on", "process,container", "--json")
    assert done.returncode == 0, f"an answer is not the expected one: {done.stdout}{done.stderr}"
    answers = {(one["backend"], one["probe"]): one["answer"] for one in json.loads(done.stdout)}
    for backend in BACKENDS:
        for probe in ("capabilities", "reboot", "memory-limit"):
            assert answers[backend, probe] == "inconclusive"
        assert answers[backend, "boot-id"] == "host"
    assert [answers[backend, "host-processes"] for backend in BACKENDS] == ["yes", "no"]


def test_a_comparison_is_the_user_s_and_says_whose_it_was(student: Student) -> None:
    """With a memory limit in the scenario, which has to be left out, and a server that is asked and watched."""
    scenario = student.home / "served"
    scenario.mkdir()
    (scenario / "Dockerfile").write_text('FROM small\nCMD ["httpd", "-f", "-p", "8000", "-h", "/"]\n')
    (scenario / "scenario.toml").write_text(
        'title = "Served"\nport = 8000\n[readiness]\ntcp = true\n[limits]\nmemory = "64M"\n'
    )
    for folder in (scenario, *scenario.iterdir()):
        os.chown(folder, USER, USER)
    told = student.must(
        "compare", str(scenario), "--on", "process,container", "--metrics", "boot,memory,cpu", "--blocks", "1",
        "--idle", "0.2s", "--json=-",
    )  # fmt: skip
    found = json.loads(told)
    folder = student.home / found["folder"]
    assert {path.stat().st_uid for path in (folder, *folder.rglob("*"))} == {USER}
    assert found["host"]["rootless"]
    assert found["limits"]["memory_bytes"] is None
    assert found["settings"]["limits_left_out"] == ["memory_bytes"]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    for backend in BACKENDS:
        seen = {one["quantity"]: one["value"] for one in samples if one["backend"] == backend and one["block"] == 1}
        assert seen["boot.total"] > 0
        assert seen["cpu.boot"] > 0
        assert seen["memory.pss"] > 0
        assert "memory.cgroup.usage" not in seen
    assert student.left() == []


def test_what_needs_limits_is_refused_by_name(student: Student) -> None:
    for words in (("noisy", "web-app"), ("compare", "web-app", "--factor", "memory=64M,128M")):
        done = student.lab(*words, "--on", "container")
        assert done.returncode == 1
        assert "control group" in done.stderr
        assert "docs/rootless.md" in done.stderr


def test_a_port_of_root_s_is_refused_with_the_remedy(student: Student) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("here every port is everybody's")
    done = student.lab("run", "-p", "80:8000", "small", "--", "true")
    assert done.returncode != 0
    assert "below 1024" in done.stderr


@pytest.mark.parametrize("backend", ["docker", "nspawn"])
def test_other_backends_say_what_they_need(student: Student, backend: str) -> None:
    done = student.lab("run", "--on", backend, "small", "--", "true")
    assert (done.returncode, "sudo" in done.stderr) == (1, True)


def test_what_lab_doctor_calls_roots_alone_says_so(student: Student) -> None:
    """Each command that it names."""
    (student.home / "plan.toml").write_text('scenario = "web-app"\n[when]\nkernel = true\n')
    student.must("class", "exercise", "make", "start-times", "homework")
    more = {
        "class check": ("--key", "homework/key.json"),
        "class kit": ("room.tar",),
        "class serve --live": ("speed",),
        "image disk": ("small", "small.qcow2"),
        "watch": ("plan.toml",),
    }
    for command in OF_ROOT:
        done = student.lab(*command.split(), *more.get(command, ()))
        assert (done.returncode, "sudo" in done.stderr) == (1, True), f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("backend", ["container", RUNC, *BY_NIGHT[2:5]])
def test_with_groups_of_its_own_limits_hold(
    place: Path, archive: Path, backend: str, missing: Callable[[str], None]
) -> None:
    host = mounted.host()
    if any(name not in host.v1 for name in V1):
        missing("cgroup v1 with the controllers that would be delegated")
    with enrolled(place, groups=[*V1, *([""] if host.unified else [])]) as student:
        import_into(student, archive)
        give_bwrap(student)
        own = backend == "container"  # others show the hierarchies that were not delegated as well
        show = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max; "
        limits = ("--memory", "32M", "--pids", "20", "--on", backend)
        done = student.lab("run", *limits, "small", "--", "sh", "-c", f"{show if own else ''}tail /dev/zero")
        assert done.stdout.split() == ([str(32 << 20), "20"] if own else [])
        assert done.returncode == 128 + signal.SIGKILL
        assert student.left() == []


def test_a_user_without_subordinate_ids_has_root_alone(place: Path, archive: Path) -> None:
    with enrolled(place, ids=False) as student:
        import_into(student, archive)
        done = student.lab(
            "run", "small", "--", "sh", "-c", "id -u; stat -c %u:%g /owned; wc -l < /proc/self/uid_map"
        )
        assert done.stdout.split() == ["0", "0:0", "1"], done.stderr
        assert "--add-subuids" in done.stderr
        (student.folder / "Dockerfile").write_text("FROM small\nUSER 33\n")
        built = student.lab("build", str(student.folder), "-t", "other")
        assert built.returncode == 1
        assert "--add-subuids" in built.stderr
        assert student.left() == []


def test_a_build_has_the_same_digest_as_root_s(student: Student, archive: Path, lab_home: Path) -> None:
    context = student.folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "file").write_text("x")
    stamp = {"SOURCE_DATE_EPOCH": "1700000000"}
    digests = []
    for who in ("student", "root"):
        told = student.folder / "home" / "digest" if who == "student" else student.folder / "digest"
        words = ("build", str(context), "-t", "owners", "--iidfile", str(told))
        if who == "student":
            student.must(*words, **stamp)
        else:
            lab = [sys.executable, "-m", "lab.cli.main"]
            preloaded.run([*lab, "image", "import", str(archive), "small"], check=True, capture_output=True)
            preloaded.run([*lab, *words], check=True, capture_output=True, env=os.environ | stamp)
            preloaded.run([*lab, "image", "rm", "owners", "small"], check=True, capture_output=True)
        digests.append(told.read_text())
    assert digests[0] == digests[1]
    said = student.must("run", "owners").split()
    assert said == ["33", "44", "/srv/a:", "/srv/b:", "three", "0", "0", "4755", "7", "8", "644"]


@pytest.mark.parametrize("variable", ["LAB_HOME", "XDG_RUNTIME_DIR"])
def test_a_place_that_others_can_change_is_refused(student: Student, variable: str) -> None:
    for mode, owner in ((0o777, USER), (0o755, USER + 1)):
        folder = student.folder / f"{variable}-{mode:o}-{owner}"
        folder.mkdir()
        os.chown(folder, owner, owner)
        folder.chmod(mode)
        (link := student.folder / f"{folder.name}.link").symlink_to(folder)
        for given in (folder, folder / "deeper", link):
            done = student.lab("run", "small", "--", "true", **{variable: str(given)})
            assert done.returncode == 1, given
            assert "is no place for lab" in done.stderr
        assert list(folder.iterdir()) == []


def test_doctor_says_what_each_lack_costs(student: Student) -> None:
    told = student.lab("doctor", "--on", "process,container").stdout
    assert "limits" in told
    assert student.lab("doctor", "--on", "process,container").returncode == 0
    assert student.lab("doctor", "--on", "docker").returncode == 1
