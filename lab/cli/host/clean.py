"""``lab clean``: remove what killed lab processes left behind, and nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.privilege import become_root_if_possible


def clean(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
) -> None:
    """Remove what killed lab processes left behind.

    That is processes, cgroups, scratch files and sessions' folders; and of detached instances that have ended without
    their supervisor, what `lab ps` found out about that is written down.
    Sessions of living lab processes and of living instances, images and results are never touched. Other lab
    commands do the same for dead sessions when they start.
    """
    from lab.host.home import home
    from lab.host.identity import privilege
    from lab.host.session.ledger import Resource, ResourceKind, clean_stale, leftovers, stale_sessions
    from lab.host.session.orphans import describe, orphan_groups, orphan_scratch
    from lab.images.space.scratch import clean_scratch, stale_scratch
    from lab.supervisor.record import mend

    become_root_if_possible()
    if dry_run:
        lines = [line for folder in stale_sessions() for line in leftovers(folder)]
        lines += [describe(group) for group in orphan_groups()]
        lines += [f"scratch {folder}" for folder in orphan_scratch(home()) + stale_scratch(home())]
    else:
        lines = clean_stale()
        for group in orphan_groups():
            group.remove()
            lines.append(describe(group))
        for folder in orphan_scratch(home()):
            Resource(kind=ResourceKind.DIRECTORY, name=str(folder)).remove()
            lines.append(f"scratch {folder}")
        lines += [f"scratch {folder}" for folder in clean_scratch(home())]
    for line in lines:
        print(f"{'would remove' if dry_run else 'removed'} {line}")
    settled = mend(dry_run=dry_run)
    for line in settled:
        print(f"{'would settle' if dry_run else 'settled'} {line}")
    if not lines + settled:
        print(
            "nothing to clean"
            if privilege.is_system_wide()
            else f"nothing of yours to clean; root's: {privilege.remedy('clean')}"
        )
