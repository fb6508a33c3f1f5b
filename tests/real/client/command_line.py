"""Every line of the command line that the contract's conformance script has, run as a user runs it.

contract/behaviour.md, section 11. Each line asserts its exit code and what it prints where.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from common import equal, holds, key, main, unique

NULLSPACE = Path(sys.executable).with_name("nullspace")
IMAGE = "debian:bookworm"
TIMEOUT_SECONDS = 300
NOT_FOUND, CONFLICT, UNAUTHORIZED, USAGE = 3, 7, 4, 2


class Done:
    """What a command left."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.line = " ".join(str(word) for word in done.args[1:])

    def __str__(self) -> str:
        return f"`{self.line}` exited with {self.code}:\n{self.out}\n{self.err}"

    def exits(self, code: int, *said: str) -> Done:
        equal(self.code, code, f"exit code of {self}")
        for word in said:
            holds(word in self.out + self.err, f"{word!r} is said by {self}")
        return self

    def json(self) -> Any:
        self.exits(0)
        return json.loads(self.out)


def run(*words: str, env: dict[str, str] | None = None, cwd: str | None = None) -> Done:
    done = subprocess.run(
        [NULLSPACE, *words],
        env=os.environ | (env or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    return Done(done)


def template(*words: str, **options: Any) -> Done:
    return run("template", *words, **options)


@cache
def made() -> dict[str, Any]:
    """A tiny template that the lines share, built once in a process."""
    name = unique("line")
    return template("build", "--from-image", IMAGE, "--run-cmd", "echo hi", "--name", name, "--tag", "v1", "--json").json()


def context(folder: str) -> Path:
    """The context of the conformance script: a duplicate, an empty file and folder, odd names, ignored files."""
    root = Path(folder)
    (root / "src" / "empty").mkdir(parents=True)
    (root / "src" / "main.py").write_text("print('hi')\n")
    (root / "src" / "copy.py").write_text("print('hi')\n")
    (root / "src" / "nothing").write_text("")
    (root / "src" / "a näme.txt").write_text("odd\n")
    (root / "src" / "noise.log").write_text("ignored\n")
    (root / ".dockerignore").write_text("*.log\n**/*.log\n")
    mount = "--mount=type=secret,id=pip_token --mount=type=secret,id=T --mount=type=secret,id=F"
    (root / "Dockerfile").write_text(
        f"FROM {IMAGE}\nCOPY src /app\nRUN test -e '/app/a näme.txt' && test ! -e /app/noise.log\n"
        f"RUN {mount} cat /run/secrets/pip_token /run/secrets/T /run/secrets/F | wc -c\n"
    )
    return root


def an_image_is_built_with_its_log_on_stderr() -> None:
    name = unique("line")
    done = template("build", "--from-image", IMAGE, "--run-cmd", "echo hi", "--name", name, "--tag", "v1")
    built = done.json()
    equal((built["status"], built["tags"], built["name"]), ("ready", ["v1"], name), "what was built")
    told = done.err.splitlines()
    holds(told[0].startswith("==> ") and "hi" in told, f"the log is on stderr: {done}")


def a_dockerfile_is_built_with_secrets_that_are_nowhere() -> None:
    values = [f"value-{secrets.token_hex(12)}" for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        root = context(folder)
        kept = root.parent / f"{unique('secret')}.txt"
        kept.write_text(values[2])
        try:
            done = template(
                "build", "--from-dockerfile", str(root / "Dockerfile"),
                "--build-secret", f"pip_token={values[0]}",
                "--build-secret-env", "T=ENVVAR",
                "--build-secret-file", f"F={kept}",
                "--name", unique("line"), "--log-format", "jsonl",
                env={"ENVVAR": values[1]},
            )  # fmt: skip
        finally:
            kept.unlink()
    done.exits(0)
    entries = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    holds(len(entries) > 3, f"each entry is a JSON line: {done}")
    for value in values:
        holds(value not in done.out + done.err, "a value is shown")


def files_of_a_context_are_copied() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = context(folder)
        done = template(
            "build", "--from-debian-image", "--file-context", str(root), "--copy-src", "src", "--copy-dst", "/app/",
            "--copy-items", '[["src/main.py","/m/"]]', "--name", unique("line"),
        )  # fmt: skip
    equal(done.json()["status"], "ready", "status")


def a_build_in_the_background_is_waited_for_and_looked_at() -> None:
    built = template("build", "--from-image", IMAGE, "--run-cmd", "echo behind", "--name", unique("line"), "--background").json()
    holds(built["status"] in ("waiting", "building"), f"status {built['status']}")
    id_ = built["build_id"]
    waited = template("wait", id_).exits(0)
    holds("ready" in waited.out, f"its end is told: {waited}")
    status = template("build-status", id_, "--offset", "2").json()
    offsets = [entry["offset"] for entry in status["entries"]]
    equal(offsets[:1], [2], "first offset")
    shown = template("logs", id_).exits(0)
    holds("behind" in shown.out, f"the log is shown: {shown}")
    followed = template("logs", id_, "--follow", "--json").exits(0)
    holds("behind" in followed.out, f"the log is followed to its end: {followed}")
    equal(json.loads(followed.out)[-1]["kind"], "end", "its last entry")
    later = template("logs", id_, "--since", "2099-01-01T00:00:00Z").exits(0)
    equal(later.out.strip(), "", "entries of the future")


def a_failing_step_and_a_bad_key_say_so() -> None:
    words = ("build", "--from-image", IMAGE, "--run-cmd", "exit 3", "--name", unique("line"))
    # Not an envelope, with `--json` either: a foreground build tells its failure as text.
    for failed in (template(*words), template(*words, "--json")):
        failed.exits(1)
        equal(failed.out, "", f"stdout of {failed}")
        told = failed.err.splitlines()
        for start in (
            "ERROR ",
            "Phase: build_step",
            "Code: build_error",
            "Retryable: false",
            "Build ID: tb_",
            "Suggested action: ",
            "Inspect logs: nullspace template logs tb_",
        ):
            holds(any(line.startswith(start) for line in told), f"a line {start!r} is on stderr: {failed}")
    id_ = next(line.removeprefix("Build ID: ") for line in told if line.startswith("Build ID: "))
    template("wait", id_).exits(1, "Phase: build_step", f"Build ID: {id_}")
    template("promote", id_, "--tag", "prod").exits(CONFLICT)
    entries = [json.loads(line) for line in template(*words, "--log-format", "jsonl").exits(1).err.splitlines()]
    last = entries[-1]
    equal((last["kind"], last["code"]), ("terminal_error", "build_error"), "the last line of JSON")
    equal(last["error_detail"]["phase"], "build_step", "its phase")
    holds(last["inspection_command"].startswith("nullspace template logs tb_"), f"what to do: {last}")

    wrong = {"NULLSPACE_API_KEY": "ns_live_wrong"}
    template(*words, env=wrong).exits(1)
    refused = template(*words, "--background", env=wrong).exits(UNAUTHORIZED)
    equal(refused.out, "", f"stdout of {refused}")
    error = json.loads(template("get", "x", "--json", env=wrong).exits(UNAUTHORIZED).out)["error"]
    equal(error["code"], "unauthorized", "code in the envelope")
    template("list", env={"NULLSPACE_API_KEY": "", "NULLSPACE_TOKEN": "", "HOME": "/nonexistent"}).exits(UNAUTHORIZED)


def what_asks_nobody_asks_nobody() -> None:
    nobody = {"NULLSPACE_API_URL": "http://127.0.0.1:9", "NULLSPACE_API_KEY": "ns_live_none"}
    secret = f"value-{secrets.token_hex(12)}"
    with tempfile.TemporaryDirectory() as folder:
        root = context(folder)
        dockerfile = ("--from-dockerfile", str(root / "Dockerfile"), "--build-secret", f"pip_token={secret}", "--name", "x")
        dry = template("build", *dockerfile, "--dry-run", "--json", env=nobody).exits(0, "[REDACTED]")
        rendered = template("render", "json", *dockerfile, env=nobody).exits(0, "[REDACTED]")
        for done in (dry, rendered):
            holds(secret not in done.out + done.err, "the value is shown")
    template("render", "dockerfile", "--from-image", IMAGE, "--run-cmd", "echo hi", "--name", "x", env=nobody).exits(0, "FROM ", "echo hi")


def wrong_usage_is_2() -> None:
    template("build", "--from-image", IMAGE).exits(USAGE)
    template("build", "--from-image", IMAGE, "--name", "x", "--backend", "native").exits(USAGE)
    template("validate", "--from-image", IMAGE, "--json").exits(USAGE)


def a_definition_is_validated_and_planned() -> None:
    valid = template("validate", "--from-image", IMAGE).exits(0)
    holds("valid" in valid.out, f"it is said: {valid}")
    with tempfile.TemporaryDirectory() as folder:
        root = context(folder)
        plan = template("plan", "--from-dockerfile", str(root / "Dockerfile")).exits(0)
    holds("file_count" in plan.out, f"the context is in the plan: {plan}")


def builds_are_listed() -> None:
    name = made()["name"]
    listed = template("builds", name, "--status", "ready", "--limit", "5").json()
    holds(made()["build_id"] in [row["build_id"] for row in listed["builds"]], f"the build is listed: {listed}")


def a_build_is_cancelled_retried_and_promoted() -> None:
    words = ("build", "--from-image", IMAGE, "--run-cmd", "echo begun; sleep 300", "--name", unique("line"), "--background")
    id_ = template(*words).json()["build_id"]
    cancelled = template("cancel", id_, "--reason", "r").json()["build"]
    holds(cancelled["status"] in ("building", "cancelled"), f"status {cancelled['status']}")
    template("wait", id_).exits(0)
    equal(template("build-status", id_).json()["build"]["status"], "cancelled", "status")
    template("promote", id_, "--tag", "prod").exits(CONFLICT)
    promoted = template("promote", made()["build_id"], "--tag", "prod").json()
    holds("prod" in promoted["tags"], f"tags {promoted['tags']}")


def a_build_with_a_secret_is_retried_with_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Dockerfile"
        path.write_text(f"FROM {IMAGE}\nRUN --mount=type=secret,id=pip_token exit 4\n")
        words = ("--from-dockerfile", str(path), "--build-secret", "pip_token=first-value", "--name", unique("line"))
        id_ = template("build", *words, "--background").json()["build_id"]
    template("wait", id_).exits(1)
    template("retry", id_).exits(USAGE, "build_secrets")
    again = template("retry", id_, "--tag", "r1", "--build-secret", "pip_token=S").json()
    equal((again["retry_of_build_id"], again["tags"]), (id_, ["r1"]), "the retry")
    template("wait", again["build_id"]).exits(1)


def templates_are_listed_and_looked_up() -> None:
    built = made()
    name = built["name"]
    template("list").exits(0, name)
    listed = template("list", "--json").json()
    holds(name in [row["name"] for row in listed], "it is listed")
    template("list", "--fields", "id,tags").exits(0, built["template_id"])
    got = template("get", name, "--fields", "id,name").json()
    equal(got, {"id": built["template_id"], "name": name}, "asked fields")
    missing = template("get", unique("nope"), "--json").exits(NOT_FOUND)
    equal(json.loads(missing.out)["error"]["code"], "template_not_found", "code")
    template("exists", name).exits(0, "true")
    template("exists", unique("nope")).exits(0, "false")


def a_template_is_tagged_renamed_shown_and_deleted() -> None:
    name, other = unique("line"), unique("renamed")
    built = template("build", "--from-image", IMAGE, "--run-cmd", "echo hi", "--name", name).json()
    reference = f"{name}:{built['build_id']}"
    template("tag", "assign", reference, "a", "b").exits(0)
    template("tag", "list", name).exits(0, "a", "b")
    template("tag", "remove", name, "a").exits(0)
    template("get", f"{name}:a").exits(NOT_FOUND)
    template("visibility", "set", name, "public").exits(0, "public")
    template("visibility", "set", name, "private").exits(0, "private")
    template("rename", name, other).exits(0, other)
    template("get", name).exits(0, other)
    aliases = template("alias", "list", other).exits(0, name)
    holds(f"/{name}" in aliases.out, f"the alias is a full name: {aliases}")
    alias = next(word.strip('",') for word in aliases.out.split() if word.strip('",').endswith(f"/{name}"))
    template("alias", "remove", other, alias).exits(0)
    template("get", name).exits(NOT_FOUND)
    template("delete", other).exits(0)
    template("exists", other).exits(0, "false")


def names_are_reserved_and_namespaces_looked_up() -> None:
    claim = template("reserve", unique("held")).json()
    template("claim", "release", claim["claim_token"]).exits(0)
    template("claim", "release", claim["claim_token"]).exits(NOT_FOUND)
    slug = template("get", made()["name"]).json()["namespace_slug"]
    template("namespace", "get", slug).exits(0, slug)
    template("namespace", "get", unique("nobody")).exits(NOT_FOUND)


def a_project_is_begun_and_the_connection_is_fine() -> None:
    with tempfile.TemporaryDirectory() as folder:
        template("init", cwd=folder).exits(0)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        equal(len(files), 5, f"files of a new project: {files}")
    doctor = run("doctor", "--json").json()
    equal(doctor["ok"], True, f"doctor: {doctor}")
    status = run("auth", "status", "--json").exits(0)
    holds(key() not in status.out, f"the key is not shown whole: {status.out}")


if __name__ == "__main__":
    main(
        [
            an_image_is_built_with_its_log_on_stderr,
            a_dockerfile_is_built_with_secrets_that_are_nowhere,
            files_of_a_context_are_copied,
            a_build_in_the_background_is_waited_for_and_looked_at,
            a_failing_step_and_a_bad_key_say_so,
            what_asks_nobody_asks_nobody,
            wrong_usage_is_2,
            a_definition_is_validated_and_planned,
            builds_are_listed,
            a_build_is_cancelled_retried_and_promoted,
            a_build_with_a_secret_is_retried_with_it,
            templates_are_listed_and_looked_up,
            a_template_is_tagged_renamed_shown_and_deleted,
            names_are_reserved_and_namespaces_looked_up,
            a_project_is_begun_and_the_connection_is_fine,
        ]
    )
