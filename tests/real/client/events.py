"""Events: following a build over broken connections, CloudEvents, and checking its trail by hand."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
from nullspace import Template

from common import DEBIAN_IMAGE, build, equal, holds, http, is_error, main, unique

ENDINGS = {"Snapshotted", "Failed", "Cancelled"}
CLOUD_EVENT = "application/cloudevents+json"
CLOUD_EVENTS = "application/cloudevents-batch+json"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Frame = dict[str, str]


def frames(response: httpx.Response) -> Iterator[Frame]:
    """The frames of a stream of server-sent events, without comments."""
    equal(response.status_code, 200, "status")
    equal(response.headers["content-type"], "text/event-stream", "content type")
    frame: Frame = {}
    for line in response.iter_lines():
        if line == "":
            if frame:
                yield frame
            frame = {}
        elif not line.startswith(":"):
            field, _, value = line.partition(": ")
            frame[field] = value


def of_the_log(frame: Frame) -> bool:
    return frame["event"] not in ("heartbeat", "dropped")


def link(event: dict[str, Any], previous: str) -> str:
    """The hash of an event, made as the service's description says."""
    since = datetime.fromisoformat(event["time"]) - EPOCH
    payload = {"type": event["type"], "data": event["data"]}
    fields = [
        event["stream"].encode(),
        struct.pack("<Q", event["version"]),
        struct.pack("<q", since // timedelta(microseconds=1)),
        event["type"].encode(),
        struct.pack("<H", event["schema_version"]),
        event["actor"].encode(),
        event["command_id"].encode(),
        json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(),
    ]
    chained = bytes.fromhex(previous.removeprefix("sha256:"))
    chained += b"".join(struct.pack("<Q", len(field)) + field for field in fields)
    return "sha256:" + hashlib.sha256(chained).hexdigest()


def trail(client: httpx.Client, build_id: str, limit: int) -> list[dict[str, Any]]:
    """All events of a build, read page by page, with the chain checked."""
    events: list[dict[str, Any]] = []
    start: int | None = 0
    previous = "sha256:" + "0" * 64
    while start is not None:
        page = client.get(f"/v1/templates/builds/{build_id}/events", params={"from": start, "limit": limit}).json()
        equal(page["previous_hash"], previous, "what the page's chain begins with")
        for event in page["events"]:
            equal(event["hash"], link(event, previous), f"hash of {event['type']}")
            previous = event["hash"]
        events += page["events"]
        start = page.get("next")
    return events


def a_build_is_followed_over_broken_connections() -> None:
    builder = Template.from_image(DEBIAN_IMAGE).run("for i in $(seq 20); do echo line-$i; sleep 0.1; done")
    started = Template.build_in_background(builder, unique("followed"), skip_cache=True)
    params = {"follow": "true", "build": started.build_id}
    events: list[dict[str, Any]] = []
    headers: dict[str, str] = {}
    connections = 0
    with http() as client:
        while not events or events[-1]["type"] not in ENDINGS:
            connections += 1
            with client.stream("GET", "/v1/events", params=params, headers=headers) as response:
                for frame in frames(response):
                    headers["Last-Event-ID"] = frame["id"]
                    if not of_the_log(frame):
                        continue
                    event = json.loads(frame["data"])
                    equal((event["position"], event["type"]), (frame["id"], frame["event"]), "frame and event")
                    events.append(event)
                    if len(events) % 4 == 0 or event["type"] in ENDINGS:
                        break
        holds(connections > 2, f"the connection broke on the way ({connections})")
        equal([event["version"] for event in events], list(range(len(events))), "versions")
        equal(events[-1]["type"], "Snapshotted", "the last event")
        equal(trail(client, started.build_id, 7), events, "what is read later is what was followed")
    logged = [event["data"]["lines"] for event in events if event["type"] == "StepLogged"]
    texts = [line["text"] for lines in logged for line in lines if line["text"].startswith("line-")]
    equal(texts, [f"line-{i}" for i in range(1, 21)], "the step's lines, in order and once")


def the_chain_of_a_build_is_checked_by_hand() -> None:
    builder = Template.from_image(DEBIAN_IMAGE).run("printf 'a\\342\\200\\250b \\303\\274 \\033[1m \\177\\n'")
    result, _ = build(builder, unique("chained"), skip_cache=True)
    with http() as client:
        events = trail(client, result.build_id, 1000)
        texts = [line["text"] for event in events for line in event["data"].get("lines", [])]
        holds(any("\u2028" in text for text in texts), "a line with a separator is among them")
        changed = dict(events[1], actor="operator")
        holds(link(changed, events[0]["hash"]) != events[1]["hash"], "a change shows")


def cloud_events_come_in_batches_and_as_a_stream() -> None:
    result, _ = build(Template.from_image(DEBIAN_IMAGE).run("echo cloud"), unique("cloud"))
    with http() as client:
        records = trail(client, result.build_id, 1000)
        batches: list[dict[str, Any]] = []
        url: str | None = f"/v1/events?build={result.build_id}&limit=3"
        while url is not None:
            response = client.get(url, headers={"Accept": CLOUD_EVENT})
            equal(response.headers["content-type"], CLOUD_EVENTS, "content type")
            holds(len(response.json()) <= 3, "a batch is as long as was asked for, at most")
            batches += response.json()
            url = response.links["next"]["url"] if "next" in response.links else None
        params = {"build": result.build_id}
        accept = {"Accept": f"{CLOUD_EVENT}, text/event-stream"}
        with client.stream("GET", "/v1/events", params=params, headers=accept) as response:
            streamed = [json.loads(frame["data"]) for frame in frames(response) if of_the_log(frame)]
    equal(batches, streamed, "batches and stream")
    equal([event["hash"] for event in batches], [event["hash"] for event in records], "hashes")
    for event, record in zip(batches, records):
        equal(event["specversion"], "1.0", "specversion")
        equal(event["type"], f"nullspace.build.{record['type']}", "type")
        equal((event["subject"], event["data"]), (result.build_id, record["data"]), "subject and data")
    equal(len({(event["source"], event["id"]) for event in batches}), len(records), "ids")


def what_cannot_be_subscribed_to_is_named() -> None:
    with http() as client:
        for params, field in [({"from": "yesterday"}, "from"), ({"stream": "keys"}, "stream"), ({"type": "x"}, "type")]:
            body = is_error(client.get("/v1/events", params=params), 400, "invalid_request", field)
            equal(body["details"]["problems"][0]["field"], field, "field")
        is_error(client.get("/v1/events", headers={"Last-Event-ID": "7"}), 400, "invalid_request", "Last-Event-ID")
        is_error(client.get("/v1/templates/builds/tb_none/events"), 404, "template_build_not_found")
    with http(api_key=None) as client:
        is_error(client.get("/v1/events"), 401, "unauthorized")


if __name__ == "__main__":
    main(
        [
            a_build_is_followed_over_broken_connections,
            the_chain_of_a_build_is_checked_by_hand,
            cloud_events_come_in_batches_and_as_a_stream,
            what_cannot_be_subscribed_to_is_named,
        ]
    )
