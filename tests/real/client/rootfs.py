"""The inside of a built root file system, looked at without running anything of it."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

# How long the holder of a mount may take to end.
END_SECONDS = 20
# Mounts in a namespace of its own, says so, and holds the mount until its input ends. The image is of
# a frozen file system: its journal need not be, and with a read-only file cannot be, replayed.
HOLD = 'mount -t ext4 -o ro,noload,loop "$1" "$2" && echo mounted && exec cat'


class Node(NamedTuple):
    """What is at a path."""

    kind: str
    """`file`, `dir`, `link` or `other`."""
    mode: str
    owner: str
    """User and group, as numbers."""
    content: object
    """The text of a file, the names in a folder, the target of a link."""


def file(content: str, mode: str = "0644", owner: str = "0:0") -> Node:
    return Node("file", mode, owner, content)


def folder(*names: str, mode: str = "0755", owner: str = "0:0") -> Node:
    return Node("dir", mode, owner, list(names))


def link(target: str, owner: str = "0:0") -> Node:
    return Node("link", "0777", owner, target)


class Rootfs(AbstractContextManager["Rootfs"]):
    """The root file system in an image, mounted where no other process sees it."""

    def __init__(self, image: Path) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="nullspace-test-")
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", HOLD, "sh", image, self.folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None, "it is a pipe"
        if self.holder.stdout.readline() != "mounted\n":
            self.__exit__()
            raise AssertionError(f"{image} cannot be mounted")
        self.root = f"/proc/{self.holder.pid}/root{self.folder.name}"

    def __exit__(self, *_: object) -> None:
        assert self.holder.stdin is not None, "it is a pipe"
        # The namespace ends with its only process, and the mount with the namespace.
        self.holder.stdin.close()
        self.holder.wait(END_SECONDS)
        self.folder.cleanup()

    def host(self, path: str) -> str:
        """Where the path is for this process. Its folders must be real ones: links would lead out."""
        assert path.startswith("/"), path
        return self.root + path

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.host(path))

    def at(self, path: str) -> Node | None:
        """What is at the path; a link is not followed."""
        try:
            found = os.lstat(self.host(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        content: object = None
        kind = "other"
        if stat.S_ISREG(found.st_mode):
            kind, content = "file", Path(self.host(path)).read_bytes().decode(errors="replace")
        elif stat.S_ISDIR(found.st_mode):
            kind, content = "dir", sorted(os.listdir(self.host(path)))
        elif stat.S_ISLNK(found.st_mode):
            kind, content = "link", os.readlink(self.host(path))
        return Node(kind, f"{stat.S_IMODE(found.st_mode):04o}", f"{found.st_uid}:{found.st_gid}", content)

    def text(self, path: str) -> str:
        node = self.at(path)
        assert node is not None and node.kind == "file", f"{path} is a file ({node})"
        return str(node.content)

    def tree(self, path: str) -> dict[str, Node | None]:
        """Everything below a folder, by the path from there."""
        top = self.host(path)
        found: dict[str, Node | None] = {}
        for where, folders, files in os.walk(top):
            for name in folders + files:
                below = os.path.relpath(os.path.join(where, name), top)
                found[below] = self.at(f"{path}/{below}")
        return found
