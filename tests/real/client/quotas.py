"""How much one owner may have under way and send: on a service with narrow bounds, one scenario after the other.

The service builds one template of an owner at once, lets two more wait, and takes contexts of 64 KiB and
requests of 256 KiB.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
from nullspace import Template, TemplateBuild
from nullspace.errors import MachineError, QuotaExceededError
from nullspace.types import TemplateBuildLogKind, TemplateBuildStatus

from common import (
    DEBIAN_IMAGE,
    EXIT_QUOTA,
    EXIT_USAGE,
    at_once,
    build,
    equal,
    eventually,
    exchanges,
    exits,
    holds,
    key_of,
    main,
    raises,
    unique,
)

WAITING_COUNT_MAX = 2
CONTEXT_BYTES_MAX, BODY_BYTES_MAX = 64 * 1024, 256 * 1024
START = ("POST", "/v1/templates/builds")
TINY = Template.from_image(DEBIAN_IMAGE)


@contextlib.contextmanager
def busy() -> Iterator[TemplateBuild]:
    """The owner's one build that is built, for as long as it is wanted."""
    builder = Template.from_image(DEBIAN_IMAGE).run("echo begun; sleep 600")
    handle = Template.build_in_background(builder, unique("busy"))
    try:
        next(entry for entry in handle.logs(follow=True) if entry.message == "begun")
        yield handle
    finally:
        handle.cancel()
        handle.wait_until_terminal()


@contextlib.contextmanager
def full() -> Iterator[list[TemplateBuild]]:
    """The builds that wait behind it, as many as may."""
    with busy():
        line = [Template.build_in_background(TINY, unique("waiting")) for _ in range(WAITING_COUNT_MAX)]
        try:
            yield line
        finally:
            for handle in line:
                handle.cancel()


def places(handle: TemplateBuild) -> list[str]:
    """What its log says of its place in line."""
    entries = handle.get_status(offset=0).entries
    queued = [entry for entry in entries if entry.phase == "queued"]
    equal([entry.kind for entry in queued], [TemplateBuildLogKind.MESSAGE] * len(queued), "kinds of entries")
    return [entry.message for entry in queued]


def a_second_build_waits_and_its_log_tells_at_which_place() -> None:
    # What it finds, so that it takes no time of its own.
    build(TINY, unique("tiny"))
    with busy():
        line = [Template.build_in_background(TINY, unique("waiting")) for _ in range(2)]
        for handle, place in zip(line, ("next in line", "place 2 in line"), strict=True):
            eventually(lambda h=handle: places(h), lambda told: any(place in text for text in told), place)
            equal(handle.status, TemplateBuildStatus.WAITING, "status")
        # Others do not wait for it.
        result, _ = build(TINY, unique("other"), api_key=key_of("somebody-else"))
        equal(result.status, TemplateBuildStatus.READY, "a build of somebody else")
        equal([handle.get_status().build.status for handle in line], [TemplateBuildStatus.WAITING] * 2, "still")
    for handle in line:
        handle.wait_until_terminal()
        equal(handle.status, TemplateBuildStatus.READY, "status")
    first, second = line
    holds(first.finished_at <= second.started_at, "one was built after the other, in their order")


def item_19_whoever_is_told_to_come_again_comes_again() -> None:
    with full() as line:

        def make_room(response: httpx.Response) -> None:
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                holds(float(response.headers["retry-after"]) > 0, "it says when to come again")
                line.pop().cancel()

        with exchanges(make_room) as seen:
            handle = Template.build_in_background(TINY, unique("patient"))
        starts = [status for *request, status in seen if tuple(request) == START]
        equal(starts, [429, 202], "answers to the request")
        equal(handle.status, TemplateBuildStatus.WAITING, "status")
        line.append(handle)


def a_line_that_stays_full_is_given_up() -> None:
    with full():
        words = ("build", "--from-image", DEBIAN_IMAGE, "--name", unique("refused"), "--background")
        with exchanges() as seen:
            error, said = at_once(
                lambda: raises(QuotaExceededError, lambda: Template.build_in_background(TINY, unique("refused"))),
                lambda: exits(EXIT_QUOTA, *words),
            )
        equal([exchange for exchange in seen if exchange[:2] == START], [(*START, 429)] * 4, "tries of the client")
        holds(f"{WAITING_COUNT_MAX} of your builds wait" in str(error), f"it says why: {error}")
        # A stream is asked for once.
        with exchanges() as seen:
            raises(QuotaExceededError, lambda: Template.build(TINY, unique("refused")))
        equal([status for _, path, status in seen if path == "/v1/templates/build"], [429], "tries of a stream")
        holds("builds wait" in said, f"the command line says why: {said}")


def what_is_too_large_is_refused_before_it_is_sent() -> None:
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, "large.bin")
        large.write_bytes(bytes(CONTEXT_BYTES_MAX + 1))
        builder = Template.from_image(DEBIAN_IMAGE).set_file_context(folder).copy("large.bin", "/")

        def is_refused(error: MachineError, *words: str) -> None:
            equal(error.code, "invalid_request", f"code ({error})")
            for word in ("larger than", *words):
                holds(word in str(error), f"{word!r} is said: {error}")

        for start in (Template.build, Template.build_in_background):
            with exchanges() as seen:
                is_refused(raises(MachineError, lambda s=start: s(builder, unique("large"))), str(CONTEXT_BYTES_MAX))
            equal(seen, [("POST", "/v1/templates/blobs/preflight", 413)], "what was sent")
        for look in (Template.validate, Template.plan):
            with exchanges() as seen:
                is_refused(raises(MachineError, lambda f=look: f(builder, unique("large"))))
            equal([status for _, _, status in seen], [413], "answers")
        words = ("--from-debian-image", "--file-context", folder, "--copy-src", "large.bin", "--copy-dst", "/")
        name = ("--name", unique("large"))
        exits(EXIT_USAGE, "build", *words, *name, "--background")
        exits(EXIT_USAGE, "plan", *words)
        exits(1, "build", *words, *name)

        # One that just fits is built.
        large.write_bytes(bytes(CONTEXT_BYTES_MAX))
        Template.plan(builder, unique("fits"))
        result, _ = build(builder, unique("fits"))
        equal(result.status, TemplateBuildStatus.READY, "status of one that fits")

    # As large as a definition is not: each value alone would do.
    values = {f"NAME_{number}": "x" * 4000 for number in range(BODY_BYTES_MAX // 4000 + 1)}
    builder = Template.from_image(DEBIAN_IMAGE).env(values)
    is_refused(raises(MachineError, lambda: Template.build(builder, unique("large"))), str(BODY_BYTES_MAX))


if __name__ == "__main__":
    main(
        [
            a_second_build_waits_and_its_log_tells_at_which_place,
            item_19_whoever_is_told_to_come_again_comes_again,
            a_line_that_stays_full_is_given_up,
            what_is_too_large_is_refused_before_it_is_sent,
        ]
    )
