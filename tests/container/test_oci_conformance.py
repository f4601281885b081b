"""What callers are used to, item by item: the same bundle under lab-oci and under runc, where both can."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import bundles
import oci
import pytest
from bundles import RUNTIMES, Bundle, Ended, configuration, installed
from roots import fill, open_folder

import lab
from lab.runtime import versions


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with open_folder() as folder:
        (folder / "rootfs").mkdir()
        fill(folder / "rootfs")
        yield Bundle(folder=folder, value=configuration())


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    if not installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def capabilities(bundle: Bundle, *names: str) -> None:
    for held in bundle.value["process"]["capabilities"].values():
        held.extend(names)


class TestDevices:
    def test_a_mode_may_say_what_kind_of_file_it_is(self, bundle: Bundle, runtime: str) -> None:
        """podman's --device: st_mode as stat(2) tells it, S_IFCHR included."""
        node = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o20640}
        bundle.value["linux"]["devices"] = [node]
        bundle.script("busybox stat -c '%a %F' /dev/fuse")
        assert bundle.run(runtime).output == "640 character special file\n"

    def test_a_path_may_end_with_a_slash(self, bundle: Bundle, runtime: str) -> None:
        node = {"path": "/dev/below//it/", "type": "c", "major": 1, "minor": 3}
        bundle.value["linux"]["devices"] = [node]
        bundle.script("busybox stat -c '%t:%T' /dev/below/it")
        assert bundle.run(runtime).output == "1:3\n"

    def test_in_a_user_namespace_the_numbers_count(self, bundle: Bundle) -> None:
        """runc binds whatever the host has at that path."""
        in_user_namespace(bundle)
        bundle.value["linux"]["devices"] = [
            {"path": "/dev/other", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o644},
        ]
        bundle.script("busybox stat -c '%t:%T %F' /dev/other /dev/pipe; head -c 3 /dev/other | od -An -tx1")
        assert bundle.run("lab-oci").output.splitlines() == ["1:5 character special file", "0:0 fifo", " 00 00 00"]

    def test_a_pipe_has_no_numbers(self, bundle: Bundle, runtime: str) -> None:
        """mknod(2) ignores them."""
        bundle.value["linux"]["devices"] = [{"path": "/dev/pipe", "type": "p", "major": 1, "minor": 3}]
        bundle.script("busybox stat -c %F /dev/pipe")
        assert bundle.run(runtime).output == "fifo\n"

    def test_in_a_user_namespace_a_file_at_the_path_is_an_error(self, bundle: Bundle) -> None:
        """But for an empty one, which an earlier container may have left behind to mount on."""
        in_user_namespace(bundle)
        bundle.value["linux"]["devices"] = [{"path": "/taken", "type": "c", "major": 1, "minor": 5}]
        bundle.script("head -c 2 /taken | od -An -tx1")
        (bundle.root / "taken").write_text("text")
        ended = bundle.run("lab-oci", check=False)
        assert ended.exit_code != 0
        assert "/taken" in ended.errors
        (bundle.root / "taken").write_text("")
        assert bundle.run("lab-oci").output == " 00 00\n"

    def test_in_a_user_namespace_labs_own_files_need_not_be_readable(
        self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A checkout in somebody's home: root of the namespace is not the host's, and can't import from there."""
        source = Path(lab.__file__).parent
        shutil.copytree(source, tmp_path / "home" / "lab", ignore=shutil.ignore_patterns("__pycache__"))
        os.chown(tmp_path / "home", 1000, 1000)
        (tmp_path / "home").chmod(0o700)
        monkeypatch.setattr(bundles, "LAB_OCI", tmp_path / "home" / "lab" / "runtime" / "oci" / "lab-oci")
        in_user_namespace(bundle)
        (bundle.root / "kept").mkdir()
        (bundle.root / "kept" / "file").touch()
        bundle.mount("/kept", type="tmpfs", source="tmpfs", options=["tmpcopyup"])
        hook = {"path": "/bin/sh", "args": ["sh", "-c", "exit 0"]}
        bundle.value["hooks"] = {"startContainer": [hook]}
        bundle.script("ls /kept; echo $HOME")
        assert bundle.run("lab-oci").output.split() == ["file", "/"]

    def test_in_a_user_namespace_a_node_that_the_host_has_not_is_told(self, bundle: Bundle) -> None:
        in_user_namespace(bundle)
        bundle.value["linux"]["devices"] = [{"path": "/dev/null2", "type": "c", "major": 240, "minor": 77}]
        ended = bundle.run("lab-oci", check=False)
        assert "240:77" in ended.errors
        assert "/dev/null2" in ended.errors


def in_user_namespace(bundle: Bundle) -> None:
    for name in ("proc", "dev"):
        (bundle.root / name).mkdir()
    linux = bundle.value["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 200_000, "size": 70_000}]


class TestMounts:
    def test_in_a_user_namespace_nothing_is_shared_with_a_host_that_shares(self, bundle: Bundle) -> None:
        """As systemd makes every host: what the container mounts would show there, and its root not be entered."""
        in_user_namespace(bundle)
        for folder in (bundle.folder / "source", bundle.root / "bound"):
            folder.mkdir()
        bundle.mount("/bound", source="source", options=["bind"])
        bundle.script("cat /proc/self/mountinfo")
        words = ["unshare", "--mount", "sh", "-c", 'mount --make-rshared / && exec "$@"', "sh"]
        told = bundle.run("lab-oci", prefix=words).output
        assert " /bound " in told
        assert " shared:" not in told

    def test_data_of_a_bind_mount_is_left_out_with_a_warning(self, bundle: Bundle, runtime: str) -> None:
        source = bundle.folder / "source"
        source.mkdir()
        (source / "file").touch()
        bundle.mount("/bound", source="source", options=["bind", "ro", "size=4k", "sync"])
        bundle.script("ls /bound; touch /bound/x 2>&1")
        ended = bundle.run(runtime, check=False)
        assert ended.output.splitlines()[0] == "file"
        assert "Read-only file system" in ended.output
        if runtime == "lab-oci":
            assert "mounts[3].options: sync, size=4k" in ended.log

    def test_a_tmpfs_on_the_root_takes_along_what_it_covers(self, bundle: Bundle, runtime: str) -> None:
        options = ["tmpcopyup", "size=64m", "mode=755"]
        bundle.value["mounts"].insert(0, {"destination": "/", "type": "tmpfs", "source": "tmpfs", "options": options})
        (bundle.root / "tmp" / "kept").write_text("kept\n")
        bundle.script("cat /tmp/kept; touch /written; awk '$2 == \"/\" {print $3}' /proc/mounts | tail -n 1")
        assert bundle.run(runtime).output == "kept\ntmpfs\n"
        assert not (bundle.root / "written").exists()

    def test_which_mount_failed_is_told(self, bundle: Bundle) -> None:
        (bundle.root / "file").write_text("")
        bundle.mount("/file/below", type="tmpfs", source="tmpfs")
        ended = bundle.run("lab-oci", check=False)
        assert "tmpfs on /file/below" in ended.errors


class TestProcess:
    def test_an_unknown_capability_is_left_out_with_a_warning(self, bundle: Bundle) -> None:
        """Since 1.1 of the specification; runc 1.1 does the same."""
        capabilities(bundle, "CAP_TIME_TRAVEL")
        bundle.script("grep CapPrm /proc/self/status")
        ended = bundle.run("lab-oci")
        assert "CAP_TIME_TRAVEL" in ended.log
        del bundle.value["process"]["capabilities"]["permitted"][-1]
        assert bundle.run("lab-oci").output == ended.output

    def test_home_is_the_users(self, bundle: Bundle, runtime: str) -> None:
        (bundle.root / "etc").mkdir()
        lines = "root:x:0:0::/root:/bin/sh\nbroken\nsomebody:x:1000:1000::/home/somebody:/bin/sh\n"
        (bundle.root / "etc" / "passwd").write_text(lines)
        for uid, home in ((0, "/root"), (1000, "/home/somebody"), (77, "/")):
            bundle.value["process"]["user"] = {"uid": uid, "gid": uid}
            bundle.script("echo $HOME")
            assert bundle.run(runtime).output == f"{home}\n"
        bundle.value["process"]["env"].append("HOME=/elsewhere")
        assert bundle.run(runtime).output == "/elsewhere\n"

    @pytest.mark.parametrize("trap", ["fifo", "device", "link", "endless"])
    def test_home_can_not_be_made_a_trap(self, bundle: Bundle, trap: str) -> None:
        """The file is the image's: it may be a pipe that nobody writes to, or have no end."""
        (bundle.root / "etc").mkdir()
        passwd = bundle.root / "etc" / "passwd"
        if trap == "fifo":
            os.mkfifo(passwd)
        elif trap == "device":
            passwd.symlink_to("/dev/zero")
        elif trap == "link":
            passwd.symlink_to("passwd")
        else:
            with passwd.open("w") as file:
                file.truncate(1 << 40)
        bundle.script("echo $HOME")
        assert bundle.run("lab-oci").output == "/\n"

    def test_a_first_process_gets_its_directory_though_the_root_is_read_only(
        self, bundle: Bundle, runtime: str
    ) -> None:
        bundle.value["root"]["readonly"] = True
        bundle.value["process"]["cwd"] = "/made/for/it"
        bundle.script("pwd; touch x 2>&1")
        ended = bundle.run(runtime, check=False)
        assert ended.output.splitlines()[0] == "/made/for/it"
        assert "Read-only" in ended.output

    def test_the_directory_is_not_made_behind_a_link_to_the_hosts_files(self, bundle: Bundle) -> None:
        """As CVE-2024-21626: a descriptor of the host's folders, by its number."""
        bundle.value["process"]["cwd"] = "/proc/self/fd/3/made"
        bundle.script("pwd")
        folder = bundle.folder / "hosts"
        folder.mkdir()
        words = ["bash", "-c", f'exec 3<"{folder}" && exec "$@"', "bash"]
        ended = bundle.run("lab-oci", "--preserve-fds", "1", prefix=words, check=False)
        assert ended.exit_code != 0
        assert not list(folder.iterdir())

    def test_the_rlimit_that_failed_is_named(self, bundle: Bundle) -> None:
        bundle.value["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]
        ended = bundle.run("lab-oci", check=False)
        assert "RLIMIT_NOFILE" in ended.errors
        assert "Operation not permitted" in ended.errors
        assert "ValueError" not in ended.errors


class TestStreams:
    @pytest.mark.parametrize("uid", [0, 1000])
    def test_a_pipe_can_be_opened_by_its_name(self, bundle: Bundle, runtime: str, uid: int) -> None:
        """/dev/stdout, as nginx and many others write their logs to; `docker run -u 1000 … | cat`."""
        bundle.value["process"]["user"] = {"uid": uid, "gid": uid}
        bundle.script("echo out > /dev/stdout; echo err > /dev/stderr")
        ended = bundle.run(runtime)
        assert (ended.output, ended.errors) == ("out\n", "err\n")

    def test_a_file_stays_the_hosts(self, bundle: Bundle) -> None:
        """runc gives away whatever it is started with: `< /etc/passwd` would be the user's."""
        bundle.value["process"]["user"] = {"uid": 1000, "gid": 1000}
        bundle.script("cat")
        file = bundle.folder / "file"
        file.write_text("text")
        bundle.run("lab-oci", prefix=["bash", "-c", f'exec "$@" < "{file}"', "bash"])
        assert file.stat().st_uid == 0

    def test_warnings_go_to_standard_error_where_there_is_no_log(self, bundle: Bundle) -> None:
        bundle.value["process"]["capabilities"]["ambient"] = ["CAP_KILL"]
        ended = without_log(bundle)
        assert "CAP_KILL can't be granted" in ended.stderr
        assert "level=warning" in ended.stderr
        assert not ended.stdout


def without_log(bundle: Bundle) -> subprocess.CompletedProcess[str]:
    """``lab-oci run`` without ``--log``."""
    log = bundle.folder / "runtime.log"
    log.touch()
    drop = 'words=(); while [ $# -gt 0 ]; do [ "$1" = --log ] && shift 2 || { words+=("$1"); shift; }; done; '
    ended = bundle.run("lab-oci", prefix=["bash", "-c", f'{drop} exec "${{words[@]}}"', "bash"])
    return subprocess.CompletedProcess([], ended.exit_code, ended.output, ended.errors)


class TestNamespaces:
    def test_a_domain_name_given_twice(self, bundle: Bundle) -> None:
        bundle.value["domainname"] = "example.test"
        bundle.value["linux"]["sysctl"] = {"kernel.domainname": "example.test"}
        bundle.script("cat /proc/sys/kernel/domainname")
        assert bundle.run("lab-oci").output == "example.test\n"
        bundle.value["linux"]["sysctl"] = {"kernel.domainname": "another.test"}
        ended = bundle.run("lab-oci", check=False)
        assert ended.exit_code == 2
        assert "linux.sysctl.kernel.domainname" in ended.errors
        assert "domainname" in ended.errors

    def test_without_a_mount_namespace_the_callers_is_kept(self, bundle: Bundle) -> None:
        bundle.value["mounts"] = []
        spaces = bundle.value["linux"]["namespaces"]
        bundle.value["linux"]["namespaces"] = [space for space in spaces if space["type"] != "mount"]
        (bundle.root / "proc").mkdir()
        bundle.script("ls /; echo made > /tmp/made")
        ended = bundle.run("lab-oci", prefix=in_own_mounts(bundle))
        before, after = (bundle.folder / name for name in ("before", "after"))
        assert ended.output.split() == ["bin", "proc", "tmp"]
        assert (bundle.root / "tmp" / "made").read_text() == "made\n"
        assert before.read_text() == after.read_text(), "no mount was made, or left behind"

    @pytest.mark.parametrize(
        ("part", "value"),
        [
            ("mounts", [{"destination": "/proc", "type": "proc", "source": "proc"}]),
            ("root", {"path": "rootfs", "readonly": True}),
            ("maskedPaths", ["/proc/kcore"]),
            ("readonlyPaths", ["/proc/sys"]),
            ("rootfsPropagation", "shared"),
        ],
    )
    def test_what_takes_a_mount_namespace_is_refused_without(self, bundle: Bundle, part: str, value: object) -> None:
        spaces = bundle.value["linux"]["namespaces"]
        bundle.value["linux"]["namespaces"] = [space for space in spaces if space["type"] != "mount"]
        bundle.value["mounts"] = []
        where = bundle.value if part in ("mounts", "root") else bundle.value["linux"]
        where[part] = value
        ended = bundle.run("lab-oci", check=False)
        assert ended.exit_code == 2
        assert "mount namespace" in ended.errors
        assert part in ended.errors

    def test_a_mount_namespace_given_by_path(self, bundle: Bundle) -> None:
        with subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo $$; exec sleep 100"],
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdout is not None
            place = Path(f"/proc/{int(holder.stdout.readline())}/ns/mnt")
            try:
                spaces = bundle.value["linux"]["namespaces"]
                others = [space for space in spaces if space["type"] != "mount"]
                bundle.value["linux"]["namespaces"] = [*others, {"type": "mount", "path": str(place)}]
                bundle.value["mounts"] = []
                (bundle.root / "tmp" / "wait").touch()
                bundle.script("ls /; while [ -e /tmp/wait ]; do sleep 0.1; done")
                before = (place.parents[1] / "mountinfo").read_text()
                looked = look_at_first(bundle, "mnt")
                assert looked == str(place.readlink())
                assert (place.parents[1] / "mountinfo").read_text() == before
            finally:
                holder.kill()

    def test_nothing_is_above_the_root_in_a_mount_namespace_given_by_path(
        self, bundle: Bundle, escape_root: Path, tmp_path: Path
    ) -> None:
        """In the caller's, pivot_root(2) can't be called, and a process with CAP_SYS_CHROOT leaves a mere chroot."""
        shutil.copy(escape_root / "bin" / "escape", bundle.root / "bin" / "escape")
        (tmp_path / "of-the-host").touch()
        words = ["/bin/escape", "leave_chroot", str(tmp_path / "of-the-host")]
        with subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "100"]) as holder:
            try:
                oci.until(lambda: "sleep" in Path(f"/proc/{holder.pid}/comm").read_text(), "sleep")
                others = [space for space in bundle.value["linux"]["namespaces"] if space["type"] != "mount"]
                joined = {"type": "mount", "path": f"/proc/{holder.pid}/ns/mnt"}
                bundle.value["linux"]["namespaces"] = [*others, joined]
                bundle.value["mounts"] = []
                bundle.value["process"]["args"] = words
                capabilities(bundle, "CAP_SYS_CHROOT")
                assert bundle.run("lab-oci", check=False).output == "stopped: ENOENT\n"
            finally:
                holder.kill()
        left = subprocess.run(["chroot", bundle.root, *words], capture_output=True, text=True, check=False)
        assert left.stdout == "succeeded\n"

    def test_in_the_mount_namespace_of_another_container_nothing_of_it_is_executed(self, bundle: Bundle) -> None:
        """Its files are strangers': what the runtime needs, a hook's code among it, comes from its own."""
        with oci.opened("lab-oci") as runtime:
            other = runtime.running()
            spaces = bundle.value["linux"]["namespaces"]
            path = f"/proc/{runtime.state(other)['pid']}/ns/mnt"
            others = [space for space in spaces if space["type"] != "mount"]
            bundle.value["linux"]["namespaces"] = [*others, {"type": "mount", "path": path}]
            bundle.value["mounts"] = []
            (bundle.root / "proc").mkdir()
            hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo ran > /tmp/hook"]}
            bundle.value["hooks"] = {"startContainer": [hook]}
            bundle.script("cat /tmp/hook")
            assert bundle.run("lab-oci").output == "ran\n"
            bundle.value["hooks"] = {"createContainer": [hook]}
            ended = bundle.run("lab-oci", check=False)
            assert ended.exit_code == 2
            assert "hooks.createContainer" in ended.errors


def look_at_first(bundle: Bundle, kind: str) -> str:
    """The namespace that the first process is in, as the host sees it."""
    import threading

    found: list[Ended] = []
    thread = threading.Thread(target=lambda: found.append(bundle.run("lab-oci", check=False)))
    thread.start()
    seen = ""
    try:
        while thread.is_alive() and not seen:
            for entry in Path("/proc").iterdir():
                with suppress(OSError):  # a child of its shell's, which ends just now
                    if entry.name.isdecimal() and _is_rooted_in(entry, bundle.root):
                        seen = str((entry / "ns" / kind).readlink())
    finally:
        (bundle.root / "tmp" / "wait").unlink(missing_ok=True)
        thread.join()
    assert found[0].exit_code == 0, found[0].errors
    return seen


def _is_rooted_in(process: Path, root: Path) -> bool:
    """Whether that is a shell whose root is that folder, wherever it is mounted."""
    return (process / "comm").read_text() == "sh\n" and os.path.samestat((process / "root").stat(), root.stat())


def in_own_mounts(bundle: Bundle) -> list[str]:
    """Words in front of a command: in mounts of its own, which are told before and after."""
    around = f'cat /proc/self/mountinfo > {bundle.folder}/before; "$@"; code=$?; '
    around += f"cat /proc/self/mountinfo > {bundle.folder}/after; exit $code"
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", around, "sh"]


class TestHooks:
    @pytest.mark.parametrize("name", ["prestart", "createRuntime", "poststart", "poststop"])
    def test_without_an_environment_the_runtimes_is_inherited(self, bundle: Bundle, runtime: str, name: str) -> None:
        told = bundle.folder / "told"
        words = ["sh", "-c", f'echo "$MARK" > {told}']
        bundle.value["hooks"] = {name: [{"path": shutil.which("sh"), "args": words}]}
        bundle.run(runtime, prefix=["env", "MARK=inherited"])
        assert told.read_text() == "inherited\n"
        bundle.value["hooks"][name][0]["env"] = []
        bundle.run(runtime, prefix=["env", "MARK=inherited"])
        assert told.read_text() == "\n"

    def test_a_program_of_the_hosts_gets_no_variable_of_the_images(self, bundle: Bundle) -> None:
        """createContainer runs inside, but is the host's: an image's LD_PRELOAD would be loaded there."""
        told = bundle.folder / "told"
        words = ["sh", "-c", f'echo "$MARK $OF_IMAGE" > {told}']
        bundle.value["hooks"] = {"createContainer": [{"path": shutil.which("sh"), "args": words}]}
        bundle.value["process"]["env"].append("OF_IMAGE=yes")
        bundle.run("lab-oci", prefix=["env", "MARK=inherited"])
        assert told.read_text() == "inherited \n"

    def test_a_program_of_the_images_gets_the_applications(self, bundle: Bundle, runtime: str) -> None:
        bundle.value["process"]["env"].append("OF_IMAGE=yes")
        words = ["sh", "-c", 'echo "$MARK $OF_IMAGE" > /tmp/told']
        bundle.value["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": words}]}
        bundle.run(runtime, prefix=["env", "MARK=inherited"])
        assert (bundle.root / "tmp" / "told").read_text() == " yes\n"


class TestLaterVersions:
    """Of 1.2 and 1.3: the runc of Debian 12 is older."""

    def test_memory_comes_from_the_nodes_that_the_policy_says(self, bundle: Bundle) -> None:
        if not Path("/proc/self/numa_maps").exists():
            pytest.skip("this kernel has no NUMA policies")
        bundle.value["linux"]["memoryPolicy"] = {
            "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"],
        }  # fmt: skip
        bundle.script("head -n 1 /proc/self/numa_maps")
        assert bundle.run("lab-oci").output.split()[1] == "bind=static:0"

    def test_a_policy_that_the_host_can_not_have_is_told_by_its_name(self, bundle: Bundle) -> None:
        bundle.value["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "1000"}
        ended = bundle.run("lab-oci", check=False)
        assert ended.exit_code != 0
        assert "linux.memoryPolicy: Invalid argument" in ended.errors

    @pytest.mark.parametrize(
        ("version", "ends"),
        [
            pytest.param("1.0.2", False, marks=pytest.mark.nightly),
            ("1.2.1", False),
            ("1.3.0-rc.1", True),
            ("1.3.0", True),
        ],
    )
    def test_a_poststart_hook_that_fails_ends_a_container_of_today(
        self, bundle: Bundle, version: str, ends: bool
    ) -> None:
        told = bundle.folder / "told"
        after = {"path": shutil.which("sh"), "args": ["sh", "-c", f"echo stopped > {told}"]}
        broken = {"path": shutil.which("sh"), "args": ["sh", "-c", "echo broken >&2; exit 7"]}
        bundle.value["ociVersion"] = version
        bundle.value["hooks"] = {"poststart": [broken], "poststop": [after]}
        bundle.script(f"sleep {50 if ends else 1}; echo went on")
        ended = bundle.run("lab-oci", check=False)
        assert ("went on" in ended.output) != ends
        assert (ended.exit_code != 0) == ends
        assert "broken" in ended.log
        assert told.read_text() == "stopped\n", "it is deleted in either way"
        assert not list((bundle.folder / "state").glob("*"))

    def test_network_devices_are_moved_with_their_addresses(self, bundle: Bundle) -> None:
        bundle.value["linux"]["netDevices"] = {"one": {"name": "inside"}, "two": {"name": "new%d"}}
        bundle.script("ip addr; ip route")
        ended = bundle.run("lab-oci", prefix=with_devices(), check=False)
        assert ended.exit_code == 0, ended.errors
        assert re.search(r"inside@?.*UP.*mtu 1400", ended.output)
        assert re.search(r"new0@?.*UP", ended.output)
        assert "inet 192.0.2.5/24" in ended.output
        assert "inet6 2001:db8::5/64" in ended.output
        assert "192.0.2.0/24 dev inside" in ended.output

    @pytest.mark.parametrize(
        ("devices", "complaint"),
        [
            ({"two": {}, "absent": {}}, "absent: there is no such network device"),
            ({"two": {}, "one": {"name": "lo"}}, "one: the container has a network device lo"),
        ],
    )
    def test_devices_are_moved_back_when_one_can_not_be(
        self, bundle: Bundle, devices: dict[str, object], complaint: str
    ) -> None:
        bundle.value["linux"]["netDevices"] = devices
        after = ["sh", "-c", '"$@"; code=$?; ip addr show two; exit $code', "sh"]
        ended = bundle.run("lab-oci", prefix=[*with_devices(), *after], check=False)
        assert ended.exit_code != 0
        assert complaint in ended.errors
        assert "two" in ended.output, "the host has it again"

    def test_a_device_whose_address_is_refused_inside_comes_back_with_all_of_them(self, bundle: Bundle) -> None:
        """With the container's namespace it would end."""
        bundle.value["linux"]["netDevices"] = {"one": {"name": "inside"}}
        bundle.value["linux"]["sysctl"] = {f"net.ipv6.conf.{name}.disable_ipv6": "1" for name in ("all", "default")}
        after = ["sh", "-c", '"$@"; code=$?; ip addr show one; exit $code', "sh"]
        ended = bundle.run("lab-oci", prefix=[*with_devices(), *after], check=False)
        assert ended.exit_code != 0
        assert "one: " in ended.errors
        assert re.search(r"one@.*UP", ended.output)
        assert "inet 192.0.2.5/24" in ended.output
        assert "inet6 2001:db8::5/64" in ended.output

    def test_network_devices_take_a_network_namespace(self, bundle: Bundle) -> None:
        spaces = bundle.value["linux"]["namespaces"]
        bundle.value["linux"] |= {
            "namespaces": [space for space in spaces if space["type"] != "network"],
            "netDevices": {"one": {}},
        }
        assert "linux.netDevices is given without a network namespace" in bundle.run("lab-oci", check=False).errors

    def test_a_class_of_service_takes_a_resctrl_file_system(self, bundle: Bundle) -> None:
        if " resctrl " in Path("/proc/mounts").read_text():
            pytest.skip("this host has one")
        bundle.value["linux"]["intelRdt"] = {"closID": "x"}
        ended = bundle.run("lab-oci", check=False)
        assert ended.exit_code == 1
        assert "no resctrl file system is mounted" in ended.errors
        assert not list((bundle.folder / "state").glob("*"))

    @pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", versions.NEWEST])
    def test_bundles_of_every_version_run(self, bundle: Bundle, version: str) -> None:
        bundle.value["ociVersion"] = version
        assert "ociVersion" not in bundle.run("lab-oci").log

    def test_a_bundle_of_a_later_version_is_run_and_told(self, bundle: Bundle) -> None:
        bundle.value["ociVersion"] = "1.9.0"
        assert "ociVersion 1.9.0 is later than" in bundle.run("lab-oci").log

    def test_a_user_namespace_without_mappings_is_refused(self, bundle: Bundle, runtime: str) -> None:
        """Nobody has a number in there: the configured user can't be set, which is an error (runtime.md "Create")."""
        bundle.value["linux"]["namespaces"].append({"type": "user"})
        assert bundle.run(runtime, check=False).exit_code != 0


def with_devices() -> list[str]:
    """Words in front of a command: in a network of its own, with a pair of devices."""
    make = "ip link add one type veth peer name two && ip link set one mtu 1400 && ip link set two up && "
    make += "ip addr add 192.0.2.5/24 dev one && ip addr add 2001:db8::5/64 dev one nodad && ip link set one up"
    return ["unshare", "--net", "sh", "-c", f'{make} && exec "$@"', "sh"]


class TestWhatTheSpecificationAsks:
    """Sentences of it that no other test holds."""

    def test_the_score_of_the_oom_killer_stays_if_nobody_asks(self, bundle: Bundle, runtime: str) -> None:
        bundle.script("cat /proc/self/oom_score_adj")
        words = ["sh", "-c", 'echo 77 > /proc/self/oom_score_adj; exec "$@"', "sh"]
        assert bundle.run(runtime, prefix=words).output == "77\n"

    def test_mounts_are_made_in_order_and_from_the_root(self, bundle: Bundle, runtime: str) -> None:
        source = bundle.folder / "source"
        source.mkdir()
        (source / "file").touch()
        bundle.mount("over", type="tmpfs", source="tmpfs")
        bundle.mount("/over/below", source="source", options=["bind"])
        bundle.script("ls /over /over/below; awk '$2 ~ /^.over/ {print $2, $3}' /proc/mounts | head -n 1")
        assert bundle.run(runtime).output.split() == ["/over:", "below", "/over/below:", "file", "/over", "tmpfs"]

    def test_a_namespace_of_another_kind_is_refused(self, bundle: Bundle, runtime: str) -> None:
        spaces = bundle.value["linux"]["namespaces"]
        others = [space for space in spaces if space["type"] != "ipc"]
        bundle.value["linux"]["namespaces"] = [*others, {"type": "ipc", "path": "/proc/self/ns/uts"}]
        assert bundle.run(runtime, check=False).exit_code != 0

    @pytest.mark.parametrize("prepared", [False, True])
    def test_the_default_devices_are_there_without_a_mount_on_dev(
        self, bundle: Bundle, runtime: str, prepared: bool
    ) -> None:
        """In the root's own /dev, where they stay; what is there is left as it is."""
        bundle.value["mounts"] = bundle.value["mounts"][:1]  # /proc
        if prepared:
            (bundle.root / "dev").mkdir()
            (bundle.root / "dev" / "zero").write_text("of the image's")
            (bundle.root / "dev" / "stdin").symlink_to("null")
        nodes = "busybox stat -c '%n %t:%T %a' null full random urandom tty"
        bundle.script(f"cd /dev; {nodes}; for each in ptmx fd stdout stderr; do readlink $each; done")
        expected = ["null 1:3 666", "full 1:7 666", "random 1:8 666", "urandom 1:9 666", "tty 5:0 666"]
        links = ["pts/ptmx", "/proc/self/fd", "/proc/self/fd/1", "/proc/self/fd/2"]
        assert bundle.run(runtime).output.splitlines() == expected + links
        assert bundle.run(runtime).output.splitlines() == expected + links, "again, with what is left of the first"
        if prepared:
            assert (bundle.root / "dev" / "zero").read_text() == "of the image's"

    def test_a_device_is_not_put_over_something_else(self, bundle: Bundle) -> None:
        (bundle.root / "taken").write_text("text")
        bundle.value["linux"]["devices"] = [{"path": "/taken", "type": "c", "major": 1, "minor": 3}]
        ended = bundle.run("lab-oci", check=False)
        assert ended.exit_code != 0
        assert "/taken" in ended.errors
        assert (bundle.root / "taken").read_text() == "text"

    def test_a_size_without_a_terminal_is_ignored(self, bundle: Bundle, runtime: str) -> None:
        bundle.value["process"]["consoleSize"] = {"height": 10, "width": 20}
        bundle.script("echo ran")
        assert bundle.run(runtime).output == "ran\n"

    @pytest.mark.parametrize("option", ["idmap", "ridmap"])
    def test_ids_of_a_mount_are_mapped_as_far_as_it_says(self, bundle: Bundle, option: str) -> None:
        """ridmap reaches what is mounted below."""
        source = bundle.folder / "source"
        (source / "below").mkdir(parents=True)
        mapping = [{"containerID": 0, "hostID": 5000, "size": 1000}]
        bundle.mount("/bound", source="source", options=["rbind", option], uidMappings=mapping, gidMappings=mapping)
        bundle.script("busybox stat -c %u /bound /bound/below")
        made = f"mount -t tmpfs -o mode=755 none {source}/below"
        ended = bundle.run("lab-oci", prefix=["unshare", "--mount", "sh", "-c", f'{made} && exec "$@"', "sh"])
        assert ended.output.split() == ["5000", "5000" if option == "ridmap" else "0"]

    def test_a_mapping_without_a_map_is_refused(self, bundle: Bundle) -> None:
        bundle.mount("/bound", source="rootfs", options=["bind", "idmap"])
        assert "mounts[3] maps ids, but says not how" in bundle.run("lab-oci", check=False).errors
