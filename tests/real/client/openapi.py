"""The service against its own description, by schemathesis: no failure of the service, and no answer
that the description does not allow.

The number of cases and the seed are fixed. The service's settings bound the builds that wait, so most
of the builds that are asked for here are refused with 429, which the description allows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nullspace import Template

from common import DEBIAN_IMAGE, build, equal, holds, http, key, main, unique

SEED = 20_261_128
HOOKS = Path(__file__).with_name("openapi_hooks.py")
# A run that takes longer hangs.
RUN_TIMEOUT_SECONDS = 240
REQUEST_TIMEOUT_SECONDS = 60
# Followed events have no end.
ENDLESS = """
[[operations]]
include-operation-id = "streamEvents"
parameters = { "query.follow" = "false" }
"""
# Left out are the two checks for which a request is right if and only if its schema says so: rules
# that a schema cannot say are said in words. And that of `Allow`: below `/refs/`, where a `/` in a
# name need not be escaped, one path can be that of two operations.
LEFT_OUT = "positive_data_acceptance,negative_data_rejection,allow_header_conformance"


def schemathesis(*args: str, parameters: dict[str, str] | None = None) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """Runs it; its report and the answers that it got (operation, status), if it found nothing."""
    with tempfile.TemporaryDirectory() as folder:
        settings, report, answers = (Path(folder) / name for name in ("schemathesis.toml", "report.json", "answers"))
        lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in (parameters or {}).items()]
        settings.write_text("\n".join(["[parameters]", *lines, ENDLESS]))
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)]
        command += ["run", f"{os.environ['NULLSPACE_API_URL']}/openapi.json"]
        command += ["--header", f"Authorization: Bearer {key()}", "--seed", str(SEED), "--continue-on-failure"]
        command += ["--checks", "all", "--exclude-checks", LEFT_OUT, "--no-shrink", "--no-color"]
        command += ["--request-timeout", str(REQUEST_TIMEOUT_SECONDS)]
        # Some answers come when a build is over.
        command += ["--max-response-time", str(REQUEST_TIMEOUT_SECONDS)]
        command += ["--report", "json", "--report-json-path", str(report), *args]
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "NULLSPACE_TEST_ANSWERS": str(answers)}
        environment["NULLSPACE_TEST_BUILD"] = (parameters or {}).get("path.build_id", "")
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_SECONDS
        )
        holds(done.returncode == 0, f"schemathesis ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        told = (line.rpartition(" ") for line in answers.read_text().splitlines())
        return json.loads(report.read_text()), [(operation, int(status)) for operation, _, status in told]


def is_whole(report: dict[str, Any], operations: int) -> None:
    """It tried all operations to its end."""
    counts = {name: report["operations"][name] for name in ("tested", "errored", "skipped")}
    holds(report["complete"] and counts == {"tested": operations, "errored": 0, "skipped": 0}, f"{counts} of {operations}")
    holds(report["test_cases"]["generated"] > operations, f"cases: {report['test_cases']}")


def described() -> list[str]:
    """The names of all operations; without that which gives the description, which is not tried."""
    with http() as client:
        paths = client.get("/openapi.json").json()["paths"]
    names = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    return [name for name in names if name != "getOpenApi"]


def whatever_is_asked_is_answered_as_described() -> None:
    """Requests made of the description alone: limits, wrong types, missing parts, strange texts."""
    report, _ = schemathesis("--phases", "coverage,fuzzing", "--max-examples", "12")
    is_whole(report, len(described()))


def what_is_there_is_answered_as_described() -> None:
    """The same with ids of things that are there, so that answers are more than refusals."""
    alias, name = unique("alias"), unique("probed")
    built, _ = build(Template.from_image(DEBIAN_IMAGE), alias, tags=["default", "kept"], disk_mb=1024)
    with http() as client:
        client.post(f"/v1/templates/{alias}/rename", json={"new_name": name}).raise_for_status()
        claim = client.post("/v1/templates/claims", json={"template_ref": unique("claimed")}).raise_for_status().json()
        webhook = client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).raise_for_status().json()
    there = {"build_id": built.build_id, "ref": name, "id": name, "tag": "kept", "alias": alias, "slug": "default"}
    there |= {"claim_token": claim["claim_token"], "webhook_id": webhook["id"]}
    parameters = {f"path.{name}": value for name, value in there.items()} | {"query.with": built.build_id}
    # What would take the template away comes last.
    ends = [name for name in described() if name.startswith("delete")]
    left_out = [word for end in ends for word in ("--exclude-operation-id", end)]
    report, answers = schemathesis("--phases", "fuzzing", "--max-examples", "16", *left_out, parameters=parameters)
    is_whole(report, len(described()) - len(ends))
    only = [word for end in ends for word in ("--include-operation-id", end)]
    last, last_answers = schemathesis("--phases", "fuzzing", "--max-examples", "3", *only, parameters=parameters)
    is_whole(last, len(ends))

    # What can be done once is done by one of the two ways to name a template.
    accepted: dict[str, bool] = {}
    for operation, status in answers + last_answers:
        operation = operation.replace("/refs/{ref}", "/{id}")
        accepted[operation] = accepted.get(operation, False) or status < 400
    never = {operation for operation, is_accepted in accepted.items() if not is_accepted}
    # They want a file of exactly the digest in the path, and a letter that is dead: no generator finds them.
    by_chance = {
        "PUT /v1/templates/blobs/{blob_id}",
        "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    }
    equal(never, by_chance, "operations of which nothing was accepted")


if __name__ == "__main__":
    main([whatever_is_asked_is_answered_as_described, what_is_there_is_answered_as_described])
