"""A lab in place of lab, for tests of sweeps: it "measures" by copying a made-up run, and notes each time it did.

As the real one it leaves a run that has not ended when it is interrupted, and goes on with that on --resume.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from contextlib import suppress
from pathlib import Path

SCENARIO = "web-app"  # the made-up run's
LAB = r"""#!/bin/sh
# build DIR … --iidfile FILE | compare DIR … --out RUNS --json | compare --resume RUN --json
set -e
verb=$1 out= resume=
while [ $# -gt 0 ]; do
    case $1 in
        --iidfile) printf %s "$(cat {own}/digest)" > "$2" ;;
        --out) out=$2 ;;
        --resume) resume=$2 ;;
    esac
    shift
done
[ "$verb" = compare ] || exit 0
echo "$$ ${{resume:+again}}" >> {own}/began
if [ -e {own}/fails ]; then echo "lab: it was told to fail" >&2; exit 1; fi
run=$resume
if [ -z "$run" ]; then
    run=$out/measured-$$
    mkdir -p "$run"
    sed 's/"ended_because": *"[^"]*"/"ended_because": ""/' {template}/run.json > "$run/run.json"
fi
trap 'kill $pause; exit 130' INT TERM
sleep "$(cat {own}/seconds)" & pause=$!
wait $pause
trap '' INT TERM  # from here on it is measured, and is noted to be
cp -rn {template}/. "$run"
sed "s/0123456789ab/$(cat {own}/identity)/" {template}/run.json > "$run/run.json.new"
mv "$run/run.json.new" "$run/run.json"
echo "$$" >> {own}/measured
"""


def template(folder: Path) -> Path:
    """A complete run of `SCENARIO`, to be copied."""
    from synthetic import write_run

    from lab.results.record import Ending

    made = write_run(folder, blocks=4)
    made.finish(Ending.BLOCKS)
    return made.path


def write_lab(own: Path, template: Path, *, seconds: float = 0.0, digest: str = "") -> Path:
    """The program, which keeps in ``own`` what it was told, and what it did: a line a measurement."""
    from synthetic import DIGEST

    own.mkdir(parents=True, exist_ok=True)
    (own / "digest").write_text(digest or DIGEST)
    (own / "identity").write_text(hashlib.sha256(str(own).encode()).hexdigest()[:12])
    (own / "seconds").write_text(f"{seconds:g}")
    path = own / "lab"
    path.write_text(LAB.format(own=shlex.quote(str(own)), template=shlex.quote(str(template))))
    path.chmod(0o755)
    return path


def lines(path: Path) -> list[str]:
    """None where there is no file."""
    return path.read_text().splitlines() if path.exists() else []


def answer(lab: str) -> None:
    """As ``lab sweep host`` does, with the program ``lab`` in lab's place, and without looking long at a host."""
    from lab.commands import polite
    from lab.commands.interrupt import Interruptible
    from lab.commands.sweeping.host import serve

    polite.LOOK_SECONDS = 0.1
    with suppress(KeyboardInterrupt), Interruptible():
        serve([], lab=(lab,))


if __name__ == "__main__":
    answer(sys.argv[1])
