"""What can be asked of builds besides building: section 11 of the client's contract, items 11, 13 and 18."""

from __future__ import annotations

import base64
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from nullspace import Template, TemplateBuild
from nullspace.errors import BuildError, ConflictError, MachineError, NotFoundError
from nullspace.types import TemplateBuildBackend, TemplateBuildSourceType, TemplateBuildStatus

from common import DEBIAN_IMAGE, build, equal, holds, http, is_error, key, main, raises, unique
from context import make_context

# Larger than the service takes for a build, and for a build alone.
LARGE_CONTEXT_BYTES = 48 * 1024 * 1024


@cache
def history() -> tuple[str, list[str]]:
    """A template with a failed build between two that are ready, and the ids of its builds, the newest first."""
    name = unique("history")
    first, _ = build(Template.from_image(DEBIAN_IMAGE).run("true"), f"{name}:v1")
    failed = raises(BuildError, lambda: Template.build(Template.from_image(DEBIAN_IMAGE).run("exit 3"), name))
    second, _ = build(Template.from_image(DEBIAN_IMAGE), f"{name}:v2")
    return name, [second.build_id, failed.build_id, first.build_id]


def item_11_promotion() -> None:
    name, (second, failed, first) = history()
    promoted = TemplateBuild.connect(second).promote(tag="prod")
    holds("prod" in promoted.tags, f"tags after a promotion: {promoted.tags}")
    equal(promoted.name, name, "name")
    equal({tag.tag: tag.build_id for tag in Template.get_tags(name)}["prod"], second, "where `prod` points")

    TemplateBuild.connect(first).promote(tag="prod")
    equal({tag.tag: tag.build_id for tag in Template.get_tags(name)}["prod"], first, "where `prod` points then")

    error = raises(ConflictError, lambda: TemplateBuild.connect(failed).promote(tag="prod"))
    equal(error.code, "transition_conflict", "code")
    equal({tag.tag: tag.build_id for tag in Template.get_tags(name)}["prod"], first, "where `prod` points still")


def item_13_history() -> None:
    name, builds = history()
    equal([row.build_id for row in Template.list_builds(name).builds], builds, "builds, the newest first")

    found: list[str] = []
    cursor = None
    for _ in builds:
        page = Template.list_builds(
            name, status="ready", backend="native", source_type="declarative", limit=1, cursor=cursor
        )
        found += [row.build_id for row in page.builds]
        cursor = page.next_cursor
        if cursor is None:
            break
    equal(cursor, None, "the cursor of the last page")
    equal(found, [builds[2]], "ready builds with steps")

    listed = Template.list_builds(name, limit=1)
    row = listed.builds[0]
    equal((row.status, row.build_backend), (TemplateBuildStatus.READY, TemplateBuildBackend.NATIVE), "status, backend")
    equal(row.source_type, TemplateBuildSourceType.OCI_IMPORT, "source type")
    equal(row.tags, ["v2"], "tags")
    by_id = Template.list_builds(row.template_id, cursor=listed.next_cursor)
    equal([row.build_id for row in by_id.builds], builds[1:], "the rest, by the template's id")

    raises(NotFoundError, lambda: Template.list_builds(unique("nothing")))
    error = raises(MachineError, lambda: Template.list_builds(name, limit=101))
    equal(error.code, "invalid_request", "code of a page that is too large")


def item_18_validation() -> None:
    good = Template.from_image(DEBIAN_IMAGE).run("true")
    valid = Template.validate(good, unique("valid"))
    equal((valid.valid, valid.errors, valid.warnings), (True, [], []), "a right request")

    bad = Template.from_image(DEBIAN_IMAGE).run("true").set_user("no such user: a blank")
    invalid = Template.validate(bad, unique("invalid"), memory_mb=1)
    equal(invalid.valid, False, "a wrong request")
    messages = [error.message for error in invalid.errors]
    holds(any(text.startswith("build_config.memory_mib: ") for text in messages), f"the memory is named: {messages}")

    unknown = Template.validate(Template.from_template("tmpl_nothing"), unique("invalid"))
    equal(unknown.valid, False, "a base that is not there")
    moving = Template.validate(Template.from_image("debian"), unique("warned"))
    holds(moving.valid and len(moving.warnings) == 1, f"a tag that moves is warned of: {moving}")


def item_18_plans() -> None:
    name = unique("planned")
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        make_context(context, name)
        copies = (
            Template.from_image(DEBIAN_IMAGE)
            .set_file_context(str(context))
            .copy("src", "/app/")
            .env({"TOLD": "untold-value"})
        )
        plan = Template.plan(copies, name)
        equal((plan.build_backend.value, plan.source_type.value), ("native", "declarative"), "kind")
        holds(plan.context_manifest.file_count > 0, f"files of the context: {plan.context_manifest}")
        equal([list(step) for step in plan.build_plan["build_steps"]], [["Copy"]], "kinds of steps")
        equal(plan.build_plan["env_assignments"], [["TOLD", "[REDACTED]"]], "variables")
        equal(Template.plan(copies, name), plan, "the same plan again")

        # The build records what was planned.
        result, _ = build(copies, name)
        record = TemplateBuild.connect(result.build_id)
        equal(record.source_digest, plan.source_digest, "digest of the definition")
        equal(record.context_digest, plan.context_manifest.context_digest, "digest of the context")

        (context / "Dockerfile").write_text(
            f"FROM {DEBIAN_IMAGE}\nMAINTAINER nobody\nCOPY src /app\n"
            "RUN --mount=type=secret,id=pip_token true\nSTOPSIGNAL SIGTERM\n"
        )
        dockerfile = Template.from_dockerfile(str(context / "Dockerfile")).add_build_secret("pip_token", "untold-value")
        plan = Template.plan(dockerfile, name)
        equal((plan.build_backend.value, plan.source_type.value), ("buildkit", "dockerfile"), "kind")
        holds(plan.context_manifest.file_count > 0, f"files of the context: {plan.context_manifest}")
        holds(bool(plan.dockerfile_digest), "the Dockerfile has a digest")
        ignored = plan.build_plan["ignored_instruction_warnings"]
        equal([(one["instruction"], one["line"]) for one in ignored], [("MAINTAINER", 2), ("STOPSIGNAL", 5)], "ignored")
        equal(plan.build_plan["secret_ids"], ["pip_token"], "ids of secrets")
        holds("untold-value" not in repr(plan), f"no value is told: {plan}")


def a_large_context_is_looked_at_and_not_kept() -> None:
    content = base64.b64encode(bytes(LARGE_CONTEXT_BYTES)).decode()
    files = [{"path": "large", "entry_type": "file", "content_base64": content}]
    body = {"base_image": DEBIAN_IMAGE, "steps": [], "build_context": {"files": files}}
    with http() as client:
        plan = client.post("/v1/templates/plan", json=body)
        equal(plan.status_code, 200, f"status of a plan ({plan.text[:300]})")
        equal(plan.json()["context_manifest"]["total_bytes"], LARGE_CONTEXT_BYTES, "bytes of the context")
        valid = client.post("/v1/templates/validate", json=body).json()
        equal(valid, {"valid": True, "errors": [], "warnings": []}, "a large request")
        is_error(client.post("/v1/templates/builds", json=body), 413, "invalid_request")


def a_blocking_build_answers_when_it_is_over() -> None:
    name = unique("blocking")
    good = {"base_image": DEBIAN_IMAGE, "name": name, "steps": [{"action": "run", "command": "true"}]}
    with http() as client:
        made = client.post("/v1/templates", json=good)
        equal(made.status_code, 201, f"status ({made.text[:300]})")
        equal((made.json()["name"], made.json()["tags"]), (name, ["default"]), "name and tags")
        equal(Template.get(name)["id"], made.json()["id"], "id of the template")

        bad = good | {"steps": [{"action": "run", "command": "echo the-last-words >&2; exit 3"}]}
        error = is_error(client.post("/v1/templates", json=bad), 400, "build_error")
    detail: dict[str, Any] = error["error_detail"]
    equal((detail["phase"], detail["details"]["exit_code"]), ("build_step", 3), "phase and exit code")
    equal(TemplateBuild.connect(error["build_id"]).status, TemplateBuildStatus.ERROR, "status of the build on record")


def a_wrong_key_opens_none_of_it() -> None:
    with http(f"{key()}x") as client:
        for below in ("", "/validate", "/plan", "/builds/tb_x/promote"):
            is_error(client.post(f"/v1/templates{below}", json={}), 401, "unauthorized")
        is_error(client.get("/v1/templates/refs/x/builds"), 401, "unauthorized")


if __name__ == "__main__":
    main(
        [
            item_11_promotion,
            item_13_history,
            item_18_validation,
            item_18_plans,
            a_large_context_is_looked_at_and_not_kept,
            a_blocking_build_answers_when_it_is_over,
            a_wrong_key_opens_none_of_it,
        ]
    )
