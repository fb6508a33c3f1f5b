"""Webhooks of a real service: what arrives at a receiver that fails, hangs, recovers, and outlives a kill.

NULLSPACE_TEST_PORT is where the receiver listens. The service may send to loopback.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nullspace import Template

from common import DEBIAN_IMAGE, build, equal, holds, http, is_error, main, unique

# No event within this time means that none comes.
PATIENCE_SECONDS = 120.0
# Longer than the service waits for an answer (`limits.webhook_timeout_ms`).
HANG_SECONDS = 3.0
# A replayed request is older than this.
AGE_SECONDS_MAX = 300

Event = dict[str, Any]


def verified(secret: str, headers: Any, body: bytes) -> bool:
    """As README.md says."""
    timestamp = headers["webhook-timestamp"]
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    fresh = abs(time.time() - int(timestamp)) < AGE_SECONDS_MAX
    return fresh and any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split())


class Receiver:
    """Answers what `rule` says: a status, or nothing for a while."""

    def __init__(self, rule: Callable[[int, Event], int | None]) -> None:
        self.rule = rule
        self.secret: str | None = None
        self.came: list[tuple[Event, int | None]] = []
        self.unsigned = 0
        self.changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver.take(self.headers, body)
                if status is None:
                    time.sleep(HANG_SECONDS)
                    return
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["NULLSPACE_TEST_PORT"])), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/in"

    def take(self, headers: Any, body: bytes) -> int | None:
        event = json.loads(body)
        with self.changed:
            if self.secret is not None and not verified(self.secret, headers, body):
                self.unsigned += 1
            equal(headers["content-type"], "application/cloudevents+json", "content type")
            equal(headers["webhook-id"], event["id"], "the id in the header")
            status = self.rule(len(self.came), event)
            self.came.append((event, status))
            self.changed.notify_all()
            return status

    def wait(self, what: str, is_enough: Callable[[], bool]) -> None:
        with self.changed:
            holds(self.changed.wait_for(is_enough, PATIENCE_SECONDS), f"{what}: {self.summary()}")

    def summary(self) -> list[tuple[str, int | None]]:
        return [(event["id"], status) for event, status in self.came]

    def of(self, build_id: str) -> list[tuple[int, int | None]]:
        """The numbers of a build's events as they came, with what they were answered."""
        prefix = f"build-{build_id}/"
        mine = [(event["id"], status) for event, status in self.came if event["id"].startswith(prefix)]
        return [(int(identifier.removeprefix(prefix)), status) for identifier, status in mine]

    def is_over(self, build_id: str) -> bool:
        ends = {"nullspace.build.Snapshotted", "nullspace.build.Failed", "nullspace.build.Cancelled"}
        return any(
            event["subject"] == build_id and event["type"] in ends and status == 204 for event, status in self.came
        )


def is_whole(events: list[tuple[int, int | None]]) -> None:
    """Every event was taken, and none was sent before an earlier one was taken."""
    taken = -1
    for number, status in events:
        holds(number <= taken + 1, f"event {number} came while {taken + 1} was not taken: {events}")
        if status == 204:
            taken = max(taken, number)
    equal(taken, max(number for number, _ in events), "the last event that was taken")


def register(receiver: Receiver) -> tuple[str, str]:
    with http() as client:
        answer = client.post("/v1/webhooks", json={"url": receiver.url})
    equal(answer.status_code, 201, f"status ({answer.text})")
    created = answer.json()
    return created["id"], created["secret"]


def fails_hangs_and_recovers() -> None:
    def rule(number: int, _event: Event) -> int | None:
        if number in (3, 9):
            return None
        return 500 if number % 3 == 1 else 204

    receiver = Receiver(rule)
    identifier, receiver.secret = register(receiver)
    builder = Template.from_image(DEBIAN_IMAGE).run("for i in 1 2 3; do echo line $i; sleep 0.1; done")
    result, _ = build(builder, unique("hooked"))
    receiver.wait("the build's end comes", lambda: receiver.is_over(result.build_id))
    is_whole(receiver.of(result.build_id))
    equal(receiver.unsigned, 0, "requests that are not signed")
    holds(any(status is None for _, status in receiver.came), "some attempts hung")
    types = {event["type"] for event, _ in receiver.came}
    wanted = {"Requested", "Started", "StepLogged", "VmBooted", "Snapshotted"}
    missing = {f"nullspace.build.{name}" for name in wanted} - types
    equal(missing, set(), "types that did not come")
    with http() as client:
        shown = client.get(f"/v1/webhooks/{identifier}/deliveries").json()["deliveries"]
        holds(any(delivery["attempts"] > 1 for delivery in shown), f"more than one attempt is shown: {shown}")
        equal(client.delete(f"/v1/webhooks/{identifier}").status_code, 204, "status of the deletion")


def inner_addresses_are_refused() -> None:
    with http() as client:
        for url in ("http://10.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/"):
            is_error(client.post("/v1/webhooks", json={"url": url}), 400, "invalid_request", "url", "allowed_networks")


def out_of_order() -> None:
    """Nothing is taken; prints what `after_a_kill` has to know."""
    receiver = Receiver(lambda _number, _event: 503)
    identifier, secret = register(receiver)
    result, _ = build(Template.from_image(DEBIAN_IMAGE).run("echo before the kill"), unique("killed"))
    receiver.wait("something is sent", lambda: bool(receiver.of(result.build_id)))
    print(json.dumps({"id": identifier, "secret": secret, "build": result.build_id}))


def after_a_kill() -> None:
    known = json.loads(os.environ["NULLSPACE_TEST_WEBHOOK"])
    receiver = Receiver(lambda _number, _event: 204)
    receiver.secret = known["secret"]
    receiver.wait("the build's end comes", lambda: receiver.is_over(known["build"]))
    events = receiver.of(known["build"])
    equal(events[0][0], 0, "the first event of the build that came")
    is_whole(events)
    equal(receiver.unsigned, 0, "requests that are not signed as before")


main([fails_hangs_and_recovers, inner_addresses_are_refused, out_of_order, after_a_kill])
