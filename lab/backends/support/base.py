"""What every backend of this package has in common: the site it works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import ImageError, LabError, LaunchError, LimitError
from lab.images.process import stop_signal_of
from lab.images.tree import Tree
from lab.instance import Backend, Instance, LaunchRequest, Survivor

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts


class SiteBackend(Backend):
    """A backend that makes instances on one site: in its session, its network, from its image store."""

    def __init__(self, site: SharedParts) -> None:
        self.site = site

    def adopt(self, request: LaunchRequest, survivor: Survivor) -> Instance:
        """What works for every backend: to watch it, signal it, stop it. Commands inside are for others to add."""
        from lab.backends.support.survivor import BareInstance

        return BareInstance(self.name, self.site, request, survivor, stop_signal=stop_signal_of(request.image))

    def files_left(self, request: LaunchRequest) -> Tree:
        """The image's files for an adopted instance. Of an image that was removed there are none any more: then
        `lab exec --user` knows users by their number alone.
        """
        try:
            return Tree(self.site.store.lower_directories(request.image))
        except ImageError:
            return Tree(())


def raise_as_launch_error(error: BaseException) -> None:
    """What stopped a launch, as the contract has it: LaunchError, or LimitError. Returns when it is neither's."""
    if isinstance(error, LabError) and not isinstance(error, LaunchError | LimitError):
        raise LaunchError(error.message, hint=error.hint, detail=error.detail, exit_code=125) from error
