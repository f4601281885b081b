"""Fuzz one target, guided by coverage: python guided.py TARGET RUNS SEED FOLDER (atheris, which is libFuzzer).

What crashes it is left in FOLDER as a file, beside what has led there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lab"]):
    from targets import TARGETS

MEMORY_MIB = 12 << 10
"""The parser of Dockerfiles gives some 5 to 15 KiB of each file never back: a million of them need it."""


def main() -> None:
    name, runs, seed, folder = sys.argv[1:5]
    target = TARGETS[name]
    corpus = Path(folder) / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(content)
    options = [f"-runs={runs}", f"-seed={seed}", "-max_len=8192", f"-artifact_prefix={folder}/", "-timeout=20"]
    atheris.Setup([sys.argv[0], *options, f"-rss_limit_mb={MEMORY_MIB}", str(corpus)], target.carry_out)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
