"""Builds that use, print, leak and lose secret values. Each scenario is run by the suite, in order.

Everything that the service answers is written to a file, body for body: the suite looks through it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
from nullspace import Template, TemplateBuild
from nullspace.errors import BuildError, MachineError
from nullspace.types import TemplateBuildSecret, TemplateBuildStatus

from common import build, equal, holds, http, is_whole_log, main, raises, unique

VALUE = os.environ.get("NULLSPACE_TEST_VALUE", "")
OTHER_VALUE = os.environ.get("NULLSPACE_TEST_OTHER_VALUE", "")
LINES = os.environ.get("NULLSPACE_TEST_LINES", "")
PLANTED = os.environ.get("NULLSPACE_TEST_PLANTED", "")
WIRE = os.environ.get("NULLSPACE_TEST_WIRE", "")

MOUNT = "--mount=type=secret,id=token,required=true"
MOUNTS = f"{MOUNT} --mount=type=secret,id=key.pem"
# The smallest machine that Debian boots in.
SIZE = {"vcpus": 1, "memory_mib": 256}


class Tee(httpx.SyncByteStream):
    """A body that is written down as it is read."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with open(WIRE, "ab") as record:
            for piece in self.stream:
                record.write(piece)
                record.flush()
                yield piece

    def close(self) -> None:
        self.stream.close()


def record_answers() -> None:
    answer = httpx.HTTPTransport.handle_request

    def recorded(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        response = answer(self, request)
        with open(WIRE, "ab") as record:
            record.write(repr(response.headers.raw).encode())
        response.stream = Tee(response.stream)
        return response

    httpx.HTTPTransport.handle_request = recorded  # type: ignore[method-assign]


def dockerfile(*lines: str) -> Template:
    return Template.from_dockerfile_content("\n".join(["FROM debian:bookworm", *lines, ""]))


def with_secrets(builder: Template, value: str = VALUE) -> Template:
    return builder.add_build_secret("token", value).add_build_secret("key.pem", LINES)


def look_everywhere(build_id: str) -> None:
    """Asks for all that the service tells about a build; what it answers is recorded."""
    with http() as client:
        for path in ("", "/logs?follow=false"):
            response = client.get(f"/v1/templates/builds/{build_id}{path}")
            equal(response.status_code, 200, f"status of {path!r}")
            holds(VALUE not in response.text, "the value is not told")
        for path in ("/v1/templates", "/metrics"):
            equal(client.get(path).status_code, 200, f"status of {path}")


def messages(entries: list[Any]) -> str:
    return "\n".join(entry.message for entry in entries)


def a_build_that_uses_them_has_the_right_bytes() -> None:
    # Sizes and digests say that the values are there, and nothing of what they are.
    size = len(VALUE.encode())
    builder = with_secrets(
        dockerfile(
            f'RUN {MOUNTS} test "$(wc -c < /run/secrets/token)" = {size} && test "$(wc -l < /run/secrets/key.pem)" = 3',
            "RUN test ! -e /run/secrets/token",
            f"RUN echo {PLANTED}",
        )
    )
    result, entries = build(builder, unique("uses"), **SIZE)
    equal(result.status, TemplateBuildStatus.READY, "status")
    is_whole_log(entries)
    holds(PLANTED in messages(entries), "what is no secret is shown")
    look_everywhere(result.build_id)


def another_value_does_not_miss_the_cache_and_another_id_is_another_plan() -> None:
    name = unique("cached")
    step = f"RUN {MOUNT} date +%N > /made && echo made"
    for value in (VALUE, OTHER_VALUE):
        result, entries = build(dockerfile(step).add_build_secret("token", value), name, **SIZE)
        look_everywhere(result.build_id)
    cached = [e for e in entries if getattr(e.cache_status, "value", None) == "hit"]
    holds(any(e.cache_kind.value == "final_artifact" for e in cached), f"the second build reuses the first: {cached}")
    other = dockerfile(step).add_build_secret("token", VALUE).add_build_secret("other", VALUE)
    result, entries = build(other, name, **SIZE)
    misses = [e for e in entries if getattr(e.cache_status, "value", None) == "miss"]
    holds(any(e.cache_kind.value == "final_artifact" for e in misses), "another id is another template")
    look_everywhere(result.build_id)


def a_build_that_prints_them_shows_none() -> None:
    builder = with_secrets(
        dockerfile(
            f"RUN {MOUNTS} cat /run/secrets/token && cat /run/secrets/key.pem >&2",
            # Half of it, a while, and the rest: two pieces for whoever reads.
            f"RUN {MOUNT} head -c 20 /run/secrets/token; sleep 0.6; tail -c +21 /run/secrets/token; sleep 0.6; echo",
            f"RUN {MOUNTS} base64 -w0 /run/secrets/token; echo; base64 /run/secrets/key.pem; printf x | cat - /run/secrets/token | base64 -w0",
            f"RUN {MOUNT} od -An -tx1 /run/secrets/token | tr -d ' \\n'; echo",
            f"RUN {MOUNT} perl -pe 's/([^A-Za-z0-9_.~-])/sprintf(\"%%%02X\",ord($1))/seg' /run/secrets/token; echo",
        )
    )
    result, entries = build(builder, unique("prints"), **SIZE)
    equal(result.status, TemplateBuildStatus.READY, "status")
    holds(messages(entries).count("[REDACTED]") >= 6, f"what was printed is told as removed: {messages(entries)}")
    look_everywhere(result.build_id)


def failed() -> TemplateBuild:
    builder = with_secrets(
        dockerfile(f"RUN {MOUNTS} echo begun && cat /run/secrets/token /run/secrets/key.pem >&2; exit 3")
    )
    error = raises(BuildError, lambda: Template.build(builder, unique("fails"), **SIZE))
    equal(error.details["reason"], "step_failed", "reason")
    holds(VALUE not in f"{error} {error.details}", "the error does not repeat the value")
    look_everywhere(error.build_id)
    return TemplateBuild.connect(error.build_id)


def a_build_that_fails_and_its_retry_show_none() -> None:
    build_ = failed()
    for secrets, word in (
        (None, "token"),
        ([TemplateBuildSecret("token", OTHER_VALUE)], "key.pem"),
        ([TemplateBuildSecret(id_, OTHER_VALUE) for id_ in ("token", "key.pem", "more")], "more"),
    ):
        error = raises(MachineError, lambda secrets=secrets: build_.retry(build_secrets=secrets))
        equal(error.code, "invalid_request", "code")
        holds("build_secrets" in str(error) and word in str(error), f"the message says what is wrong: {error}")
    fresh = [TemplateBuildSecret("token", OTHER_VALUE), TemplateBuildSecret("key.pem", LINES)]
    again = build_.retry(build_secrets=fresh)
    error = raises(BuildError, again.wait_until_terminal)
    equal(error.details["reason"], "step_failed", "reason of the retry")
    equal(again.retry_of_build_id, build_.build_id, "what was retried")
    look_everywhere(again.build_id)


def a_build_that_is_cancelled_shows_none() -> None:
    builder = with_secrets(dockerfile(f"RUN {MOUNTS} echo begun && cat /run/secrets/token && sleep 300"))
    handle = Template.build_in_background(builder, unique("cancelled"), **SIZE)
    for entry in handle.logs(follow=True):
        if entry.message == "begun":
            handle.cancel(reason="enough")
    equal(handle.get_status().status, TemplateBuildStatus.CANCELLED, "status")
    look_everywhere(handle.build_id)


def a_build_that_writes_one_into_the_image_fails_and_names_the_file() -> None:
    for step, place in (
        (f"RUN {MOUNT} mkdir -p /opt/kept && cp /run/secrets/token /opt/kept/file", "/opt/kept/file"),
        (f"RUN {MOUNT} (echo before; base64 -w0 /run/secrets/token; echo behind) > /opt/encoded", "/opt/encoded"),
        (f"RUN {MOUNT} ln -s \"$(cat /run/secrets/token)\" /opt/link", "/opt/link"),
    ):
        builder = dockerfile(step).add_build_secret("token", VALUE)
        error = raises(BuildError, lambda builder=builder: Template.build(builder, unique("leaks"), **SIZE))
        equal(error.details["reason"], "secret_leaked", f"reason ({error})")
        holds(place in str(error), f"the message names {place}: {error}")
        look_everywhere(error.build_id)


SCENARIOS = [
    a_build_that_uses_them_has_the_right_bytes,
    another_value_does_not_miss_the_cache_and_another_id_is_another_plan,
    a_build_that_prints_them_shows_none,
    a_build_that_fails_and_its_retry_show_none,
    a_build_that_is_cancelled_shows_none,
    a_build_that_writes_one_into_the_image_fails_and_names_the_file,
]

if __name__ == "__main__":
    if WIRE:
        record_answers()
    main(SCENARIOS)
