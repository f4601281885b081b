"""Packs modules of the distribution as a registry would, into npm's cache, and locks a project to them.

    python3 lock.py PROJECT CACHE MODULE…

``npm ci --offline`` finds a package in the cache by the hash in package-lock.json, whatever its address.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MODULES = Path("/usr/share/nodejs")


def npm(*words: str, where: str) -> str:
    return subprocess.run(["npm", *words], cwd=where, check=True, capture_output=True, text=True).stdout


def packed(module: str, cache: str) -> dict[str, object]:
    """The module's entry in a package-lock.json (version 3), and its archive in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        (made,) = json.loads(npm("pack", "--json", "--ignore-scripts", str(MODULES / module), where=folder))
        npm("cache", "add", f"./{made['filename']}", "--cache", cache, where=folder)
    needs = json.loads((MODULES / module / "package.json").read_text()).get("dependencies", {})
    return {
        "version": made["version"],
        "resolved": f"https://registry.invalid/{module}/-/{made['filename']}",
        "integrity": made["integrity"],
        **({"dependencies": needs} if needs else {}),
    }


def main(project: Path, cache: str, modules: list[str]) -> None:
    manifest = json.loads((project / "package.json").read_text())
    root = {key: manifest[key] for key in ("name", "version", "dependencies")}
    packages = {"": root, **{f"node_modules/{module}": packed(module, cache) for module in modules}}
    lock = {**root, "lockfileVersion": 3, "requires": True, "packages": packages}
    del lock["dependencies"]
    (project / "package-lock.json").write_text(json.dumps(lock, indent=2) + "\n")


main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
