"""What became of builds: lines of retries, what differs between two of them, where tags have pointed, where time went.

The published client knows none of this, so it is asked for over plain HTTP.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import httpx
from nullspace import Template, TemplateBuild, wait_for_timeout
from nullspace.errors import BuildError
from nullspace.types import TemplateBuildStatus

from common import DEBIAN_IMAGE, build, equal, holds, http, is_error, main, raises, unique


def asked(client: httpx.Client, path: str) -> dict[str, Any]:
    answer = client.get(path)
    equal(answer.status_code, 200, f"status of {path} ({answer.text[:300]})")
    return answer.json()


def of_build(build_id: str, below: str) -> dict[str, Any]:
    with http() as client:
        return asked(client, f"/v1/templates/builds/{build_id}/{below}")


def micros(build: dict[str, Any]) -> int:
    """The time from the acceptance of a build to its end, to the microsecond."""
    begin, end = (datetime.fromisoformat(build[key]) for key in ("queued_at", "finished_at"))
    span = end - begin
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def adds_up(timeline: dict[str, Any]) -> list[dict[str, Any]]:
    """Checks that the segments have no gaps and are the whole; gives them."""
    segments = timeline["segments"]
    offset = 0
    for segment in segments:
        equal(segment["offset_us"], offset, f"where {segment} begins")
        end = offset + segment["duration_us"]
        steps = segment.get("steps", {"items": [], "busy_us": 0, "sum_us": 0})
        for step in steps["items"]:
            holds(offset <= step["offset_us"], f"{step} begins in {segment}")
            holds(step["offset_us"] + step["duration_us"] <= end, f"{step} ends in {segment}")
        holds(steps["busy_us"] <= steps["sum_us"], f"some of {steps} were at once")
        holds(steps["busy_us"] <= segment["duration_us"], f"steps of {segment}")
        offset = end
    equal(offset, timeline["total_us"], "the end of the last segment")
    equal(offset, micros(timeline), "the wall time")
    equal(sum(timeline["sums_us"].values()), offset, "the sums")
    return segments


def a_retry_of_a_retry_stands_in_its_line() -> None:
    name = unique("retried")
    first = raises(BuildError, lambda: Template.build(Template.from_image(DEBIAN_IMAGE).run("exit 3"), name)).build_id
    second = TemplateBuild.connect(first).retry()
    raises(BuildError, second.wait_until_terminal)
    third = TemplateBuild.connect(second.build_id).retry()
    raises(BuildError, third.wait_until_terminal)
    line = of_build(second.build_id, "lineage")
    ids = [first, second.build_id, third.build_id]
    equal([entry["build_id"] for entry in line["builds"]], ids, "builds of the line")
    equal([entry["relation"] for entry in line["builds"]], ["ancestor", "asked", "descendant"], "relations")
    equal((line["original_build_id"], line["build_count"], line["truncated"]), (first, 3, False), "the line")
    equal([entry["retries"] for entry in line["builds"]], [[ids[1]], [ids[2]], []], "retries of each")
    for entry in line["builds"]:
        equal((entry["status"], entry["attempt"]), ("error", 1), "outcome and attempts")
        equal(entry["error_detail"]["details"]["exit_code"], 3, "why it failed")
        equal(entry["triggered_by"]["kind"], "key", "who asked")
        holds(entry["duration_ms"] >= 0, "how long it took")


def two_builds_are_told_apart_by_their_changed_step() -> None:
    name = unique("compared")

    def made(second: str, variable: str) -> str:
        builder = Template.from_image(DEBIAN_IMAGE).run(f"echo {name} > /one").run(second).run("cat /one > /three")
        return build(builder.env({"SETTING": variable}), name)[0].build_id

    before, after = made("echo a > /two", "untold-1"), made("echo b > /two", "untold-2")
    told = of_build(before, f"diff?with={after}")
    equal([step["change"] for step in told["steps"]], ["same", "changed", "same"], "steps")
    equal([step["same_key"] for step in told["steps"]], [True, False, False], "keys")
    fields = [{"path": "/command", "change": "changed", "before": "echo a > /two", "after": "echo b > /two"}]
    equal(told["steps"][1]["fields"], fields, "what changed in the step")
    outcomes = [step["after"]["cache"]["status"] for step in told["steps"]]
    equal(outcomes, ["hit", "miss", "miss"], "what the cache gave the second build")
    variable = {"path": "/runtime/default_envs/SETTING", "change": "changed", "redacted": True}
    equal(told["definition"], [variable], "what else changed")
    holds("untold" not in repr(told), "no value of a variable is told")
    equal((told["same_definition"], told["base"]["same"]), (False, True), "definition and base")
    sizes = told["artifact"]
    equal(sizes["same"], False, "artifacts")
    holds(sizes["before"]["disk_bytes"] >= 512 * 1024 * 1024, f"sizes: {sizes}")
    for side, build_id in (("before_us", before), ("after_us", after)):
        timeline = of_build(build_id, "timeline")
        timings = {timing["what"]: timing[side] for timing in told["timings"] if side in timing}
        equal(timings, timeline["sums_us"] | {"total": timeline["total_us"]}, f"timings ({side})")


def stages_of_a_dockerfile_are_told_side_by_side() -> None:
    name = unique("compared")

    def made(line: str) -> str:
        text = f"""
            FROM {DEBIAN_IMAGE} AS left
            RUN sleep 2; echo {name} > /left
            FROM {DEBIAN_IMAGE} AS right
            RUN sleep 2; echo {name} > /right
            {line}
            FROM {DEBIAN_IMAGE}
            COPY --from=left /left /
            COPY --from=right /right /
        """
        return build(Template.from_dockerfile_content(text), name)[0].build_id

    before, after = made("RUN true"), made("RUN echo more >> /right")
    segments = adds_up(of_build(before, "timeline"))
    steps = next(segment["steps"] for segment in segments if segment.get("phase") == "step")
    holds(steps["busy_us"] < steps["sum_us"], f"both stages were built at once: {steps}")
    told = of_build(before, f"diff?with={after}")
    changed = [step for step in told["steps"] if step["change"] != "same"]
    equal([step["change"] for step in changed], ["changed"], "steps")
    holds(changed[0]["after"]["name"].endswith("RUN echo more >> /right"), f"the step: {changed}")
    text = told["definition"][0]
    equal((text["path"], len(told["definition"])), ("/source/text", 1), "what changed in the definition")
    holds("+            RUN echo more >> /right\n" in text["diff"], f"the lines: {text}")


def a_tag_goes_back_to_where_it_pointed() -> None:
    name = unique("rolled-back")
    first, second = (build(Template.from_image(DEBIAN_IMAGE), f"{name}:prod")[0].build_id for _ in range(2))
    path = f"/v1/templates/refs/{name}/tags/prod"

    def pointed() -> dict[str, str]:
        return {tag.tag: tag.build_id for tag in Template.get_tags(name)}

    with http() as client:
        moves = asked(client, f"{path}/history")["moves"]
        equal([(move["cause"], move["build_id"]) for move in moves], [("built", second), ("built", first)], "moves")
        equal(moves[0]["previous_build_id"], first, "where it pointed before")
        answer = client.post(f"{path}/rollback", json={"to": first})
        equal((answer.status_code, answer.json()["name"]), (200, name), "the answer")
        equal(pointed(), {"prod": first}, "where the tag points")
        Template.remove_tag(name, "prod")
        equal(client.post(f"{path}/rollback", json={"to": moves[0]["position"]}).status_code, 200, "back by position")
        equal(pointed(), {"prod": second}, "where the tag points then")
        page = asked(client, f"{path}/history?limit=2")
        rest = asked(client, f"{path}/history?cursor={page['next_cursor']}")
        causes = [move["cause"] for move in page["moves"] + rest["moves"]]
        equal(causes, ["assigned", "removed", "assigned", "built", "built"], "all moves")
        unknown = client.post(f"{path}/rollback", json={"to": f"tb_{'0' * 26}"})
        is_error(unknown, 409, "transition_conflict", "never pointed")


def the_time_of_a_build_adds_up() -> None:
    name = unique("timed")
    builder = Template.from_image(DEBIAN_IMAGE).run(f"echo {name} > /a; sleep 1").run("cat /a > /b")
    builder = builder.set_start_cmd("sleep 3600", wait_for_timeout(500))
    result, entries = build(builder, name)
    timeline = of_build(result.build_id, "timeline")
    segments = adds_up(timeline)
    equal(timeline["status"], "ready", "status")
    kinds = [segment.get("phase", segment["kind"]) for segment in segments]
    equal(kinds[0], "waiting", "the first segment")
    expected = ["preparing", "cache", "step", "sync", "vm_create", "startup", "readiness", "snapshot", "finalize"]
    equal([kind for kind in dict.fromkeys(kinds) if kind in expected], expected, "phases in order")
    steps = next(segment["steps"] for segment in segments if segment.get("phase") == "step")
    equal([step["cached"] for step in steps["items"]], [False, False], "steps from the cache")
    equal([step["cache"]["status"] for step in steps["items"]], ["miss", "miss"], "look-ups of steps")
    holds(steps["items"][0]["duration_us"] >= 1_000_000, f"the step that sleeps: {steps}")
    bytes_moved = timeline["bytes"]
    for what in ("layers", "rootfs_content", "rootfs", "artifact", "snapshot"):
        holds(bytes_moved[what] > 0, f"bytes of {what}: {bytes_moved}")
    came = any(re.fullmatch(r"Layer \d+ of \d+ pulled \(.*\)", entry.message) for entry in entries)
    equal(bytes_moved["pulled"] > 0, came, f"whether layers came from the registry: {bytes_moved}")
    equal([attempt["outcome"] for attempt in timeline["attempts"]], ["done"], "attempts")

    again, _ = build(builder, name)
    timeline = of_build(again.build_id, "timeline")
    segments = adds_up(timeline)
    looked = next(segment for segment in segments if segment.get("phase") == "cache")
    equal(looked["cache"]["status"], "hit", "the look for a finished artifact")
    holds(all("steps" not in segment for segment in segments), "nothing is done again")


def a_cancelled_build_tells_what_it_did_until_then() -> None:
    handle = Template.build_in_background(Template.from_image(DEBIAN_IMAGE).run("sleep 600"), unique("stopped"))
    for entry in handle.logs(follow=True):
        if entry.step_index == 1:
            break
    running = of_build(handle.build_id, "timeline")
    equal(running["segments"][-1]["outcome"], "under_way", "what is under way")
    handle.cancel()
    handle.wait_until_terminal()
    equal(handle.status, TemplateBuildStatus.CANCELLED, "status")
    timeline = of_build(handle.build_id, "timeline")
    segments = adds_up(timeline)
    equal(segments[-1]["kind"], "stopping", "the last segment")
    step = next(segment["steps"]["items"][0] for segment in segments if "steps" in segment)
    equal(step["outcome"], "cancelled", "the step")


if __name__ == "__main__":
    main(
        [
            a_retry_of_a_retry_stands_in_its_line,
            two_builds_are_told_apart_by_their_changed_step,
            stages_of_a_dockerfile_are_told_side_by_side,
            a_tag_goes_back_to_where_it_pointed,
            the_time_of_a_build_adds_up,
            a_cancelled_build_tells_what_it_did_until_then,
        ]
    )
