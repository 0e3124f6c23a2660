"""Files of an index folder: plain files that lie in it. A folder may come from anybody, and links lead anywhere."""

from __future__ import annotations

import stat
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
