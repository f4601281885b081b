"""What every backend must do, whatever it is made of: the same assertions for all of them."""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import GREETING

from lab.backends.site import Site
from lab.errors import LabError
from lab.experiment.scenarios.looking import observe
from lab.images.process import resolve
from lab.images.store import Image
from lab.instance import Instance, LaunchRequest
from lab.model import Accelerator, Kernel, Limits, Phase, PublishedPort

MIB = 1 << 20
LIMITS = Limits(memory_bytes=256 * MIB, cpus=1.0, pids=64)
PORT = 8000


def request(site: Site, image: Image, name: str, *argv: str, logs: Path, **more: object) -> LaunchRequest:
    """One instance of ``image`` that executes ``argv``, or the image's own command."""
    logs.mkdir(parents=True, exist_ok=True)
    process = resolve(image, site.store.lower_directories(image), argv=argv, environment={"GREETING": "good day"})
    fields: dict[str, object] = {"limits": LIMITS, **more}
    return LaunchRequest(name=name, image=image, process=process, log_directory=logs, **fields)  # type: ignore[arg-type]


def skip_without_kvm(site: Site, backend: str) -> None:
    """libkrun has nothing but KVM. Its guest is tested without (test_krun_guest.py), all of it in tests/machines."""
    if backend == "krun" and site.accelerator is not Accelerator.KVM:
        pytest.skip("libkrun runs under KVM alone")


def as_user(wanted: LaunchRequest, uid: int) -> LaunchRequest:
    """The same, by another user and group."""
    return replace(wanted, process=replace(wanted.process, uid=uid, gid=uid))


def check_exit_code_and_output(site: Site, backend: str, image: Image, logs: Path) -> None:
    """Output arrives in the log and besides, and the exit code is the application's."""
    read, write = os.pipe()
    script = "echo out $GREETING; echo err >&2; id -u; exit 7"
    wanted = request(site, image, "seven", "sh", "-c", script, logs=logs, stdout=write)
    with site.backend(backend).launch(wanted) as instance:
        assert instance.wait(120) == 7
    os.close(write)
    with os.fdopen(read, "rb") as besides:
        assert besides.read() == b"out good day\n0\n"
    assert (logs / "stdout.log").read_bytes() == b"out good day\n0\n"
    assert (logs / "stderr.log").read_bytes() == b"err\n"
    check_gone(site, instance)
    check_timeline(site, backend, instance)


def check_timeline(site: Site, backend: str, instance: Instance) -> None:
    """The phases of its life are all there, in their order."""
    stamps = instance.timeline.stamps()
    wanted = [Phase.REQUESTED, Phase.ISOLATED, Phase.INIT, Phase.EXECUTED, Phase.STOPPING, Phase.GONE]
    if site.backend(backend).reference:  # another's runtime need not show when its first process runs
        wanted.remove(Phase.INIT)
    if site.backend(backend).kernel is Kernel.OWN:
        wanted.insert(2, Phase.KERNEL)
    assert set(stamps) >= set(wanted)
    assert sorted(wanted, key=stamps.__getitem__) == wanted


def check_gone(site: Site, instance: Instance) -> None:
    """Nothing is left of it: no cgroup, no process, no link, no scratch."""
    assert not instance.cgroup.exists()
    assert site.network.links() == {"lo", "lab0"}
    assert not (site.scratch / instance.name).exists()
    instance.stop()  # once more is as good as once


def serve(site: Site, backend: str, image: Image, logs: Path) -> Instance:
    """The image's web server, with its port published on one that the kernel chooses."""
    port = PublishedPort(host_port=0, instance_port=PORT)
    return site.backend(backend).launch(request(site, image, "web", logs=logs, published=(port,)))


def check_port_is_found(site: Site, backend: str, instance: Instance) -> None:
    """Nobody says where it listens: its sockets are asked inside, and the port from outside."""
    seen = observe(instance, site.backend(backend), site.network, frozenset(), "/")
    assert (seen.ports, dict(seen.answers), seen.exit_code) == ((PORT,), {PORT: 200}, None), seen


def check_serves(site: Site, instance: Instance) -> None:
    """It answers lab's client on the bridge, and the host's through the published port."""
    until_listening(site, instance)
    with site.network.socket() as client:
        client.settimeout(120)
        client.connect((str(instance.address), PORT))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert _answer(client).endswith(GREETING.encode())
    published = instance.published[0]
    assert published.instance_port == PORT
    with urllib.request.urlopen(f"http://127.0.0.1:{published.host_port}/", timeout=120) as response:
        assert response.read().decode() == GREETING
    check_pauses(site, instance)


def check_pauses(site: Site, instance: Instance) -> None:
    """Paused it answers nobody, and whoever has asked meanwhile once it goes on."""
    with site.network.socket() as client:
        client.settimeout(120)
        client.connect((str(instance.address), PORT))
        instance.pause()
        try:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                _answer(client)
        finally:
            instance.resume()
        client.settimeout(120)
        assert _answer(client).endswith(GREETING.encode())


def _answer(client: socket.socket) -> bytes:
    answer = b""
    while chunk := client.recv(65536):
        answer += chunk
    return answer


def until_listening(site: Site, instance: Instance, timeout_seconds: float = 240) -> None:
    """Connect until someone accepts."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        with site.network.socket() as client:
            client.settimeout(0.5)
            try:
                client.connect((str(instance.address), PORT))
                return
            except OSError:
                assert time.monotonic() < deadline, f"{instance.name} never listened"
        time.sleep(0.02)


def check_commands(instance: Instance) -> None:
    """Commands run inside, as root, with their input, output and exit code."""
    done = instance.execute(["sh", "-c", "cat; id -u; echo to stderr >&2; exit 3"], stdin=b"given\n")
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"given\n0\n", b"to stderr\n")
    assert instance.execute(["cat", "/srv/index.html"]).stdout.decode() == GREETING
    assert json.loads(instance.inside("stat", "/srv/index.html").stdout)
    assert instance.execute(["sh", "-c", "exit 255"]).exit_code == 255


def check_too_much_output(instance: Instance) -> None:
    """What a command writes without end is not kept until its time is over."""
    with pytest.raises(LabError, match="wrote more than"):
        instance.execute(["cat", "/dev/zero"], timeout_seconds=300)
    assert instance.execute(["echo", "still here"]).stdout == b"still here\n"


def check_a_child_left_behind(instance: Instance) -> None:
    """A command has ended when its own process has, although a child of it holds the output open."""
    left = instance.execute(["sh", "-c", "sleep 600 & echo gone"], timeout_seconds=120)
    assert left.stdout == b"gone\n"


def check_limits(site: Site, backend: str, instance: Instance) -> None:
    """The limits asked for are those in force: of the cgroup, or of the guest that is as large as they say."""
    if site.backend(backend).kernel is not Kernel.OWN:
        assert instance.cgroup.effective_limits() == LIMITS
        return
    total = instance.execute(["sh", "-c", "grep MemTotal /proc/meminfo; nproc"]).stdout.decode().split()
    assert 0.7 * 256 * MIB < int(total[1]) * 1024 <= 256 * MIB  # the kernel keeps some for itself
    assert total[-1] == "1"


def check_accounted(instance: Instance) -> None:
    """Every host process of it is in its cgroup, and so is the memory they use."""
    assert instance.cgroup.processes()
    assert instance.cgroup.memory().usage_bytes > 0


def check_writes_stay(site: Site, backend: str, image: Image, logs: Path, instance: Instance) -> None:
    """What one copy writes no other copy sees, and the image is never changed."""
    instance.execute(["sh", "-c", "echo changed >/srv/index.html"])
    lowest = site.store.lower_directories(image)[-1]
    assert (lowest / "srv/index.html").read_text() == GREETING


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
