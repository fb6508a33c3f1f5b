"""What schemathesis is told beside the description. It loads this itself (SCHEMATHESIS_HOOKS)."""

from __future__ import annotations

import os
import zlib
from typing import Any

import schemathesis

# Templates of few names, so that requests meet each other.
NAMES = ("generated", "generated-2", "generated-3")
# What the service takes, by the last part of the path; `NAME` stands for one of the names.
NAME = object()
TEMPLATE = {"name": NAME, "base_image": "debian:bookworm", "build_config": {"disk_mb": 1024}}
SOUND: dict[str, dict[str, Any]] = {
    "templates": TEMPLATE,
    "build": TEMPLATE,
    "builds": TEMPLATE,
    "plan": TEMPLATE,
    "validate": TEMPLATE,
    "claims": {"template_ref": "claimed"},
    "rename": {"new_name": "renamed"},
    "tags": {"tags": ["generated"]},
    "promote": {"tag": "generated"},
    "rollback": {"to": os.environ.get("NULLSPACE_TEST_BUILD", "")},
    # Nobody listens there.
    "webhooks": {"url": "http://127.0.0.1:9/"},
    "replay": {"from": "0000000000000000"},
}


@schemathesis.hook
def before_load_schema(context: Any, document: dict[str, Any]) -> None:
    """Says what the schema of a stream is about.

    The published contract names the object in an event's `data` there; schemathesis takes it for the
    event itself, with `data` as one of its keys. The object is checked either way.
    """
    for operations in document["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                stream = answer.get("content", {}).get("text/event-stream")
                if stream is not None:
                    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": stream["schema"]}
                    stream["schema"] = {"type": "object", "required": ["data"], "properties": {"data": data}}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Leaves one body in two as it is; of the others, a sound core stays, and at times one key beside it.

    Bodies are generated key by key, so nearly each has some key that the service refuses, and what
    lies behind the first refusal would not be reached.
    """
    operation = context.operation
    sound = operation and operation.method.upper() == "POST" and SOUND.get(operation.path.rpartition("/")[2])
    # The same body becomes the same again: a run is repeatable by its seed.
    choice = zlib.crc32(repr(body).encode("utf-8", "backslashreplace"))
    if not sound or not isinstance(body, dict) or choice % 2:
        return body
    keys = sorted(key for key in body if key not in sound and key not in ("alias", "dockerfile"))
    kept = {key: body[key] for key in keys[choice // 2 % (2 * len(keys) + 1) :][:1]}
    core = {key: NAMES[choice // 2 % len(NAMES)] if value is NAME else value for key, value in sound.items()}
    return {**core, **kept}


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Writes down what was answered, one line an answer."""
    with open(os.environ["NULLSPACE_TEST_ANSWERS"], "a", encoding="ascii") as answers:
        answers.write(f"{case.operation.method.upper()} {case.operation.path} {response.status_code}\n")
