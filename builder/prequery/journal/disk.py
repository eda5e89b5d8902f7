"""The system calls that durability rests on, and nothing else.

They stand in one class so that the crash simulator of the tests can note every one of them and
compute what a disk may hold after the power fails between any two.
"""

import errno
import os
from pathlib import Path


class Disk:
    """A local file system."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder with its parents, and bring their names to the disk itself."""
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for each in missing:
            self.sync_folder(each.parent)

    def create(self, path: Path) -> int:
        """Create a private file that was not there, and return its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, file: int, data: bytes) -> None:
        """Write all of it, or raise what keeps the rest from being written."""
        written = os.write(file, data)
        while written < len(data):  # a full disk takes a part first, and says why at the next call
            written += os.write(file, data[written:])

    def sync(self, file: int) -> None:
        """Bring a file's content to the disk itself."""
        os.fdatasync(file)

    def link(self, old: Path, new: Path) -> None:
        """Give a file a second name that was not there."""
        os.link(old, new)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Take a name away; nothing happens when it is gone already."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Bring the names in a folder to the disk itself."""
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems have no such call
                raise
        finally:
            os.close(file)
