"""Requests that a client library would not send: each is refused in the contract's shape, by name."""

from __future__ import annotations

import base64
from typing import Any

from nullspace import Template
from nullspace.errors import AuthError

from common import DEBIAN_IMAGE, equal, http, is_error, is_unknown, main, raises, unique

# Beyond what any service would be set up to allow.
DISK_MB_BEYOND = 1 << 40
BODY_BYTES = 20_000_000


def refused(change: dict[str, Any], *named: str, status: int = 400) -> None:
    """Both ways to build refuse the request with these changes, and record nothing."""
    for path in ("/v1/templates/build", "/v1/templates/builds"):
        name = unique("refused")
        payload = {"name": name, "base_image": DEBIAN_IMAGE, "steps": []} | change
        payload = {field: value for field, value in payload.items() if value is not None}
        with http() as client:
            is_error(client.post(path, json=payload), status, "invalid_request", *named)
        is_unknown(name)


def an_unknown_step() -> None:
    refused({"steps": [{"action": "run", "command": "true"}, {"action": "teleport"}]}, "steps[1]", "teleport")


def a_step_without_its_field() -> None:
    refused({"steps": [{"action": "run"}]}, "steps[0]", "command")
    refused({"steps": [{"action": "apt_install"}]}, "steps[0]", "packages")


def fields_of_the_wrong_type() -> None:
    refused({"steps": "run true"}, "steps")
    refused({"steps": [{"action": "run", "command": 7}]}, "steps[0]", "command")
    refused({"steps": [{"action": "pip_install", "packages": "six"}]}, "steps[0]", "packages")
    refused({"tags": "v1"}, "tags")
    refused({"base_image": ["debian"]}, "base_image")
    refused({"build_config": {"vcpus": "two"}}, "vcpus")
    refused({"build_config": {"memory_mib": 512.5}}, "memory_mib")
    refused({"skip_cache": "yes"}, "skip_cache")
    refused({"start_cmd": 1}, "start_cmd")
    refused({"runtime_config": {"readiness": {"kind": "prayer"}}}, "readiness")


def an_empty_tag_list() -> None:
    refused({"tags": []}, "tags")


def a_tag_like_a_build_id() -> None:
    refused({"tags": ["tb_x"]}, "tags", "tb_x")


def a_path_out_of_the_context() -> None:
    content = base64.b64encode(b"x").decode()
    for path in ("../x", "a/../../x", "/etc/x"):
        file = {"path": path, "entry_type": "file", "content_base64": content}
        refused({"build_context": {"files": [file]}}, "build_context", path)


def a_file_without_content() -> None:
    refused({"build_context": {"files": [{"path": "x", "entry_type": "file"}]}}, "build_context", "x")


def a_path_twice() -> None:
    file = {"path": "x", "entry_type": "file", "content_base64": ""}
    refused({"build_context": {"files": [file, file]}}, "build_context", "x")


def a_disk_of_no_size() -> None:
    refused({"build_config": {"disk_mb": 0}}, "disk_mb")


def a_disk_beyond_the_maximum() -> None:
    refused({"build_config": {"disk_mb": DISK_MB_BEYOND}}, "disk_mb")


def no_base_image() -> None:
    refused({"base_image": None}, "base_image")


def a_body_of_20_mb() -> None:
    name = unique("refused")
    body = {"name": name, "base_image": DEBIAN_IMAGE, "start_cmd": "#" * BODY_BYTES}
    with http() as client:
        is_error(client.post("/v1/templates/builds", json=body), 413, "invalid_request")
    is_unknown(name)


def a_body_that_is_not_json() -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"", b"{", b"[]", b'"x"', b"\xff\xfe"):
        with http() as client:
            is_error(client.post("/v1/templates/builds", content=body, headers=headers), 400, "invalid_request")


def a_name_that_is_none() -> None:
    for name in ("", "Has Blanks", "tmpl_x", "other-namespace/x", "x" * 200):
        with http() as client:
            response = client.post("/v1/templates/builds", json={"name": name, "base_image": DEBIAN_IMAGE})
            is_error(response, 400, "invalid_request", "name")


def no_key() -> None:
    with http(api_key=None) as client:
        for method, path in (
            ("POST", "/v1/templates/build"),
            ("POST", "/v1/templates/builds"),
            ("POST", "/v1/templates/blobs/preflight"),
            ("GET", "/v1/templates"),
            ("GET", "/v1/templates/builds/tb_x"),
            ("GET", "/v1/machines"),
        ):
            is_error(client.request(method, path), 401, "unauthorized")
        equal(client.get("/healthz").json(), {"status": "ok"}, "health without a key")


def a_wrong_key() -> None:
    with http(api_key="ns_live_wrong") as client:
        is_error(client.get("/v1/templates"), 401, "unauthorized")
    builder = Template.from_image(DEBIAN_IMAGE)
    name = unique("refused")
    for build in (Template.build, Template.build_in_background):
        raises(AuthError, lambda build=build: build(builder, name, api_key="ns_live_wrong"))
    is_unknown(name)


def an_unknown_build() -> None:
    with http() as client:
        for path in ("/v1/templates/builds/tb_nope", "/v1/templates/builds/tb_nope/logs"):
            is_error(client.get(path), 404, "template_build_not_found")


def an_unknown_path_or_method() -> None:
    with http() as client:
        is_error(client.get("/v1/nothing-here"), 404, "not_found")
        response = client.put("/v1/templates/builds", json={})
        equal(response.status_code, 405, "status of a wrong method")
        is_error(response, 405, response.json()["code"])


if __name__ == "__main__":
    main(
        [
            an_unknown_step,
            a_step_without_its_field,
            fields_of_the_wrong_type,
            an_empty_tag_list,
            a_tag_like_a_build_id,
            a_path_out_of_the_context,
            a_file_without_content,
            a_path_twice,
            a_disk_of_no_size,
            a_disk_beyond_the_maximum,
            no_base_image,
            a_body_of_20_mb,
            a_body_that_is_not_json,
            a_name_that_is_none,
            no_key,
            a_wrong_key,
            an_unknown_build,
            an_unknown_path_or_method,
        ]
    )
