#!/usr/bin/env python3
"""Turns root file systems (Debian, and Debian with more packages) into images that share layers.

    oci-layout.py FOLDER BUN_STAND_IN LAYOUT_DIR

FOLDER holds debian.tar, python.tar, git.tar and node.tar. Every image stands on Debian's layer, so
that it is unpacked once; what more packages add is a layer of its own. Documentation is in layers of
its own too, which the slim images leave out. None of them is the official image of its name:

- `node:20` and `node:20-slim` hold Debian's Node.js, which is 18 in bookworm, with Debian's npm.
- `oven/bun:1` holds no Bun, which Debian does not have, but a script that does `bun add` by npm.
- `buildpack-deps:bookworm-scm` holds git and ssh, and no other version control.

Standard library only.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import posixpath
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Files that Debian's own slim images leave out; folders and links stay, packages rely on them.
DOCUMENTATION = ("usr/share/doc/", "usr/share/info/", "usr/share/locale/", "usr/share/man/")
# pip refuses to install beside Debian's packages while this marker is there; an image has no other
# user to protect.
EXTERNALLY_MANAGED = "usr/lib/python3.11/EXTERNALLY-MANAGED"
# What mmdebstrap leaves of the machine that made the image: left out, or emptied where programs look for it.
MAKERS_FILES = ("etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "etc/hostname")
MAKERS_RESOLVER = "etc/resolv.conf"
CREATED = "2023-11-14T22:13:20Z"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READ_BYTES = 1 << 20
GZIP_LEVEL = 5


@dataclass(frozen=True)
class Entry:
    """One name in a root file system, and what makes two of them the same."""

    info: tarfile.TarInfo
    identity: tuple[object, ...]


@dataclass(frozen=True)
class Layer:
    """A layer as the image configuration and the manifest name it."""

    diff_id: str
    digest: str
    size_bytes: int
    note: str


class RootFs:
    """A root file system in a tar, by name without the leading `./`."""

    def __init__(self, path: Path) -> None:
        self.tar = tarfile.open(path)
        self.entries: dict[str, Entry] = {}
        for info in self.tar:
            name = posixpath.normpath(info.name).lstrip("/")
            # Device nodes are the runtime's business.
            if name.startswith("dev/") or name == EXTERNALLY_MANAGED or name in MAKERS_FILES:
                continue
            info.name = name
            if name == MAKERS_RESOLVER:
                info.size, info.mode = 0, 0o644
            info.linkname = info.linkname if info.issym() else posixpath.normpath(info.linkname).lstrip("/")
            self.entries[name] = Entry(info, self.identity(info))

    def identity(self, info: tarfile.TarInfo) -> tuple[object, ...]:
        content: object = None
        if info.isreg():
            content = self.sha256(info)
        elif info.islnk():
            # A hard link changes when the file that it names does.
            content = self.entries[info.linkname].identity
        xattrs = tuple(sorted((k, v) for k, v in info.pax_headers.items() if k.startswith("SCHILY.xattr.")))
        return (info.type, info.mode, info.uid, info.gid, info.linkname, content, xattrs)

    def sha256(self, info: tarfile.TarInfo) -> str:
        digest = hashlib.sha256()
        with self.open(info) as content:
            while block := content.read(READ_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def open(self, info: tarfile.TarInfo) -> BinaryIO:
        content = self.tar.extractfile(info)
        assert content is not None, f"{info.name} is a regular file"
        return content


def is_documentation(entry: Entry) -> bool:
    info = entry.info
    if not (info.isreg() or info.islnk()) or posixpath.basename(info.name) == "copyright":
        return False
    return info.name.startswith(DOCUMENTATION)


def difference(base: RootFs, changed: RootFs) -> tuple[list[str], list[str]]:
    """The names to add or replace, and those to remove, to get from `base` to `changed`."""
    added = {n for n, e in changed.entries.items() if n not in base.entries or base.entries[n].identity != e.identity}
    # A new hard link to an old file needs that file in its own layer.
    added |= {changed.entries[n].info.linkname for n in added if changed.entries[n].info.islnk()}
    removed = [n for n in base.entries if n not in changed.entries]
    # Removing a folder removes what is in it.
    removed = [n for n in removed if posixpath.dirname(n) not in removed]
    return [n for n in changed.entries if n in added], removed


class Layout:
    """An OCI image layout folder."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self.blobs = folder / "blobs" / "sha256"
        self.folder = folder
        self.architecture = architecture
        self.manifests: list[dict[str, object]] = []
        self.blobs.mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def layer(self, root: RootFs, names: Iterable[str], removed: Iterable[str], note: str) -> Layer:
        def fill(tar: tarfile.TarFile) -> None:
            for name in removed:
                folder, base = posixpath.split(name)
                tar.addfile(tarfile.TarInfo(posixpath.join(folder, f".wh.{base}")))
            for name in names:
                info = root.entries[name].info
                tar.addfile(info, root.open(info) if info.isreg() else None)

        return self.write_layer(fill, note)

    def program_layer(self, name: str, program: Path, note: str) -> Layer:
        """A layer of one program."""

        def fill(tar: tarfile.TarFile) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = program.stat().st_size, 0o755, int(os.environ["SOURCE_DATE_EPOCH"])
            with open(program, "rb") as content:
                tar.addfile(info, content)

        return self.write_layer(fill, note)

    def write_layer(self, fill: Callable[[tarfile.TarFile], None], note: str) -> Layer:
        temporary = self.folder / "layer.tar.gz"
        with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as zipped:
            plain = Hashing(zipped)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                fill(tar)
        digest, size_bytes = self.adopt(temporary)
        return Layer(f"sha256:{plain.digest.hexdigest()}", digest, size_bytes, note)

    def adopt(self, file: Path) -> tuple[str, int]:
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        size_bytes = file.stat().st_size
        os.replace(file, self.blobs / digest)
        return f"sha256:{digest}", size_bytes

    def document(self, value: object, media_type: str) -> dict[str, object]:
        file = self.folder / "document"
        file.write_text(json.dumps(value, sort_keys=True))
        digest, size_bytes = self.adopt(file)
        return {"mediaType": media_type, "digest": digest, "size": size_bytes}

    def image(self, name: str, layers: list[Layer], command: str, description: str) -> None:
        title, _, version = name.partition(":")
        labels = {
            "org.opencontainers.image.title": title,
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.description": description,
        }
        config = {
            "created": CREATED,
            "architecture": self.architecture,
            "os": "linux",
            "config": {"Env": [f"PATH={PATH}", "LANG=C.UTF-8"], "Cmd": [command], "Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": CREATED, "created_by": layer.note} for layer in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.document(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": layer.digest,
                    "size": layer.size_bytes,
                }
                for layer in layers
            ],
            "annotations": labels,
        }
        descriptor = self.document(manifest, "application/vnd.oci.image.manifest.v1+json")
        descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.manifests.append(descriptor)
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))


class Hashing:
    """Passes bytes on and hashes them: the layer's diff id is that of the plain tar."""

    def __init__(self, sink: gzip.GzipFile) -> None:
        self.sink = sink
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.sink.write(data)


def add_python_link(root: RootFs) -> None:
    """`python` beside `python3`, as users of a Python image expect."""
    link = tarfile.TarInfo("usr/bin/python")
    link.type = tarfile.SYMTYPE
    link.linkname = "python3"
    link.mode = 0o777
    link.mtime = root.entries["usr/bin/python3"].info.mtime
    root.entries[link.name] = Entry(link, root.identity(link))


def main() -> None:
    tars, stand_in, folder = map(Path, sys.argv[1:])
    debian = RootFs(tars / "debian.tar")
    architecture = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout
    layout = Layout(folder, architecture.strip())

    def split(root: RootFs, names: Iterable[str]) -> tuple[list[str], list[str]]:
        names = list(names)
        documents = [n for n in names if is_documentation(root.entries[n])]
        return [n for n in names if n not in set(documents)], documents

    system, system_docs = split(debian, debian.entries)
    base = layout.layer(debian, system, [], "Debian 12, made with mmdebstrap")
    base_docs = layout.layer(debian, system_docs, [], "documentation and translations of Debian 12")

    def more(root: RootFs, what: str) -> tuple[Layer, Layer]:
        """The layers that a system with more packages adds to Debian's: without and with documentation only."""
        changed, removed = difference(debian, root)
        added, added_docs = split(root, changed)
        return layout.layer(root, added, removed, what), layout.layer(root, added_docs, [], f"documentation of {what}")

    minimal = "Debian 12 made with mmdebstrap, not the official image"
    layout.image("debian:bookworm", [base, base_docs], "bash", minimal)
    layout.image("debian:stable-slim", [base], "bash", f"{minimal}; documentation left out")

    python = RootFs(tars / "python.tar")
    add_python_link(python)
    snake, snake_docs = more(python, "Debian's python3, pip and venv")
    described = "Debian's Python 3.11, not the official image"
    layout.image("python:3.11", [base, base_docs, snake, snake_docs], "python3", described)
    layout.image("python:3.11-slim", [base, snake], "python3", f"{described}; documentation left out")

    git, _ = more(RootFs(tars / "git.tar"), "Debian's git and ssh")
    layout.image("buildpack-deps:bookworm-scm", [base, git], "bash", f"{minimal}; with git and ssh")

    node, node_docs = more(RootFs(tars / "node.tar"), "Debian's nodejs and npm")
    described = "Debian's Node.js 18 and npm, not the official image"
    layout.image("node:20", [base, base_docs, node, node_docs], "node", described)
    layout.image("node:20-slim", [base, node], "node", f"{described}; documentation left out")

    bun = layout.program_layer("usr/local/bin/bun", stand_in, "a stand-in for bun that calls npm")
    layout.image("oven/bun:1", [base, node, bun], "bash", "a stand-in that does `bun add` by npm, not Bun")


if __name__ == "__main__":
    main()
