"""Builds from a Dockerfile as the published client asks for them, and what it cannot send itself."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nullspace import Template, TemplateBuild
from nullspace.errors import BuildError, MachineError
from nullspace.types import (
    TemplateBuildBackend,
    TemplateBuildLogKind,
    TemplateBuildSecret,
    TemplateBuildSourceType,
    TemplateBuildStatus,
    UploadProgress,
    UploadProgressPhase,
)

from common import Entries, build, equal, holds, http, is_error, is_unknown, is_whole_log, main, raises, unique
from context import MAIN, ODD_FILE, ODD_FOLDER, make_context

NULLSPACE = Path(sys.executable).with_name("nullspace")
SECRET_MOUNT = "--mount=type=secret,id=npm_token,required=true"
LIST_FILES = "RUN cd /app && find . -type f | LC_ALL=C sort | sed 's/^/has /'\n"


def fresh(stage: str = "main") -> str:
    """The beginning of a stage whose steps no daemon has cached: cached ones print nothing."""
    return f"FROM debian:bookworm AS {stage}\nRUN : {secrets.token_hex(8)}\n"


def new_value() -> str:
    return f"npm_{secrets.token_urlsafe(24)}"


def looks_at(value: str) -> str:
    """A Dockerfile that fails unless the secret `npm_token` has this value, which it does not hold."""
    digest = hashlib.sha256(value.encode()).hexdigest()
    return (
        "FROM debian:bookworm\n"
        f'RUN {SECRET_MOUNT} test "$(sha256sum < /run/secrets/npm_token)" = "{digest}  -" && echo right-value\n'
        "RUN test ! -e /run/secrets/npm_token\n"
    )


def file(path: str, content: str, mode: str = "0644") -> dict[str, str]:
    encoded = base64.b64encode(content.encode()).decode()
    return {"path": path, "entry_type": "file", "mode": mode, "content_base64": encoded}


def ask(body: dict[str, Any]) -> TemplateBuild:
    """Asks for a build by plain HTTP."""
    with http() as client:
        response = client.post("/v1/templates/builds", json=body)
    equal(response.status_code, 202, f"status ({response.text[:300]})")
    return TemplateBuild.connect(response.json()["build_id"])


def messages(entries: Entries) -> list[str]:
    return [entry.message for entry in entries]


def finish(handle: TemplateBuild) -> list[str]:
    """Waits until the build is ready and gives what its log says."""
    entries: Entries = []
    handle.wait_until_terminal(on_log_entry=entries.append)
    is_whole_log(entries)
    equal(handle.status, TemplateBuildStatus.READY, "status")
    return messages(entries)


def said(lines: list[str], *wanted: str) -> None:
    for line in wanted:
        holds(line in lines, f"the log has the line {line!r}: {lines}")


def refused(body: dict[str, Any], *named: str) -> None:
    """The request is refused before anything is recorded."""
    name = unique("refused")
    with http() as client:
        is_error(client.post("/v1/templates/builds", json={**body, "name": name}), 400, "invalid_request", *named)
    is_unknown(name)


def a_secret_of_the_environment_reaches_the_step_that_mounts_it() -> None:
    value = new_value()
    variable = f"NPM_TOKEN_{secrets.token_hex(4)}"
    os.environ[variable] = value
    builder = Template.from_dockerfile_content(looks_at(value)).add_build_secret_env("npm_token", variable)
    result, entries = build(builder, unique("secret-env"))
    is_whole_log(entries)
    said(messages(entries), "right-value")
    equal(messages(entries).count("Running the steps"), 1, "times that steps are run")
    equal(result.build_backend, TemplateBuildBackend.BUILDKIT, "backend")
    equal(result.source_type, TemplateBuildSourceType.DOCKERFILE, "source type")
    holds(value not in repr(result) + repr(entries), "the value is in nothing that the client was told")
    stored = TemplateBuild.connect(result.build_id)
    equal(stored.build_backend, TemplateBuildBackend.BUILDKIT, "backend on record")
    equal(stored.source_type, TemplateBuildSourceType.DOCKERFILE, "source type on record")


def the_command_line_builds_a_dockerfile_with_a_secret() -> None:
    value = new_value()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text(looks_at(value) + "COPY hello.txt /hello.txt\n")
        Path(folder, "hello.txt").write_text("hello\n")
        arguments = ["template", "build", "--from-dockerfile", "./Dockerfile", "--name", unique("secret-cli")]
        arguments += ["--build-secret-env", "npm_token=NPM_TOKEN"]
        done = subprocess.run(
            [NULLSPACE, *arguments],
            cwd=folder,
            env={**os.environ, "NPM_TOKEN": value},
            capture_output=True,
            text=True,
            check=False,
        )
    equal(done.returncode, 0, f"exit code ({done.stderr})")
    holds("right-value" in done.stderr, f"the step's output is printed: {done.stderr}")
    holds("ready" in done.stdout, f"the result says that it is ready: {done.stdout}")
    holds(value not in done.stdout + done.stderr, "the value is printed nowhere")


def a_plain_request_brings_its_secret_with_its_value() -> None:
    value = new_value()
    body = {
        "dockerfile": looks_at(value),
        "name": unique("secret-http"),
        "build_secrets": [{"id": "npm_token", "value": value, "source": "env"}],
    }
    said(finish(ask(body)), "right-value")
    # The variable would be one of the service: only the client can read it.
    nameless = {**body, "build_secrets": [{"id": "npm_token", "source": "env"}]}
    refused(nameless, "build_secrets[0].value")


def item_10_secrets_of_a_retry_are_brought_again() -> None:
    name, value = unique("secret-retry"), new_value()
    text = looks_at(value)
    builder = Template.from_dockerfile_content(text).add_build_secret("npm_token", "wrong at first")
    error = raises(BuildError, lambda: Template.build(builder, name))
    equal(error.details["reason"], "step_failed", "reason")
    failed = TemplateBuild.connect(error.build_id)
    for brought in ([], [TemplateBuildSecret("npm_token", value), TemplateBuildSecret("other", "x")]):
        refusal = raises(MachineError, lambda brought=brought: failed.retry(build_secrets=brought))
        equal(refusal.code, "invalid_request", "code")
        holds("build_secrets" in str(refusal), f"the message names the field: {refusal}")
        holds(value not in str(refusal), "the value is not repeated")
    again = failed.retry(build_secrets=[TemplateBuildSecret("npm_token", value)], tags=["r1"])
    equal(again.retry_of_build_id, failed.build_id, "the build that was retried")
    said(finish(again), "right-value")


def stages_heredocs_and_files_of_other_stages() -> None:
    text = f"""{fresh("tools")}RUN echo made > /made

{fresh("base")}WORKDIR /srv/app
RUN <<SCRIPT
set -eu
echo "in $(pwd)" > here
echo heredoc-ran
SCRIPT

FROM base
COPY --from=tools /made /made
COPY <<FILE /etc/greeting
hello from a heredoc
FILE
RUN test "$(cat /made)" = made && test "$(cat here)" = "in /srv/app" && cat /etc/greeting
"""
    result, entries = build(Template.from_dockerfile_content(text), unique("stages"))
    is_whole_log(entries)
    said(messages(entries), "heredoc-ran", "hello from a heredoc")
    equal(result.runtime_defaults.default_workdir, "/srv/app", "working folder of machines")
    steps = [(e.step_index, e.total_steps) for e in entries if e.step_index is not None]
    holds(bool(steps), "the log tells of steps")
    equal(len({total for _, total in steps}), 1, "numbers of steps")
    holds(all(1 <= index <= total for index, total in steps), f"places of steps: {steps}")


def a_cache_mount_is_shared_by_builds_and_is_in_no_template() -> None:
    shared = unique("cache")
    mount = f"--mount=type=cache,id={shared},target=/cache"

    def definition(number: int) -> str:
        return (
            "FROM debian:bookworm\n"
            f"RUN {mount} echo build-{number} >> /cache/builds && sed 's/^/cache has /' /cache/builds\n"
            "RUN test ! -e /cache/builds\n"
        )

    for number in (1, 2):
        _, entries = build(Template.from_dockerfile_content(definition(number)), shared)
        is_whole_log(entries)
        said(messages(entries), *(f"cache has build-{seen}" for seen in range(1, number + 1)))


def item_4_a_dockerfile_with_a_context_and_a_secret() -> None:
    name, value = unique("my-app"), new_value()
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        make_context(context, name)
        # The files that are alike are nobody else's.
        code = f"print({name!r})\n"
        for file in ("main.py", "duplicate.py"):
            (context / "src" / file).write_text(code)
        (context / "Dockerfile").write_text(
            "FROM debian:bookworm\nCOPY src /app\n"
            "RUN cmp /app/main.py /app/duplicate.py && test -d /app/emptydir && test ! -s /app/empty.txt && "
            f"test ! -e /app/debug.log && test -e '/app/{ODD_FOLDER}/{ODD_FILE}'\n"
            "RUN --mount=type=secret,id=pip_token,required=true "
            f'test "$(sha256sum < /run/secrets/pip_token)" = "{hashlib.sha256(value.encode()).hexdigest()}  -" '
            "&& cat /run/secrets/pip_token\n"
        )
        progress: list[UploadProgress] = []
        entries: Entries = []
        builder = Template.from_dockerfile(str(context / "Dockerfile")).add_build_secret("pip_token", value)
        result = Template.build(builder, name=name, on_log_entry=entries.append, on_upload_progress=progress.append)
    is_whole_log(entries)
    equal(result.status, TemplateBuildStatus.READY, "status")
    equal(
        (result.build_backend, result.source_type),
        (TemplateBuildBackend.BUILDKIT, TemplateBuildSourceType.DOCKERFILE),
        "backend and source type",
    )
    phases: dict[str, list[UploadProgressPhase]] = {}
    for one in progress:
        seen = phases.setdefault(one.upload_id, [])
        if one.phase not in seen:
            seen.append(one.phase)
    # The file that is there twice is one blob; the rest may be there from other builds.
    new = {f"blob_{hashlib.sha256(content.encode()).hexdigest()}" for content in (code, name)}
    holds(new <= phases.keys(), f"blobs that were sent: {phases}, and not {new}")
    for blob, seen in phases.items():
        equal(seen[-2:], [UploadProgressPhase.UPLOADING, UploadProgressPhase.COMPLETED], f"progress of {blob}")

    with http() as client:
        for path in (
            f"builds/{result.build_id}?offset=0",
            f"builds/{result.build_id}/logs?follow=false",
            f"refs/{name}",
            f"refs/{name}/builds",
        ):
            answer = client.get(f"/v1/templates/{path}")
            equal(answer.status_code, 200, f"status of {path}")
            holds(value not in answer.text, f"the value is in the answer to {path}")
    holds(value not in repr(result) + repr(entries), "the value is in what the client was told")


def item_5_a_dockerfile_without_a_file() -> None:
    text = f"{fresh()}RUN true\n"
    result, entries = build(Template.from_dockerfile_content(text), unique("content"))
    is_whole_log(entries)
    equal(result.status, TemplateBuildStatus.READY, "status")
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        make_context(context, unique("content"))
        # The one in the folder is another one.
        text = f"{fresh()}COPY src/main.py /\nRUN cat /main.py\n"
        builder = Template.from_dockerfile_content(text, file_context_path=folder)
        result, entries = build(builder, unique("content"))
    is_whole_log(entries)
    equal(result.source_type, TemplateBuildSourceType.DOCKERFILE, "source type")
    said(messages(entries), MAIN.strip())


def a_dockerfile_with_a_context_uploads_it_without_what_is_ignored() -> None:
    salt = unique("context")
    text = """FROM debian:bookworm
COPY . /app/
RUN set -eu; cd /app; cat src/main.txt; test -d emptydir; test -e 'sp ace/naïve ü.txt'; test ! -e debug.log; \\
    test ! -e Dockerfile; test ! -e .dockerignore; test "$(stat -c %a src/main.txt)" = 640; echo all-there
"""
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        for name in ("src", "emptydir", "sp ace"):
            (context / name).mkdir()
        (context / "Dockerfile").write_text(text)
        (context / ".dockerignore").write_text("*.log\n")
        (context / "debug.log").write_text("not for the build")
        (context / "src/main.txt").write_text(f"{salt}\n")
        (context / "src/main.txt").chmod(0o640)
        (context / "sp ace/naïve ü.txt").write_text("odd")
        progress: list[UploadProgress] = []
        builder = Template.from_dockerfile(str(context / "Dockerfile"))
        _, entries = build(builder, salt, on_upload_progress=progress.append)
    is_whole_log(entries)
    said(messages(entries), salt, "all-there")
    sent = {p.target_path for p in progress if p.phase == UploadProgressPhase.COMPLETED}
    holds("src/main.txt" in sent, f"what is new was uploaded: {sent}")
    holds("debug.log" not in sent, f"what is ignored was not uploaded: {sent}")


def a_nested_dockerfile_has_the_ignore_file_beside_it() -> None:
    files = [
        file("docker/app.Dockerfile.dockerignore", "**/*.log\n!keep.log\ndocker\n"),
        # Not in force: the one beside the Dockerfile is.
        file(".dockerignore", "src\n"),
        file("src/main.txt", "main"),
        file("src/debug.log", "noise"),
        file("keep.log", "kept"),
        {"path": "docker", "entry_type": "dir", "mode": "0755"},
    ]
    body = {
        "dockerfile": f"{fresh()}COPY . /app/\n{LIST_FILES}",
        "dockerfile_path": "docker/app.Dockerfile",
        "build_context": {"files": files},
        "name": unique("nested"),
    }
    lines = finish(ask(body))
    found = [line for line in lines if line.startswith("has ")]
    equal(found, ["has ./.dockerignore", "has ./keep.log", "has ./src/main.txt"], "files that were copied")


def the_ignore_file_of_a_context_is_in_force() -> None:
    text = f"{fresh()}COPY . /app/\n{LIST_FILES}"
    files = [
        file(".dockerignore", "# a remark\n*.log\ntmp/**\n!tmp/kept\n"),
        file("a.log", ""),
        file("tmp/gone", ""),
        file("tmp/kept", ""),
        file("main.txt", ""),
    ]
    body = {"dockerfile": text, "build_context": {"files": files}, "name": unique("ignored")}
    lines = finish(ask(body))
    found = [line for line in lines if line.startswith("has ")]
    equal(found, ["has ./.dockerignore", "has ./main.txt", "has ./tmp/kept"], "files that were copied")


def arguments_and_the_target_are_passed_on() -> None:
    text = """ARG TAG=no-such-tag
FROM debian:${TAG} AS wanted
ARG SALT
RUN : $SALT
ARG GREETING=default
ARG UNSET=unset
RUN echo "greeting: $GREETING, unset: $UNSET, undeclared: ${UNDECLARED-none}"

FROM wanted AS unwanted
RUN exit 9
"""
    body = {
        "dockerfile": text,
        "build_args": {
            "TAG": "bookworm",
            "SALT": secrets.token_hex(8),
            "GREETING": 'a "quoted", $odd = text',
            "UNDECLARED": "x",
        },
        "build_target": "wanted",
        "name": unique("arguments"),
    }
    said(finish(ask(body)), 'greeting: a "quoted", $odd = text, unset: unset, undeclared: none')


def build_variables_of_the_client_are_arguments() -> None:
    text = fresh() + 'ARG STAGE\nRUN echo "stage: $STAGE"\n'
    builder = Template.from_dockerfile_content(text).set_build_envs({"STAGE": "build"}).env({"IN_MACHINES": "1"})
    result, entries = build(builder, unique("variables"))
    said(messages(entries), "stage: build")
    keys = result.runtime_defaults.default_env_keys
    holds("STAGE" not in keys and "IN_MACHINES" in keys, f"variables of machines: {keys}")


def failures_say_where() -> None:
    cases = {
        "step_failed": "FROM debian:bookworm\nRUN echo the-last-words >&2; exit 3\n",
        "dockerfile_invalid": "FROM debian:bookworm\nRUNN true\n",
        "secret_missing": f"FROM debian:bookworm\nRUN {SECRET_MOUNT} true\n",
        "bad_reference": "FROM debian:no-such-tag\n",
    }
    for reason, text in cases.items():
        entries: Entries = []
        name = unique("failing")
        builder = Template.from_dockerfile_content(text)
        error = raises(BuildError, lambda b=builder, n=name, e=entries: Template.build(b, n, on_log_entry=e.append))
        is_whole_log(entries, TemplateBuildLogKind.ERROR)
        equal(error.details["reason"], reason, f"reason ({error})")
        equal(error.retryable, False, f"retryable ({reason})")
        if reason == "step_failed":
            equal(error.details["exit_code"], 3, "exit code")
            holds("the-last-words" in f"{error} {error.details}", f"the last lines of stderr are told: {error}")
        if reason == "dockerfile_invalid":
            holds("2" in str(error) and "RUNN" in str(error), f"the line and the word are told: {error}")
        if reason == "secret_missing":
            holds("npm_token" in str(error), f"the secret is named: {error}")


def what_a_dockerfile_cannot_have_is_refused() -> None:
    text = "FROM debian:bookworm\n"
    basic = {"kind": "basic", "username": "u", "password": "planted-password"}
    refused({"dockerfile": text, "build_backend": "native"}, "build_backend")
    refused({"dockerfile": ""}, "dockerfile")
    refused({"dockerfile": text, "dockerfile_path": "../Dockerfile"}, "dockerfile_path")
    refused({"dockerfile": text, "build_args": {"BUILDKIT_SYNTAX": "evil/frontend"}}, "build_args.BUILDKIT_SYNTAX")
    refused({"dockerfile": text, "build_target": "a b"}, "build_target")
    refused({"dockerfile": text, "build_secrets": [{"id": "a/b", "value": "v"}]}, "build_secrets[0].id")
    elsewhere = [{"registry": "ghcr.io", "auth": basic}]
    refused({"dockerfile": text, "registry_auth": elsewhere}, "registry_auth[0].registry", "ghcr.io")
    refused({"base_image": "debian:bookworm", "build_secrets": [{"id": "a", "value": "v"}]}, "build_secrets")


if __name__ == "__main__":
    main(
        [
            a_secret_of_the_environment_reaches_the_step_that_mounts_it,
            the_command_line_builds_a_dockerfile_with_a_secret,
            a_plain_request_brings_its_secret_with_its_value,
            item_10_secrets_of_a_retry_are_brought_again,
            stages_heredocs_and_files_of_other_stages,
            a_cache_mount_is_shared_by_builds_and_is_in_no_template,
            item_4_a_dockerfile_with_a_context_and_a_secret,
            item_5_a_dockerfile_without_a_file,
            a_dockerfile_with_a_context_uploads_it_without_what_is_ignored,
            a_nested_dockerfile_has_the_ignore_file_beside_it,
            the_ignore_file_of_a_context_is_in_force,
            arguments_and_the_target_are_passed_on,
            build_variables_of_the_client_are_arguments,
            failures_say_where,
            what_a_dockerfile_cannot_have_is_refused,
        ]
    )
