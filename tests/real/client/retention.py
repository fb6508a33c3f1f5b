"""What nobody needs goes, and says so: on a service that keeps things for seconds instead of days."""

from __future__ import annotations

import hashlib
import os
import tempfile
from datetime import datetime
from pathlib import Path

from nullspace import Template, TemplateBuild
from nullspace.errors import BuildError, ConflictError, NotFoundError
from nullspace.types import TemplateBuildStatus, UploadProgress, UploadProgressPhase

from common import (
    DEBIAN_IMAGE,
    EXIT_CONFLICT,
    build,
    equal,
    eventually,
    exits,
    holds,
    main,
    raises,
    unique,
)

DATA = Path(os.environ.get("NULLSPACE_TEST_DATA_DIR", ""))
# What the service's settings say.
UNTAGGED_SECONDS = 6


def artifact_of(handle: TemplateBuild) -> Path:
    """Where the service keeps what the build made."""
    (artifact,) = handle.artifact_ids
    return DATA / "artifacts" / artifact


def says(handle: TemplateBuild) -> tuple[str, str, bool, datetime | None]:
    """What the build says of its artifact."""
    handle.get_status()
    promotability = handle.promotability
    return (
        handle.artifact_availability.status,
        promotability.status,
        promotability.promotable,
        handle.retention_expires_at,
    )


def a_build_without_a_tag_expires_and_one_with_a_tag_does_not() -> None:
    name = unique("kept")

    def definition(number: int) -> Template:
        # Each has an artifact of its own.
        return Template.from_image(DEBIAN_IMAGE).run(f"echo {name}-{number} > /made")

    made, _ = build(definition(1), f"{name}:v1")
    first = TemplateBuild.connect(made.build_id)
    equal(says(first), ("available", "promotable", True, None), "a build with a tag")
    holds(artifact_of(first).is_dir(), "what it made is there")

    made, _ = build(definition(2), f"{name}:v1")
    second = TemplateBuild.connect(made.build_id)
    available, promotable, _, expires_at = says(first)
    equal((available, promotable), ("available", "promotable"), "a build that the tag has just left")
    holds(expires_at is not None, "it says when it expires")
    kept_for = (expires_at - second.finished_at).total_seconds()
    holds(abs(kept_for - UNTAGGED_SECONDS) < 1, f"it is kept for {UNTAGGED_SECONDS} s from then on, not {kept_for}")

    steps = []

    def next_step() -> str:
        _, promotable, _, _ = says(first)
        steps.append(promotable)
        return promotable

    eventually(next_step, lambda step: step == "purged", "what the build says of itself")
    holds(set(steps) <= {"promotable", "expired", "purged"}, f"it says nothing else on the way: {set(steps)}")
    available, _, can_be_promoted, expired_at = says(first)
    equal((available, can_be_promoted, first.status), ("unavailable", False, TemplateBuildStatus.READY), "at last")
    holds(expired_at >= expires_at, f"it expired at {expired_at}, not before {expires_at}")
    holds("removed" in first.promotability.reason, f"the reason: {first.promotability.reason}")
    holds(not artifact_of(first).exists(), "its files are gone")

    exact = f"{name}:{first.build_id}"
    for refused in (lambda: first.promote(tag="v2"), lambda: Template.assign_tags(exact, ["v2"])):
        error = raises(ConflictError, refused)
        equal(error.code, "transition_conflict", "code")
        holds(first.build_id in str(error), f"the build is named: {error}")
    exits(EXIT_CONFLICT, "promote", first.build_id, "--tag", "v2")
    equal(raises(NotFoundError, lambda: Template.get(exact)).code, "template_not_found", "code of its reference")
    child = Template.from_template(exact).run("true")
    raises(NotFoundError, lambda: Template.build(child, unique("child")))
    row = next(row for row in Template.list_builds(name).builds if row.build_id == first.build_id)
    equal((row.promotability.status, row.artifact_availability.status), ("purged", "unavailable"), "in the history")

    # It is as old as the other one was, and has its tag.
    equal(says(second), ("available", "promotable", True, None), "the build that has the tag")
    holds(artifact_of(second).is_dir(), "what it made is there")
    again, _ = build(Template.from_template(f"{name}:v1").run("cat /made"), unique("child"))
    equal(again.status, TemplateBuildStatus.READY, "a build on the one that has the tag")


def files_of_a_context_go_and_a_retry_is_told_so() -> None:
    name = unique("files")
    content = f"of {name}\n".encode()
    digest = hashlib.sha256(content).hexdigest()
    blob = DATA / "blobs" / digest[:2] / digest
    noted = DATA / "uploads" / "default" / f"blob_{digest}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "one.txt").write_bytes(content)
        builder = Template.from_image(DEBIAN_IMAGE).set_file_context(folder).copy("one.txt", "/").run("exit 3")

        def fails() -> tuple[str, set[str]]:
            """The build that failed, and what was sent for it."""
            sent: list[UploadProgress] = []
            error = raises(BuildError, lambda: Template.build(builder, name, on_upload_progress=sent.append))
            equal(error.details["reason"], "step_failed", "reason")
            done = {one.target_path for one in sent if one.phase == UploadProgressPhase.COMPLETED}
            return error.build_id, done

        failed, sent = fails()
        equal(len(sent), 1, f"files that were sent ({sent})")
        holds(blob.is_file() and noted.is_file(), f"the file is kept as {blob.name}")

        # While it may be retried, it is there.
        again = TemplateBuild.connect(failed).retry()
        raises(BuildError, again.wait_until_terminal)
        holds(blob.is_file(), "the file is kept for the retry")

        eventually(lambda: (blob.exists(), noted.exists()), lambda there: there == (False, False), "the file")
        for build_id in (failed, again.build_id):
            error = raises(ConflictError, lambda id_=build_id: TemplateBuild.connect(id_).retry())
            equal(error.code, "rebuild_required", "code")
            holds(build_id in str(error) and "anew" in str(error), f"it says what to do: {error}")
        exits(EXIT_CONFLICT, "retry", failed)
        _, sent = fails()
        equal(len(sent), 1, f"files that were sent again ({sent})")


if __name__ == "__main__":
    main(
        [
            a_build_without_a_tag_expires_and_one_with_a_tag_does_not,
            files_of_a_context_go_and_a_retry_is_told_so,
        ]
    )
