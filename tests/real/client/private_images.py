"""Images behind a password, as the published client uses them. Each scenario is run by the suite, in order."""

from __future__ import annotations

import json
import os

from nullspace import Template, TemplateBuild
from nullspace.errors import AuthError, BuildError, MachineError
from nullspace.types import TemplateBuildStatus

from common import build, equal, holds, http, is_error, is_whole_log, main, unique

IMAGE = os.environ.get("NULLSPACE_TEST_PRIVATE_IMAGE", "")
USER = os.environ.get("NULLSPACE_TEST_PRIVATE_USER", "")
PASSWORD = os.environ.get("NULLSPACE_TEST_PRIVATE_PASSWORD", "")
PLANTED = os.environ.get("NULLSPACE_TEST_PLANTED", "")
BASIC = {"kind": "basic", "username": USER, "password": PASSWORD}

# One definition for all: its layers and its artifact are cached once it was built.
STEP = f"echo {PLANTED} > /made"


def definition(**credentials: str) -> Template:
    return Template.from_image(IMAGE, **credentials).run(STEP)


def is_refused(error: MachineError, *words: str) -> None:
    equal(error.code, "unauthorized", "code")
    equal(error.phase.value, "auth", "phase")
    equal(error.details["reason"], "registry_unauthorized", "reason")
    for word in (IMAGE, *words):
        holds(word in str(error), f"the message names {word!r}: {error}")
    holds(PASSWORD not in json.dumps(error.details) + str(error), "the password is not repeated")


def refusal(builder: Template) -> MachineError:
    try:
        Template.build(builder, unique("refused"))
    except (BuildError, AuthError) as error:
        return error
    raise AssertionError("the image was pulled")


def shows_no_password(build_id: str) -> None:
    with http() as client:
        for path in ("", "/logs?follow=false"):
            answer = client.get(f"/v1/templates/builds/{build_id}{path}")
            equal(answer.status_code, 200, "status")
            holds(PASSWORD not in answer.text, f"the password is not in {path or 'the build'}")


def without_credentials_it_fails_and_a_retry_with_them_is_ready() -> None:
    error = refusal(definition())
    is_refused(error, "base_image_auth", "password")
    failed = TemplateBuild.connect(error.build_id)
    again = failed.retry(base_image_auth=BASIC)
    again.wait_until_terminal()
    equal(again.status, TemplateBuildStatus.READY, "status of the retry")
    equal(again.retry_of_build_id, failed.build_id, "the build that was retried")
    shows_no_password(again.build_id)

    # A retry of a build that had credentials brings them again.
    with http() as client:
        path = f"/v1/templates/builds/{again.build_id}/retry"
        is_error(client.post(path, json={}), 400, "invalid_request", "base_image_auth")


def a_wrong_password_is_refused() -> None:
    is_refused(refusal(definition(username=USER, password="no-" + PASSWORD[::-1])), "refuses the given credentials")


def what_is_cached_for_one_owner_is_closed_to_another() -> None:
    result, entries = build(definition(username=USER, password=PASSWORD), unique("private"))
    is_whole_log(entries)
    equal(result.status, TemplateBuildStatus.READY, "status")
    equal(TemplateBuild.connect(result.build_id).cache_summary.final_artifact_hits, 1, "artifact hits of the owner")
    shows_no_password(result.build_id)

    os.environ["NULLSPACE_API_KEY"] = os.environ["NULLSPACE_TEST_OTHER_KEY"]
    is_refused(refusal(definition()))
    result, _ = build(definition(username=USER, password=PASSWORD), unique("shared"))
    equal(result.status, TemplateBuildStatus.READY, "status for another who knows the password")


def begun() -> None:
    """Prints a build with credentials that is in its step."""
    builder = Template.from_image(IMAGE, username=USER, password=PASSWORD).run("echo begun; sleep 300")
    handle = Template.build_in_background(builder, unique("lost"))
    for entry in handle.logs(follow=True):
        if entry.message == "begun":
            break
    print(handle.build_id)


def lost() -> None:
    """The build that was under way when the service was killed."""
    handle = TemplateBuild.connect(os.environ["NULLSPACE_TEST_BUILD"])
    try:
        handle.wait_until_terminal()
        raise AssertionError(f"the build is {handle.status}")
    except BuildError as error:
        equal(error.details["reason"], "secrets_lost", "reason")
        equal(error.retryable, True, "retryable")
        holds("credentials" in error.suggested_action, f"suggested action: {error.suggested_action}")
    with http() as client:
        path = f"/v1/templates/builds/{handle.build_id}/retry"
        is_error(client.post(path, json={}), 400, "invalid_request", "base_image_auth")
        again = client.post(path, json={"base_image_auth": BASIC})
        equal(again.status_code, 202, f"status of the retry ({again.text[:200]})")
        holds(PASSWORD not in again.text, "the password is not in the answer")
        cancelled = client.post(f"/v1/templates/builds/{again.json()['build_id']}/cancel", json={})
        equal(cancelled.status_code, 200, "status of the cancellation")


if __name__ == "__main__":
    main(
        [
            without_credentials_it_fails_and_a_retry_with_them_is_ready,
            a_wrong_password_is_refused,
            what_is_cached_for_one_owner_is_closed_to_another,
            begun,
            lost,
        ]
    )
