"""Dockerfile builds whose daemon dies, and tenants that share one. Each scenario is run by the suite, in order."""

from __future__ import annotations

import json
import os

from nullspace import Template, TemplateBuild
from nullspace.errors import AuthError, BuildError, MachineError
from nullspace.types import TemplateBuildStatus

from common import equal, holds, http, main, raises, unique

BUILD = os.environ.get("NULLSPACE_TEST_BUILD", "")
IMAGE = os.environ.get("NULLSPACE_TEST_PRIVATE_IMAGE", "")
USER = os.environ.get("NULLSPACE_TEST_PRIVATE_USER", "")
PASSWORD = os.environ.get("NULLSPACE_TEST_PRIVATE_PASSWORD", "")

SIZE = {"vcpus": 1, "memory_mib": 256}
# The suite looks for the process of this step.
STEP = "RUN echo begun && sleep 7.31 && echo over"


def begun() -> None:
    """Prints a build that is in its step."""
    builder = Template.from_dockerfile_content(f"FROM debian:bookworm\nRUN true\n{STEP}\n")
    handle = Template.build_in_background(builder, unique("daemon"), **SIZE)
    for entry in handle.logs(follow=True):
        if entry.message == "begun":
            print(handle.build_id)
            return
    raise AssertionError("the build ended before its step began")


def ready() -> None:
    handle = TemplateBuild.connect(BUILD)
    handle.wait_until_terminal()
    equal(handle.status, TemplateBuildStatus.READY, "status")


def failed_for_want_of_a_daemon() -> None:
    handle = TemplateBuild.connect(BUILD)
    error = raises(BuildError, handle.wait_until_terminal)
    equal(error.details["reason"], "builder_unavailable", f"reason ({error})")
    equal(error.retryable, True, "retryable")


def retried() -> None:
    handle = TemplateBuild.connect(BUILD).retry()
    handle.wait_until_terminal()
    equal(handle.status, TemplateBuildStatus.READY, "status of the retry")


def refused(builder: Template) -> MachineError:
    try:
        Template.build(builder, unique("refused"), **SIZE)
    except (BuildError, AuthError) as error:
        return error
    raise AssertionError("the image was used")


def a_private_image_is_closed_to_other_tenants() -> None:
    handle = with_password(f"FROM {IMAGE}\nRUN echo made > /made\n")
    handle.wait_until_terminal()
    equal(handle.status, TemplateBuildStatus.READY, "status for whoever has the password")
    digest = next(
        word
        for entry in handle.logs()
        for word in entry.message.replace("(", " ").replace(")", " ").replace("@", " ").split()
        if word.startswith("sha256:")
    )

    os.environ["NULLSPACE_API_KEY"] = os.environ["NULLSPACE_TEST_OTHER_KEY"]
    repository = IMAGE.rpartition(":")[0]
    for text in (
        f"FROM {IMAGE}\nRUN true\n",
        f"FROM {repository}@{digest}\nRUN true\n",
        f"FROM debian:bookworm\nCOPY --from={repository}@{digest} /etc/passwd /stolen\n",
        f"FROM debian:bookworm\nRUN --mount=from={repository}@{digest},target=/other cp /other/etc/passwd /stolen\n",
    ):
        error = refused(Template.from_dockerfile_content(text))
        equal(error.details["reason"], "registry_unauthorized", f"reason for {text!r} ({error})")
        holds(PASSWORD not in json.dumps(error.details) + str(error), "the password is not repeated")
    again = with_password(f"FROM {IMAGE}\nRUN echo made > /made\n")
    again.wait_until_terminal()
    equal(again.status, TemplateBuildStatus.READY, "status for another who has the password")


def with_password(dockerfile: str) -> TemplateBuild:
    """A build that brings the password; the client has no word for it beside the request itself."""
    auth = [{"registry": IMAGE.partition("/")[0], "auth": {"kind": "basic", "username": USER, "password": PASSWORD}}]
    body = {
        "name": unique("private"),
        "dockerfile": dockerfile,
        "registry_auth": auth,
        "build_config": {"vcpus": 1, "memory_mib": 256},
    }
    with http() as client:
        answer = client.post("/v1/templates/builds", json=body)
        equal(answer.status_code, 202, f"status ({answer.text})")
        holds(PASSWORD not in answer.text, "the password is not repeated")
        return TemplateBuild.connect(answer.json()["build_id"])


if __name__ == "__main__":
    main(
        [
            begun,
            ready,
            failed_for_want_of_a_daemon,
            retried,
            a_private_image_is_closed_to_other_tenants,
        ]
    )
