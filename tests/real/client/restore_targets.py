"""Templates that the operator's scenarios restore, under names that both sides know."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from common import DEBIAN_IMAGE, PYTHON_IMAGE, equal, holds, http, is_error, main, unique
from nullspace import Template, TemplateBuild, wait_for_file, wait_for_port
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


def family() -> None:
    """Three templates, each on top of the one before, the last one by the exact build of the second."""
    parent = (
        Template.from_image(DEBIAN_IMAGE)
        .set_build_envs({"BUILD_ONLY": "parent"})
        .run("mkdir /place; echo parent $BUILD_ONLY > /place/parent; chown -R daemon /place")
        .workdir("/place")
        .set_user("daemon")
        .env({"GREETING": "of the parent", "KEPT": "kept"})
        .set_start_cmd("touch /place/booted; exec sleep 3600", wait_for_file("/place/booted"))
    )
    equal(Template.build(parent, "family-parent").status, TemplateBuildStatus.READY, "status of the parent")
    see = 'echo "child $(id -un) $(pwd) $GREETING $KEPT [$BUILD_ONLY]" > child'
    child = Template.from_template("family-parent").run(see).env({"GREETING": "of the child"})
    built = Template.build(child, "family-child")
    equal(built.status, TemplateBuildStatus.READY, "status of the child")
    defaults = built.runtime_defaults
    equal(sorted(defaults.default_env_keys), ["GREETING", "KEPT"], "names of variables")
    equal((defaults.default_user, defaults.default_workdir), ("daemon", "/place"), "user and working folder")
    equal(defaults.start_cmd, None, "start command")
    grandchild = Template.from_template(f"family-child:{built.build_id}").run("cat parent child > all")
    built = Template.build(grandchild, "family-grandchild")
    equal(built.status, TemplateBuildStatus.READY, "status of the grandchild")


def somebody_elses() -> None:
    """Another owner's key gets for a private template what it gets for one that is not there."""
    other = os.environ["NULLSPACE_TEST_OTHER_KEY"]
    with http() as client:
        known = client.get("/v1/templates/refs/family-parent").json()
    answers = {}
    for reference in ("nullspace/family-parent:latest", known["id"]):
        payload = {"base_image": reference, "name": unique("stolen"), "steps": []}
        with http(other) as client:
            body = is_error(client.post("/v1/templates/builds", json=payload), 404, "template_not_found", reference)
        answers[reference] = body["error"].replace("family-parent", "NAME").replace(known["id"], "ID")
    for reference, like in (
        ("nullspace/no-such-template:latest", "nullspace/family-parent:latest"),
        ("tmpl_01arz3ndektsv4rrffq69g5fav", known["id"]),
    ):
        payload = {"base_image": reference, "name": unique("missing"), "steps": []}
        with http(other) as client:
            body = is_error(client.post("/v1/templates/builds", json=payload), 404, "template_not_found", reference)
        message = body["error"].replace("no-such-template", "NAME").replace("tmpl_01arz3ndektsv4rrffq69g5fav", "ID")
        equal(message, answers[like], "the answer for a template that is not there")


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
    main([web, large_disk, family, somebody_elses, plain, plain_is_there, begun, begun_ends_ready])
