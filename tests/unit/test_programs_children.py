"""What a runtime of others leaves to lab's process is found by its group."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from lab.backends.support.programs import children

USERS = "/user.slice/user-1000.slice/user@1000.service/app.slice"


@pytest.mark.parametrize(
    ("line", "is_in"),
    [
        ("0::/lab-12ab34cd.scope/instances/web", True),
        ("0::/lab-12ab34cd.scope/instances/web/inner (deleted)", True),
        (f"0::{USERS}/lab-12ab34cd.scope/instances/web", True),
        (f"0::{USERS}/lab-12ab34cd.scope/instances/web (deleted)", True),
        (f"0::{USERS}/lab-12ab34cd.scope/instances/web2", False),
        (f"0::{USERS}/lab-12ab34cd.scope/instances", False),
        ("0::/lab-99999999.scope/instances/web", False),
    ],
)
def test_in_a_group_wherever_the_part_lies_that_was_delegated(tmp_path: Path, line: str, is_in: bool) -> None:
    (tmp_path / "cgroup").write_text(f"{line}\n")
    assert children._is_in(tmp_path, PurePath("lab-12ab34cd.scope/instances/web")) == is_in
