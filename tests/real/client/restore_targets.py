"""Templates that the operator's scenarios restore, under names that both sides know."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from common import DEBIAN_IMAGE, PYTHON_IMAGE, equal, holds, main
from nullspace import Template, TemplateBuild, wait_for_port
from nullspace.types import TemplateBuildLogEntry, TemplateBuildLogKind, TemplateBuildStatus

BEGUN = "restored-begun"
PLAIN = "restored-plain"


def web() -> None:
    """A server over a copied file; built once, however often it is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hello.txt").write_text("hello from the context\n")
        template = (
            Template.from_python_image(PYTHON_IMAGE)
            .set_file_context(folder)
            .copy("hello.txt", "/srv/")
            .set_start_cmd("cd /srv && exec python3 -m http.server 8000", wait_for_port(8000))
        )
        built = Template.build(template, "restored-web", disk_mb=2048)
    equal(built.status, TemplateBuildStatus.READY, "status")


def large_disk() -> None:
    built = Template.build(Template.from_image(DEBIAN_IMAGE), "restored-large", disk_mb=4096)
    equal(built.status, TemplateBuildStatus.READY, "status")


def plain() -> None:
    built = Template.build(Template.from_image(DEBIAN_IMAGE).run("echo made > /made"), PLAIN)
    equal(built.status, TemplateBuildStatus.READY, "status")


def plain_is_there() -> None:
    holds(Template.exists(PLAIN), f"{PLAIN} exists after a restart")
    holds(PLAIN in [template.name for template in Template.list()], f"{PLAIN} is listed")


def begun() -> None:
    """Leaves a build whose step is running, and prints its id."""
    build = Template.build_in_background(
        Template.from_image(DEBIAN_IMAGE).run("echo begun; sleep 5; echo over > /over"), BEGUN
    )
    for entry in build.logs(follow=True):
        if entry.message == "begun":
            print(build.build_id)
            return
    raise AssertionError("the step never began")


def begun_ends_ready() -> None:
    """The build that a killed service left is tried again by itself."""
    entries: list[TemplateBuildLogEntry] = []
    build = TemplateBuild.connect(os.environ["NULLSPACE_TEST_BUILD"])
    build.wait_until_terminal(on_log_entry=entries.append)
    equal(build.get_status().build.status, TemplateBuildStatus.READY, "status")
    retries = [entry for entry in entries if entry.kind == TemplateBuildLogKind.RETRY]
    equal(len(retries), 1, "entries of the kind retry")


if __name__ == "__main__":
    main([web, large_disk, plain, plain_is_there, begun, begun_ends_ready])
