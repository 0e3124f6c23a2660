"""What an index folder refers to: plain files inside it, and folders and files outside, which survive moving.

A folder may come from anybody, so nothing outside it is opened because a file inside says so.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dciml.errors import ModelError


def check_inside(file: Path) -> None:
    """Refuse a file of an index that is a link out of its folder, or a pipe, device or folder.

    A file that is missing passes: what opens it says so.

    Raises:
        ModelError: it is not a plain file in its folder.
    """
    try:
        status = file.lstat()
        if stat.S_ISLNK(status.st_mode):
            target = file.resolve(strict=True)
            if not target.is_relative_to(file.parent.resolve()):
                raise ModelError(
                    f"{file}: this is a link that leads out of the index folder. To mend it: put the file itself there."
                )
            status = target.stat()
    except FileNotFoundError:
        return
    except RuntimeError as error:  # links in a circle
        raise ModelError(
            f"{file}: this link leads nowhere. To mend it: put the file itself there."
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{file}: this is not a plain file. To mend it: restore a backup of the index.")


@dataclass(frozen=True)
class FolderReference:
    """A folder (or a file) as seen from the index folder (None: no way, as between drives) and from the root.

    >>> str(FolderReference.to(Path("/data/models/m"), Path("/data/index")).relative)
    '../models/m'
    """

    relative: str | None
    absolute: str

    def __post_init__(self) -> None:
        if not isinstance(self.relative, str | None) or not isinstance(self.absolute, str):
            raise TypeError(f"{self.relative!r}, {self.absolute!r} are no paths")

    @classmethod
    def to(cls, folder: Path, index_folder: Path) -> FolderReference:
        """The reference to `folder` that an index at `index_folder` keeps."""
        absolute = folder.absolute().resolve()
        try:
            relative = Path(os.path.relpath(absolute, index_folder.absolute().resolve())).as_posix()
        except ValueError:  # another drive
            return cls(None, str(absolute))
        return cls(relative, str(absolute))

    def resolve(self, index_folder: Path, *, what: str, option: str) -> Path:
        """The folder as it is found now: first beside the index, else where it was at first.

        Args:
            what: names the folder in the error, such as "model".
            option: the command-line option that takes its new place, such as "--model".
        Raises:
            ModelError: it is in neither place; the message lists both and names the option.
        """
        places = self._places(index_folder)
        for place in places:
            if place.exists():
                return place
        tried = " and ".join(dict.fromkeys(str(place) for place in places))
        raise ModelError(
            f"{index_folder}: the {what} folder of this index is gone (looked at {tried}). "
            f"To mend it: move it back, or say where it is now with {option} FOLDER."
        )

    def find(self, index_folder: Path) -> str:
        """As `resolve`, but where it was at first when it is in neither place."""
        found = (str(place) for place in self._places(index_folder) if place.exists())
        return next(found, self.absolute)

    def _places(self, index_folder: Path) -> list[Path]:
        if self.relative is None:
            return [Path(self.absolute)]
        # Links on the way are not followed: a file that was replaced by one must be seen as what it is.
        beside = os.path.normpath(index_folder.absolute().resolve() / self.relative)
        return [Path(beside), Path(self.absolute)]
