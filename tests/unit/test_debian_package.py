"""What goes into lab's Debian package, made from little: tests/container/test_package_in_debian.py builds it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "debian"
CONDITIONS = re.compile(r"^([a-z0-9.+-]+)(?: \[([^\]]*)\])? *#", re.MULTILINE)


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dpkg() -> None:
    if not shutil.which("dpkg-query"):
        pytest.skip("no Debian")


@pytest.mark.usefixtures("dpkg")
def test_dependencies_are_those_of_packages_apt() -> None:
    done = subprocess.run([DEBIAN / "depends"], capture_output=True, text=True, check=True, timeout=60)
    fields = dict(line.split("=", 1) for line in done.stdout.splitlines())
    depends, suggests = (fields[f"lab:{name}"].split(", ") for name in ("Depends", "Suggests"))
    minor = sys.version_info.minor
    assert re.fullmatch(r"python3 \(>= 3\.(\d+)\)", depends[0])
    assert depends[1].startswith("python3 (<< 3.")
    assert minor >= 11
    words = {name: marks.split() for name, marks in CONDITIONS.findall((ROOT / "packages.apt").read_text())}
    asked = set(depends[2:])
    assert {"qemu-system-x86", "gcc", "uidmap", "mmdebstrap", "libvirt-daemon-driver-qemu"} <= asked
    assert asked == {each for each in asked if not {"tests", "required", "build", "reference"} & {*words[each]}}
    assert set(suggests) == {each for each in suggests if "reference" in words[each]}
    assert {"runc", "podman"} <= set(suggests)
    assert "util-linux" not in asked, "what is essential is no dependency (Debian policy, 3.5)"


@pytest.mark.usefixtures("dpkg")
def test_what_builds_it_is_what_packages_apt_says() -> None:
    done = subprocess.run([DEBIAN / "depends", "build"], capture_output=True, text=True, check=True, timeout=60)
    control = (DEBIAN / "control").read_text().replace("\n ", " ")
    asked = re.search(r"^Build-Depends:(.*)$", control, re.MULTILINE)
    assert asked is not None
    names = {word.split()[0] for word in asked[1].split(",")}
    assert names - {"debhelper-compat", "help2man", "python3"} == set(done.stdout.split())


def test_its_version_is_labs() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    head = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert head.startswith(f"lab ({version}) UNRELEASED;")


@pytest.mark.parametrize("script", ["depends", "man", "settle", "completions", "make", "../tools/deb"])
def test_scripts_parse_and_can_be_executed(script: str) -> None:
    subprocess.run(["bash", "-n", DEBIAN / script], check=True)
    assert (DEBIAN / script).stat().st_mode & 0o111


@pytest.mark.parametrize("script", ["lab.postinst", "lab.prerm", "lab.postrm", "lab.sh"])
def test_scripts_of_the_package_are_plain_sh(script: str) -> None:
    assert (DEBIAN / script).read_text().startswith("#!/bin/sh\n")
    subprocess.run(["dash" if shutil.which("dash") else "sh", "-n", DEBIAN / script], check=True)


def test_a_commands_page_is_its_own_help(tmp_path: Path) -> None:
    if not shutil.which("help2man"):
        pytest.skip("no help2man")
    programs = (f"{sys.executable} -m lab.cli.main", f"{sys.executable} -ISB {ROOT / 'lab/runtime/oci/lab-oci'}")
    words = ("7.8", *programs, tmp_path, "image ls")
    subprocess.run([DEBIAN / "man", *words], check=True, capture_output=True, timeout=250, cwd=ROOT)
    assert {path.name for path in tmp_path.iterdir()} == {"lab.1", "lab-oci.1", "lab-image-ls.1"}
    page = (tmp_path / "lab-image-ls.1").read_text()
    assert re.search(r'^\.TH LAB-IMAGE-LS "1" .* "lab 7\.8"', page, re.MULTILINE)
    assert "lab-image-ls \\- List the images" in page
    assert "\\fB\\-\\-json\\fR" in page
    for name in ("compare", "run", "doctor"):
        assert re.search(rf"^{name}$", (tmp_path / "lab.1").read_text(), re.MULTILINE), "each command is an entry"
    assert "???" not in (tmp_path / "lab-oci.1").read_text(), "… is one character"


def test_completions_are_where_shells_look(tmp_path: Path) -> None:
    subprocess.run([DEBIAN / "completions", sys.executable, tmp_path], check=True, timeout=60)
    bash = tmp_path / "bash-completion/completions/lab"
    for path in (bash, tmp_path / "zsh/vendor-completions/_lab", tmp_path / "fish/vendor_completions.d/lab.fish"):
        assert "_LAB_COMPLETE" in path.read_text()
    subprocess.run(["bash", "-euc", '. "$1"; complete -p lab', "-", bash], check=True, capture_output=True)


def distribution(packages: Path, name: str, metadata: str) -> Path:
    folder = packages / f"{name}-1.0.dist-info"
    (folder / "licenses").mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{metadata}\n")
    return folder


def test_who_made_what_is_told_from_metadata(tmp_path: Path) -> None:
    distribution(tmp_path, "modern", "License-Expression: MIT")
    distribution(tmp_path, "worded", "License: BSD\n" + "Classifier: License :: OSI Approved :: BSD License")
    text = "".join(f"\n        line {number} of the whole text" for number in range(9))
    distribution(
        tmp_path, "whole", f"License: Permitted is{text}\nClassifier: License :: OSI Approved :: ISC License"
    )
    distribution(tmp_path, "lab_boundaries", "").joinpath("METADATA").write_text(
        "Name: lab-boundaries\nVersion: 1.0\n"
    )
    (tmp_path / "modern-1.0.dist-info/licenses/LICENSE.txt").touch()
    (tmp_path / "modern.libs").mkdir()
    (tmp_path / "modern.libs/libfine.so.1").touch()
    told = loaded(ROOT / "tools/bundled.py").told(tmp_path, "/there").split("\n\n")
    assert [each.splitlines()[0] for each in told] == [
        "modern 1.0: MIT", "whole 1.0: ISC License", "worded 1.0: BSD",
    ]  # fmt: skip
    assert "/there/modern-1.0.dist-info/licenses/LICENSE.txt" in told[0]
    assert "libfine.so.1" in told[0]


def test_an_environment_is_settled_where_it_will_be(tmp_path: Path) -> None:
    made = tmp_path / "made"
    packages = made / "lib/python3.11/site-packages"
    for folder in (
        "bin",
        "include",
        "lib/python3.11/site-packages/lab/runtime/oci",
        "lib/python3.11/site-packages/a/tests",
    ):
        (made / folder).mkdir(parents=True)
    (made / "lib64").symlink_to("lib")
    for name in ("lab", "lab-oci", "f2py", "activate"):
        (made / "bin" / name).write_text(f"#!{made}/bin/python3\nmain()\n")
    (made / "bin/python3").symlink_to("/usr/bin/python3")
    (made / "pyvenv.cfg").write_text(f"home = /usr/bin\ncommand = /usr/bin/python3 -m venv {made}\n")
    (packages / "lab/runtime/oci/lab-oci").write_text("#!/usr/bin/python3 -IS\n")
    (packages / "a/tests/test_a.py").touch()
    subprocess.run([DEBIAN / "settle", made, "/usr/lib/lab"], check=True)
    assert {path.name for path in (made / "bin").iterdir()} == {"lab", "lab-oci", "python3"}
    assert (made / "bin/lab").read_text() == "#!/usr/lib/lab/bin/python3\nmain()\n"
    assert (made / "bin/lab-oci").samefile(packages / "lab/runtime/oci/lab-oci")
    assert {path.name for path in made.iterdir()} == {"bin", "lib", "pyvenv.cfg"}
    assert not (packages / "a/tests").exists()
    done = subprocess.run(["grep", "-rF", tmp_path, made], capture_output=True, text=True, check=False)
    assert done.stdout == "", "no path of where it was made"


def test_what_comes_with_lab_is_found_beside_it_or_in_its_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "lib/python3/site-packages/lab/host/installed.py"
    module.parent.mkdir(parents=True)
    shutil.copy(ROOT / "lab/host/installed.py", module)
    (tmp_path / "share/lab/scenarios").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    installed = loaded(module)
    assert installed.BOOTSTRAP == ""
    assert installed.shipped("scenarios") == str(tmp_path / "share/lab/scenarios")
    beside = module.parents[2]
    (beside / "bootstrap").touch()
    (beside / "scenarios").mkdir()
    checkout = loaded(module)
    assert checkout.BOOTSTRAP == "./bootstrap "
    assert checkout.shipped("scenarios") == str(beside / "scenarios")
    assert checkout.shipped("results/none") == str(beside / "results/none")
