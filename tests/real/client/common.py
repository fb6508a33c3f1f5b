"""What the scenario scripts share: the connection, the assertions, and the command line.

A scenario is a function of a script; `python SCRIPT NAME` runs one and exits 0 or 1, `python SCRIPT`
lists them, one a line. The service is the one that NULLSPACE_API_URL and NULLSPACE_API_KEY name.
Scenarios make names of their own, so that they may run side by side on one service.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
from nullspace import Template
from nullspace.errors import MachineError
from nullspace.types import (
    LogEntryEnd,
    LogEntryStart,
    TemplateBuildCacheKind,
    TemplateBuildCacheStatus,
    TemplateBuildLogEntry,
    TemplateBuildLogKind,
)

# No answer within this time means a hang, not a slow machine.
HTTP_TIMEOUT_SECONDS = 60.0
# What is to come by itself comes within this time.
PATIENCE_SECONDS = 120.0
NULLSPACE = Path(sys.executable).with_name("nullspace")
# What the published client exits with: section 6 of the contract.
EXIT_USAGE, EXIT_NOT_FOUND, EXIT_AUTH, EXIT_FORBIDDEN, EXIT_QUOTA, EXIT_CONFLICT = 2, 3, 4, 5, 6, 7
PYTHON_IMAGE = "3.11"
DEBIAN_IMAGE = "debian:bookworm"

Scenario = Callable[[], None]
Entries = list[TemplateBuildLogEntry]
Seen = TypeVar("Seen")


def unique(name: str) -> str:
    """A template name that no other scenario uses."""
    return f"{name}-{secrets.token_hex(4)}"


def key() -> str:
    return os.environ["NULLSPACE_API_KEY"]


def http(api_key: str | None = "") -> httpx.Client:
    """A plain client, for what the SDK would not send; `None` sends no key, "" the right one."""
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key or key()}"}
    return httpx.Client(
        base_url=os.environ["NULLSPACE_API_URL"], headers=headers, timeout=HTTP_TIMEOUT_SECONDS, trust_env=False
    )


def equal(actual: object, expected: object, what: str) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


def holds(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def eventually(look: Callable[[], Seen], wanted: Callable[[Seen], bool], what: str) -> Seen:
    """What `look` sees as soon as it is as it is wanted."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not wanted(seen := look()):
        holds(time.monotonic() < deadline, f"{what}: seen last: {seen!r}")
        time.sleep(0.1)
    return seen


def key_of(owner: str) -> str:
    """A new key of an owner."""
    return new_key(owner)[1]


def new_key(owner: str) -> tuple[str, str]:
    """A new key of an owner, behind its id; made through the operator's door."""
    socket = Path(os.environ["NULLSPACE_TEST_DATA_DIR"]) / "admin.sock"
    transport = httpx.HTTPTransport(uds=str(socket))
    with httpx.Client(transport=transport, timeout=HTTP_TIMEOUT_SECONDS) as door:
        made = door.post("http://localhost/admin/keys", json={"owner": owner, "label": "of a test"})
    equal(made.status_code, 201, f"status ({made.text})")
    return made.json()["id"], made.json()["key"]


def exits(code: int, *args: str, api_key: str = "") -> str:
    """What `nullspace template …` prints when it ends with this exit code."""
    env = {**os.environ, "NULLSPACE_API_KEY": api_key or key()}
    done = subprocess.run([NULLSPACE, "template", *args], env=env, capture_output=True, text=True, check=False)
    equal(done.returncode, code, f"exit code of {args} ({done.stdout}{done.stderr})")
    return done.stdout + done.stderr


@contextlib.contextmanager
def exchanges(meanwhile: Callable[[httpx.Response], None] = lambda _: None) -> Iterator[list[tuple[str, str, int]]]:
    """What the client sends and gets below here: method, path and status. `meanwhile` sees each answer first."""
    seen: list[tuple[str, str, int]] = []
    send = httpx.HTTPTransport.handle_request

    def noting(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        response = send(transport, request)
        seen.append((request.method, request.url.path, response.status_code))
        meanwhile(response)
        return response

    httpx.HTTPTransport.handle_request = noting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        httpx.HTTPTransport.handle_request = send  # type: ignore[method-assign]


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What the acts give, or the errors that they raise, when all of them begin at the same moment."""
    outcomes: list[Any] = [None] * len(acts)
    barrier = threading.Barrier(len(acts))

    def run(index: int) -> None:
        barrier.wait()
        try:
            outcomes[index] = acts[index]()
        except MachineError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def raises(kind: type[MachineError], act: Callable[[], object]) -> Any:
    """The error of exactly this kind that `act` raises."""
    try:
        act()
    except MachineError as error:
        equal(type(error), kind, f"the kind of error ({error})")
        return error
    raise AssertionError(f"expected {kind.__name__}, got no error")


def is_error(response: httpx.Response, status: int, code: str, *named: str) -> dict[str, Any]:
    """Checks the contract's error shape, and that the message names what is wrong; returns the body."""
    where = f"{response.request.method} {response.request.url.path} answered {response.text[:300]!r}"
    equal(response.status_code, status, f"status ({where})")
    equal(response.headers["content-type"].partition(";")[0], "application/json", "content type")
    body = response.json()
    holds(isinstance(body, dict), f"the body is an object ({where})")
    equal(body.get("code"), code, f"code ({where})")
    message = body.get("error")
    holds(isinstance(message, str) and message.strip() != "", f"`error` is a message ({where})")
    for word in named:
        holds(word in message, f"the message names {word!r} ({where})")
    identifier = response.headers.get("x-request-id")
    holds(bool(identifier), f"x-request-id is there ({where})")
    equal(body.get("request_id", identifier), identifier, "request_id in the body")
    detail = body.get("error_detail")
    if detail is not None:
        allowed = {"code", "message", "phase", "retryable", "suggested_action"}
        holds(allowed <= detail.keys(), f"error_detail is whole ({where})")
        allowed |= {"step_index", "attempt", "max_attempts", "cache_subject", "build_id", "request_id", "details"}
        holds(detail.keys() <= allowed, f"error_detail has no key that the client refuses ({where})")
    return body


def is_unknown(name: str) -> None:
    """Nothing was recorded under this name."""
    with http() as client:
        is_error(client.get(f"/v1/templates/refs/{name}"), 404, "template_not_found")
        listed = client.get("/v1/templates").json()
    holds(all(template["name"] != name for template in listed), f"{name} is not listed")


def is_whole_log(entries: Entries, terminal: TemplateBuildLogKind = TemplateBuildLogKind.END) -> None:
    """Checks what holds for the log of every finished build, read from its first entry."""
    holds(len(entries) >= 2, "the log has a first and a last entry")
    holds(isinstance(entries[0], LogEntryStart), f"the first entry is the start, not {entries[0]!r}")
    equal(entries[-1].kind, terminal, f"the last entry's kind ({entries[-1].message!r})")
    if terminal == TemplateBuildLogKind.END:
        holds(isinstance(entries[-1], LogEntryEnd), "the last entry is the end")
    endings = {TemplateBuildLogKind.END, TemplateBuildLogKind.ERROR, TemplateBuildLogKind.CANCELLED}
    equal([e.offset for e in entries if e.kind in endings], [entries[-1].offset], "offsets of terminal entries")
    equal([e.offset for e in entries], list(range(len(entries))), "offsets")
    equal(len({(e.build_id, e.template_id) for e in entries}), 1, "pairs of build and template id")
    holds(entries[0].build_id.startswith("tb_"), f"build id {entries[0].build_id!r}")
    holds(entries[0].template_id.startswith("tmpl_"), f"template id {entries[0].template_id!r}")
    times = [e.timestamp for e in entries]
    equal(times, sorted(times), "timestamps in order")


def cache(entries: Entries, kind: TemplateBuildCacheKind, status: TemplateBuildCacheStatus) -> Entries:
    """The entries that tell of such a look-up; of layers, those that steps made."""
    found = [e for e in entries if e.cache_kind == kind and e.cache_status == status]
    return [e for e in found if kind != TemplateBuildCacheKind.LAYER or e.step_index is not None]


def build(builder: Template, name: str, **options: Any) -> tuple[Any, Entries]:
    """`Template.build`, and the log that it showed."""
    entries: Entries = []
    result = Template.build(builder, name, on_log_entry=entries.append, **options)
    return result, entries


def main(scenarios: list[Scenario]) -> None:
    """Runs the scenario that the command line names."""
    by_name = {scenario.__name__: scenario for scenario in scenarios}
    if len(sys.argv) == 1:
        print("\n".join(by_name))
        return
    if len(sys.argv) != 2 or sys.argv[1] not in by_name:
        sys.exit(f"usage: {sys.argv[0]} [{'|'.join(by_name)}]")
    try:
        by_name[sys.argv[1]]()
    except Exception:  # Whatever it is, the caller sees it whole and the exit code says so.
        traceback.print_exc()
        sys.exit(1)
