"""Builds as the published client sees them: section 11 of the client's contract, items 1, 2, 6, 7, 9 and 10."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path

from nullspace import (
    Template,
    TemplateBuild,
    default_build_logger,
    wait_for_file,
    wait_for_port,
    wait_for_process,
    wait_for_timeout,
    wait_for_url,
)
from nullspace.errors import BuildError
from nullspace.types import (
    LogEntryEnd,
    TemplateBuildBackend,
    TemplateBuildCacheKind,
    TemplateBuildCacheStatus,
    TemplateBuildLogEntry,
    TemplateBuildLogKind,
    TemplateBuildSourceType,
    TemplateBuildStatus,
)

from common import (
    DEBIAN_IMAGE,
    PYTHON_IMAGE,
    Entries,
    build,
    cache,
    equal,
    holds,
    http,
    is_whole_log,
    main,
    raises,
    unique,
)

LAYER, ARTIFACT = TemplateBuildCacheKind.LAYER, TemplateBuildCacheKind.FINAL_ARTIFACT
HIT, MISS = TemplateBuildCacheStatus.HIT, TemplateBuildCacheStatus.MISS
# A step is given ten seconds to end by itself.
CANCELLED_WITHIN_SECONDS = 30
ENDED = {TemplateBuildStatus.READY, TemplateBuildStatus.ERROR, TemplateBuildStatus.CANCELLED}


def item_1_build_in_the_foreground() -> None:
    name = unique("my-app")
    builder = (
        Template.from_python_image(PYTHON_IMAGE, variant="slim")
        .pip_install("requests")
        .run("python -c 'import requests'")
        .env({"A": "1"})
    )
    result, entries = build(builder, f"{name}:v1")
    is_whole_log(entries)
    equal(result.status, TemplateBuildStatus.READY, "status")
    equal(result.tags, ["v1"], "tags")
    equal(result.name, name, "name")
    equal(result.build_backend, TemplateBuildBackend.NATIVE, "backend")
    equal((result.build_id, result.template_id), (entries[0].build_id, entries[0].template_id), "ids of the result")
    equal(result.runtime_defaults.default_env_keys, ["A"], "names of the runtime's variables")

    template = Template.get(f"{name}:v1")
    equal(template["id"], result.template_id, "id of the template by its ref")
    equal(template["canonical_ref"], f"{result.namespace_slug}/{name}", "canonical ref")

    stored = TemplateBuild.connect(result.build_id)
    equal(stored.status, TemplateBuildStatus.READY, "status on record")
    equal(stored.source_type, TemplateBuildSourceType.DECLARATIVE, "source type on record")
    holds(stored.created_at <= stored.started_at <= stored.finished_at, "times on record are in order")


def the_default_logger_prints_every_build() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        Template.build(
            Template.from_image(DEBIAN_IMAGE).run("echo from-the-step"),
            unique("logged"),
            on_log_entry=default_build_logger(),
        )
    holds("from-the-step" in printed.getvalue(), f"the step's output is printed: {printed.getvalue()!r}")


def item_6_build_in_the_background() -> None:
    name = unique("my-app")
    builder = Template.from_python_image(PYTHON_IMAGE, variant="slim").run("echo hello")
    handle = Template.build_in_background(builder, name)
    holds(
        handle.status in {TemplateBuildStatus.WAITING, TemplateBuildStatus.BUILDING},
        f"a build that was just accepted is {handle.status}",
    )
    equal(handle.tags, ["default"], "tags")
    snapshot = handle.get_status()
    equal([e.offset for e in snapshot.entries], list(range(len(snapshot.entries))), "offsets so far")
    equal(snapshot.next_offset, len(snapshot.entries), "next offset so far")

    entries: Entries = []
    final = handle.wait_until_terminal(on_log_entry=entries.append)
    equal(handle.status, TemplateBuildStatus.READY, "status")
    is_whole_log(entries)
    equal(final.next_offset, len(entries), "next offset")
    holds("hello" in [e.message for e in entries], "the step's output is in the log")

    nothing = handle.get_status(offset=final.next_offset)
    equal((nothing.entries, nothing.next_offset), ([], final.next_offset), "what comes after the end")
    beyond = handle.get_status(offset=final.next_offset + 100)
    equal((beyond.entries, beyond.next_offset), ([], final.next_offset + 100), "what comes far after the end")
    handle.close()


def is_the_failure_of_the_step(error: BuildError, build_id: str) -> None:
    equal(error.code, "build_error", "code")
    equal(error.phase.value, "build_step", "phase")
    equal(error.build_id, build_id, "build id")
    equal(error.retryable, False, "retryable")
    equal(error.step_index, 2, "the step that failed, counted from 1")
    equal(error.details["reason"], "step_failed", "reason")
    equal(error.details["exit_code"], 3, "exit code")
    holds("3" in str(error), f"the message tells the exit code: {error}")
    holds(bool(error.suggested_action), "there is a suggested action")
    whole = f"{error} {json.dumps(error.details)}"
    holds("the-last-words" in whole, f"the last lines of stderr are told: {whole}")


def item_7_a_failing_step() -> None:
    builder = Template.from_image(DEBIAN_IMAGE).run("true").run("echo the-last-words >&2; exit 3")
    entries: Entries = []
    name = unique("failing")
    streamed = raises(BuildError, lambda: Template.build(builder, name, on_log_entry=entries.append))
    is_whole_log(entries, TemplateBuildLogKind.ERROR)
    is_the_failure_of_the_step(streamed, entries[0].build_id)

    handle = Template.build_in_background(builder, name)
    polled_entries: Entries = []
    polled = raises(BuildError, lambda: handle.wait_until_terminal(on_log_entry=polled_entries.append))
    is_whole_log(polled_entries, TemplateBuildLogKind.ERROR)
    is_the_failure_of_the_step(polled, handle.build_id)
    equal(handle.status, TemplateBuildStatus.ERROR, "status")
    equal(handle.failure_phase, "build_step", "failure phase on record")


def item_10_a_failed_build_is_retried() -> None:
    name = unique("retried")
    error = raises(BuildError, lambda: Template.build(Template.from_image(DEBIAN_IMAGE).run("exit 3"), name))
    failed = TemplateBuild.connect(error.build_id)
    again = failed.retry(tags=["r1"])
    holds(again.build_id != failed.build_id, "a retry is a build of its own")
    equal(again.retry_of_build_id, failed.build_id, "the build that was retried")
    equal(again.original_build_id, failed.build_id, "the first of the line")
    equal(again.tags, ["r1"], "tags")
    error = raises(BuildError, again.wait_until_terminal)
    equal(error.details["reason"], "step_failed", "reason, for the definition is the same")


def an_unknown_base_image() -> None:
    builder = Template.from_image("debian:no-such-tag")
    error = raises(BuildError, lambda: Template.build(builder, unique("baseless")))
    equal(error.phase.value, "prepare", "phase")
    equal(error.details["reason"], "bad_reference", "reason")
    equal(error.retryable, False, "retryable")
    holds("debian:no-such-tag" in str(error), f"the message names the image: {error}")


def a_readiness_that_never_passes() -> None:
    probe = wait_for_port(9, timeout_secs=3, interval_ms=200, startup_grace_secs=0)
    builder = Template.from_image(DEBIAN_IMAGE).set_start_cmd("sleep 3600", probe)
    error = raises(BuildError, lambda: Template.build(builder, unique("unready")))
    equal(error.phase.value, "readiness", "phase")
    equal(error.details["reason"], "readiness_timeout", "reason")
    holds("9" in str(error), f"the message names the port: {error}")


def item_2_every_other_kind_of_readiness() -> None:
    serve = "mkdir -p /srv/ok && cd /srv && exec python3 -m http.server 8000"
    probes = {
        "process": wait_for_process("python3"),
        "http": wait_for_url("http://localhost:8000/ok/"),
        "file": wait_for_file("/srv/ok"),
        "string": "test -d /srv/ok",
        "timeout": wait_for_timeout(500),
    }
    for kind, probe in probes.items():
        builder = Template.from_python_image(PYTHON_IMAGE)
        if kind == "process":
            # The client's probe is `ps`, which images of this size lack.
            builder = builder.apt_install("procps")
        builder = builder.set_start_cmd(serve, probe)
        result, entries = build(builder, unique(f"ready-{kind}"))
        is_whole_log(entries)
        equal(result.status, TemplateBuildStatus.READY, f"status with the probe {kind}")
        holds(any(entry.phase == "readiness" for entry in entries), f"the probe {kind} is in the log")
        readiness = result.runtime_defaults.readiness
        holds(readiness is not None, f"the probe {kind} is among the template's defaults")


def a_start_command_that_fails() -> None:
    builder = Template.from_image(DEBIAN_IMAGE).set_start_cmd("echo no such port >&2; exit 9", wait_for_port(9))
    error = raises(BuildError, lambda: Template.build(builder, unique("unstarted")))
    equal(error.phase.value, "readiness", "phase")
    equal(error.details["reason"], "start_command_failed", "reason")
    holds("no such port" in str(error), f"the message has the command's last lines: {error}")


def item_9_a_cancelled_build_ends_and_stays_so() -> None:
    # The step prints something new, so that no layer of an earlier run is found.
    for reason in (None, "no longer wanted"):
        name = unique("cancelled")
        begun = f"begun {name}"
        handle = Template.build_in_background(
            Template.from_image(DEBIAN_IMAGE).run(f"echo {begun}; exec sleep 300"), name
        )
        next(entry for entry in handle.logs(follow=True) if entry.message == begun)
        handle.cancel(reason=reason)
        since = time.monotonic()
        ended = handle.wait_until_terminal()
        holds(time.monotonic() - since < CANCELLED_WITHIN_SECONDS, "it ends soon")
        equal(ended.build.status, TemplateBuildStatus.CANCELLED, "status")
        equal(handle.cancellation_reason, reason, "reason on record")
        holds(handle.cancel_requested_at <= handle.finished_at, "times on record are in order")
        entries = list(handle.logs())
        is_whole_log(entries, TemplateBuildLogKind.CANCELLED)

        # Once more changes nothing, whatever it says.
        before = handle.to_dict()
        handle.cancel(reason="once more")
        equal(handle.to_dict(), before, "the build after it was cancelled again")
        equal(handle.get_status().build.status, TemplateBuildStatus.CANCELLED, "status")


def item_9_a_stream_of_a_cancelled_build_says_so() -> None:
    name = unique("cancelled")
    begun = f"begun {name}"
    seen: Entries = []

    def cancel_it(entry: TemplateBuildLogEntry) -> None:
        seen.append(entry)
        if entry.message == begun:
            TemplateBuild.connect(entry.build_id).cancel()

    builder = Template.from_image(DEBIAN_IMAGE).run(f"echo {begun}; exec sleep 300")
    error = raises(BuildError, lambda: Template.build(builder, name, on_log_entry=cancel_it))
    holds("terminal end entry" in str(error), f"the client's own words for it: {error}")
    is_whole_log(seen, TemplateBuildLogKind.CANCELLED)
    holds(not Template.exists(name), "nothing was made")


def the_same_definition_again_is_an_artifact_hit() -> None:
    # A step that nobody else has, so that the first build cannot hit.
    name = unique("again")
    builder = Template.from_image(DEBIAN_IMAGE).run(f"echo {name} > /name")
    first, entries = build(builder, name)
    equal(len(cache(entries, ARTIFACT, HIT)), 0, "artifact hits of the first build")
    second, entries = build(builder, name)
    is_whole_log(entries)
    equal(len(cache(entries, ARTIFACT, HIT)), 1, "artifact hits of the second build")
    equal(len(cache(entries, LAYER, MISS)), 0, "layer misses of the second build")
    equal(second.template_id, first.template_id, "template id")
    holds(second.build_id != first.build_id, "each build has an id of its own")
    summary = TemplateBuild.connect(second.build_id).cache_summary
    equal((summary.final_artifact_hits, summary.layer_misses), (1, 0), "summary on record")


def a_changed_last_step_keeps_the_layers_before_it() -> None:
    name = unique("changed")

    def definition(last: str) -> Template:
        return Template.from_image(DEBIAN_IMAGE).run(f"echo {name} > /a").make_dir("/b").run(f"echo {last} > /c")

    _, entries = build(definition("one"), name)
    equal([e.step_index for e in cache(entries, LAYER, MISS)], [1, 2, 3], "steps that missed at first")
    _, entries = build(definition("two"), name)
    equal(len(cache(entries, ARTIFACT, HIT)), 0, "artifact hits of the changed build")
    equal([e.step_index for e in cache(entries, LAYER, HIT)], [1, 2], "steps that hit, counted from 1")
    equal([e.step_index for e in cache(entries, LAYER, MISS)], [3], "steps that missed, counted from 1")


def the_environment_of_a_step_is_its_own() -> None:
    # The service runs with many variables of these kinds, the suites' own among them.
    foreign = ("CARGO", "NULLSPACE", "RUST", "SSH", "XDG")
    builder = (
        Template.from_image(DEBIAN_IMAGE)
        .set_build_envs({"BUILD_ONLY": "yes"})
        .workdir("/place")
        .run("echo cwd=$(pwd) build=$BUILD_ONLY. && env | sed -n 's/=.*//; s/^/variable /p'")
    )
    _, entries = build(builder, unique("env"))
    messages = [e.message for e in entries]
    holds("cwd=/place build=yes." in messages, f"what the step saw of its own: {messages}")
    names = [m.removeprefix("variable ") for m in messages if m.startswith("variable ")]
    holds("PATH" in names, f"the step listed its variables: {names}")
    equal([n for n in names if n.startswith(foreign)], [], "variables of the service")


def a_client_that_disconnects_does_not_stop_its_build() -> None:
    name = unique("left-alone")
    payload = Template.from_image(DEBIAN_IMAGE).run("sleep 2; echo still-here").to_json(name=name)
    with http() as client, client.stream("POST", "/v1/templates/build", json=payload) as response:
        equal(response.status_code, 200, "status")
        line = next(line for line in response.iter_lines() if line.startswith("data: "))
        build_id = json.loads(line.removeprefix("data: "))["build_id"]
    handle = TemplateBuild.connect(build_id)
    entries: Entries = []
    handle.wait_until_terminal(on_log_entry=entries.append)
    is_whole_log(entries)
    holds("still-here" in [e.message for e in entries], "the step ran to its end")


def the_end_of_a_build_describes_its_template() -> None:
    name = unique("described")
    builder = (
        Template.from_python_image(PYTHON_IMAGE)
        .workdir("/srv")
        .set_start_cmd("python -m http.server 8000", wait_for_port(8000))
    )
    result, entries = build(builder, f"{name}:web", cpu_count=1, memory_mb=256)
    end = entries[-1]
    holds(isinstance(end, LogEntryEnd), "the last entry is the end")
    equal((end.result.name, list(end.result.tags)), (name, ["web"]), "name and tags")
    defaults = end.result_metadata.runtime_defaults
    equal(defaults.start_cmd, "python -m http.server 8000", "start command")
    equal(defaults.default_workdir, "/srv", "working folder")
    equal(result.visibility.value, "private", "visibility")


def the_clients_doctor_is_content() -> None:
    nullspace = Path(sys.executable).with_name("nullspace")
    done = subprocess.run([nullspace, "doctor", "--json"], capture_output=True, text=True, check=False)
    equal(done.returncode, 0, f"exit code ({done.stderr})")
    report = json.loads(done.stdout)
    equal(report["ok"], True, f"ok ({done.stdout})")
    states = {probe["name"]: probe["status"] for probe in report["probes"]}
    equal((states["api_reachability"], states["key_validity"]), ("pass", "pass"), "probes")


if __name__ == "__main__":
    main(
        [
            item_1_build_in_the_foreground,
            the_default_logger_prints_every_build,
            item_6_build_in_the_background,
            item_7_a_failing_step,
            item_10_a_failed_build_is_retried,
            an_unknown_base_image,
            a_readiness_that_never_passes,
            item_2_every_other_kind_of_readiness,
            a_start_command_that_fails,
            item_9_a_cancelled_build_ends_and_stays_so,
            item_9_a_stream_of_a_cancelled_build_says_so,
            the_same_definition_again_is_an_artifact_hit,
            a_changed_last_step_keeps_the_layers_before_it,
            the_environment_of_a_step_is_its_own,
            a_client_that_disconnects_does_not_stop_its_build,
            the_end_of_a_build_describes_its_template,
            the_clients_doctor_is_content,
        ]
    )
