"""Log streams: section 11 of the client's contract, item 8, and the bytes on the wire."""

from __future__ import annotations

import json
import re

from nullspace import Template, TemplateBuild
from nullspace.types import TemplateBuildStatus

from common import DEBIAN_IMAGE, build, equal, holds, http, is_whole_log, main, unique

# Line separators to Python's splitlines, which the client reads the stream with.
SEPARATORS = "a\u2028b\u0085c"
# The client gives up after 30 seconds without a byte.
SILENCE_SECONDS = 40
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def item_8_following_a_live_build() -> None:
    builder = Template.from_image(DEBIAN_IMAGE).run("for i in 1 2 3; do echo line-$i; sleep 1; done")
    started = Template.build_in_background(builder, unique("live"))
    handle = TemplateBuild.connect(started.build_id)
    holds(not handle.is_terminal(), f"the build is live, not {handle.status}")
    entries = list(handle.logs(follow=True))
    is_whole_log(entries)
    lines = [e.message for e in entries if e.message.startswith("line-")]
    equal(lines, ["line-1", "line-2", "line-3"], "the step's output, in order and once")
    equal(handle.get_status().build.status, TemplateBuildStatus.READY, "status after the stream's end")


def item_8_a_stream_survives_silence() -> None:
    builder = Template.from_image(DEBIAN_IMAGE).run(f"sleep {SILENCE_SECONDS}; echo awake").skip_cache()
    started = Template.build_in_background(builder, unique("silent"), skip_cache=True)
    entries = list(TemplateBuild.connect(started.build_id).logs(follow=True))
    is_whole_log(entries)
    holds("awake" in [e.message for e in entries], "the step ran to its end")


def item_8_reading_from_an_offset() -> None:
    result, entries = build(Template.from_image(DEBIAN_IMAGE).run("echo one; echo two"), unique("offsets"))
    handle = TemplateBuild.connect(result.build_id)
    everything = list(handle.logs())
    equal(everything, entries, "the log read later is the log that was streamed")
    equal(list(handle.logs(offset=2)), everything[2:], "logs from offset 2")
    equal(list(handle.logs(cursor=2)), everything[2:], "logs from cursor 2")
    equal(list(handle.logs(cursor=2, follow=True)), everything[2:], "a finished log, followed")
    equal(list(handle.logs(offset=len(everything))), [], "logs from after the end")
    snapshot = handle.get_status(offset=2)
    equal((snapshot.entries, snapshot.next_offset), (everything[2:], len(everything)), "status from offset 2")


def item_8_line_separators_in_a_message() -> None:
    builder = Template.from_image(DEBIAN_IMAGE).run(f"printf '{SEPARATORS}\\n'")
    result, entries = build(builder, unique("separators"))
    equal([e.message for e in entries].count(SEPARATORS), 1, "entries with exactly the printed line, streamed")
    later = list(TemplateBuild.connect(result.build_id).logs())
    equal([e.message for e in later].count(SEPARATORS), 1, "entries with exactly the printed line, read later")


def the_bytes_of_a_stream() -> None:
    builder = Template.from_image(DEBIAN_IMAGE).run(f"printf '{SEPARATORS} ü\\n'")
    payload = builder.to_json(name=unique("bytes"))
    with http() as client, client.stream("POST", "/v1/templates/build", json=payload) as response:
        equal(response.status_code, 200, "status")
        equal(response.headers["content-type"].partition(";")[0], "text/event-stream", "content type")
        equal(response.headers["cache-control"], "no-cache", "cache control")
        holds("content-encoding" not in response.headers, "the stream is not compressed")
        holds(bool(response.headers.get("x-request-id")), "x-request-id is there")
        raw = response.read()
    holds(raw.isascii(), "the stream is ASCII")
    events = [part for part in raw.split(b"\n\n") if part and not part.startswith(b":")]
    entries = []
    for event in events:
        lines = [line for line in event.split(b"\n") if line.startswith(b"data")]
        equal(len(lines), 1, f"data lines of one event ({event!r})")
        holds(lines[0].startswith(b"data: {"), f"a data line is one object ({lines[0][:60]!r})")
        entries.append(json.loads(lines[0].removeprefix(b"data: ")))
    equal([e["offset"] for e in entries], list(range(len(entries))), "offsets")
    equal((entries[0]["kind"], entries[-1]["kind"]), ("start", "end"), "first and last kind")
    for entry in entries:
        holds(TIME.fullmatch(entry["timestamp"]) is not None, f"timestamp {entry['timestamp']!r}")
        holds(None not in entry.values(), f"absent values are left out, not null: {entry}")


if __name__ == "__main__":
    main(
        [
            item_8_following_a_live_build,
            item_8_a_stream_survives_silence,
            item_8_reading_from_an_offset,
            item_8_line_separators_in_a_message,
            the_bytes_of_a_stream,
        ]
    )
