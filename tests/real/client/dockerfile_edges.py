"""What Dockerfile builds make of an image, how they fail, and what they take without harm."""

from __future__ import annotations

import json
from typing import Any

from nullspace import Template, TemplateBuild
from nullspace.errors import BuildError
from nullspace.types import TemplateBuildLogKind, TemplateBuildStatus

from common import Entries, build, equal, holds, http, is_error, is_whole_log, main, raises, unique

# The smallest machine that Debian boots in.
SIZE = {"vcpus": 1, "memory_mib": 256}
READY = TemplateBuildStatus.READY


def dockerfile(*lines: str, base: str = "debian:bookworm") -> Template:
    return Template.from_dockerfile_content("\n".join([f"FROM {base}", *lines, ""]))


def texts(entries: Entries) -> list[str]:
    return [entry.message for entry in entries]


def is_ready(builder: Template, **options: Any) -> tuple[Any, Entries]:
    result, entries = build(builder, unique("docker"), **(SIZE | options))
    equal(result.status, READY, "status")
    is_whole_log(entries)
    return result, entries


def fails(builder: Template, reason: str, phase: str, *told: str, **options: Any) -> tuple[BuildError, Entries]:
    entries: Entries = []
    make = lambda: Template.build(builder, unique("fails"), on_log_entry=entries.append, **(SIZE | options))  # noqa: E731
    error = raises(BuildError, make)
    is_whole_log(entries, TemplateBuildLogKind.ERROR)
    whole = f"{error} {json.dumps(error.details, ensure_ascii=False)}"
    equal(error.details["reason"], reason, f"reason ({whole})")
    equal(error.phase.value, phase, f"phase ({whole})")
    for word in told:
        holds(word in whole, f"{word!r} is told: {whole}")
    return error, entries


def what_the_image_says_becomes_what_machines_start_with() -> None:
    result, _ = is_ready(
        dockerfile(
            "ENV GREETING=hello SECRET_LOOKING=value",
            "WORKDIR /srv/app",
            "RUN useradd --create-home app && chown app /srv/app",
            "USER app",
            "EXPOSE 8000/tcp",
            "VOLUME /data",
            'LABEL org.example.team="agents"',
            'HEALTHCHECK --interval=1s --timeout=2s --retries=5 CMD test -e /srv/app/up',
            'ENTRYPOINT ["/bin/sh", "-c"]',
            'CMD ["echo $GREETING > /srv/app/up; id -un >> /srv/app/up; exec sleep 3600"]',
        )
    )
    defaults = result.runtime_defaults
    equal((defaults.default_user, defaults.default_workdir), ("app", "/srv/app"), "user and folder")
    holds("sleep 3600" in (defaults.start_cmd or ""), f"the start command is the image's: {defaults.start_cmd!r}")
    holds(defaults.readiness is not None, "the health check is the readiness probe")
    with http() as client:
        answer = client.get(f"/v1/templates/builds/{result.build_id}")
        holds("value" not in json.dumps(answer.json()["build"].get("runtime_defaults", {})), "no value of a variable is told")
        oci = answer.json()["build"]["oci_metadata"]
    equal(oci["labels"]["org.example.team"], "agents", "label")
    equal((oci["exposed_ports"], oci["volumes"]), (["8000/tcp"], ["/data"]), "ports and volumes")
    equal(oci["healthcheck"]["test"][0], "CMD-SHELL", "health check")
    holds("mapped_readiness" in oci["healthcheck"], f"it was mapped: {oci['healthcheck']}")


def a_command_of_the_base_alone_is_no_start_command() -> None:
    result, _ = is_ready(dockerfile("RUN true"))
    equal(result.runtime_defaults.start_cmd, None, "start command")


def a_step_that_fails_says_what_it_said_last() -> None:
    step = "for n in $(seq 200); do echo line-$n >&2; done; exit 42"
    error, entries = fails(dockerfile("RUN true", f"RUN {step}", "RUN echo never"), "step_failed", "build_step", "line-200")
    equal(error.details["exit_code"], 42, "exit code")
    equal(error.retryable, False, "retryable")
    holds("Dockerfile" in str(error) or "Dockerfile" in json.dumps(error.details), "the place in the Dockerfile is told")
    said = [text for text in texts(entries) if text.startswith("line-")]
    equal(said, [f"line-{n}" for n in range(1, 201)], "each line is told once, in order")


def mistakes_in_a_dockerfile_name_their_line() -> None:
    fails(dockerfile("RUNN true"), "dockerfile_invalid", "build_step", "RUNN", "line 2")
    fails(dockerfile("COPY not-there /x"), "dockerfile_invalid", "build_step", "not-there")
    fails(dockerfile("RUN true", base="debian:no-such-tag"), "bad_reference", "prepare", "debian:no-such-tag")


def privileges_are_refused() -> None:
    fails(dockerfile("RUN --network=host true"), "not_permitted", "build_step", "network.host")
    fails(dockerfile("RUN --security=insecure true"), "not_permitted", "build_step", "insecure")


def a_secret_that_is_required_and_not_there() -> None:
    step = "RUN --mount=type=secret,id=token,required=true true"
    fails(dockerfile(step), "secret_missing", "build_step", "token", "line 2")


def what_belongs_to_another_backend_is_refused_before_any_work() -> None:
    with http() as client:
        body = {"name": unique("native"), "dockerfile": "FROM debian:bookworm\n", "build_backend": "native"}
        is_error(client.post("/v1/templates/builds", json=body), 400, "invalid_request", "build_backend")
        secret = [{"id": "token", "value": "never-kept", "source": "env"}]
        body = {"name": unique("native"), "base_image": "debian:bookworm", "build_secrets": secret}
        answer = client.post("/v1/templates/builds", json=body)
        is_error(answer, 400, "invalid_request", "build_secrets")
        holds("never-kept" not in answer.text, "the value is not repeated")


def without_a_network_nothing_is_fetched() -> None:
    off = {"internet_access": False}
    probe = "RUN (exec 3<>/dev/tcp/127.0.0.1/1) 2>&1 | cat; test \"$(ls /sys/class/net)\" = lo && wc -l < /proc/net/route"
    _, entries = is_ready(dockerfile('SHELL ["/bin/bash", "-c"]', probe), **off)
    holds("1" in texts(entries), f"there is no route but the headline: {texts(entries)}")
    lists = "ls /var/lib/apt/lists | grep -c Packages || true"
    _, entries = is_ready(dockerfile(f"RUN rm -rf /var/lib/apt/lists/*; apt-get -o Acquire::Retries=0 update; {lists}"), **off)
    holds("0" in texts(entries), "apt-get update brings nothing")
    # Nobody is asked: the address is one for documents.
    fails(dockerfile("ADD http://192.0.2.1/file /file"), "network_off", "build_step", "192.0.2.1", **off)
    error, _ = fails(dockerfile("RUN exit 9"), "step_failed", "build_step", **off)
    holds("network" in str(error), f"the message says that there was no network: {error}")


def with_a_network_packages_come() -> None:
    lists = "ls /var/lib/apt/lists | grep -c Packages"
    _, entries = is_ready(dockerfile(f"RUN rm -rf /var/lib/apt/lists/*; apt-get update && echo lists=$({lists})"))
    holds(any(text.startswith("lists=") and text != "lists=0" for text in texts(entries)), f"lists came: {texts(entries)[-20:]}")


def a_pipe_in_the_file_system_does_no_harm() -> None:
    is_ready(dockerfile("RUN mkfifo /pipe && mknod /dev/own-null c 1 3 || mkfifo /pipe2"))


def much_output_and_long_lines_are_taken_and_bounded() -> None:
    much = "yes 0123456789abcdef0123456789abcdef0123456789abcdef | head -c 200000000"
    result, entries = is_ready(dockerfile(f"RUN {much}", "RUN head -c 1048576 /dev/zero | tr '\\0' y; echo; echo behind"))
    holds("behind" in texts(entries), "what comes behind a long line is told")
    longest = max(len(text.encode()) for text in texts(entries))
    holds(longest < 300_000, f"the longest entry has {longest} bytes")
    whole = sum(len(text.encode()) for text in texts(entries))
    holds(whole < 64 * 1024 * 1024, f"the log has {whole} bytes")
    equal(TemplateBuild.connect(result.build_id).get_status().status, READY, "status")


if __name__ == "__main__":
    main(
        [
            what_the_image_says_becomes_what_machines_start_with,
            a_command_of_the_base_alone_is_no_start_command,
            a_step_that_fails_says_what_it_said_last,
            mistakes_in_a_dockerfile_name_their_line,
            privileges_are_refused,
            a_secret_that_is_required_and_not_there,
            what_belongs_to_another_backend_is_refused_before_any_work,
            without_a_network_nothing_is_fetched,
            with_a_network_packages_come,
            a_pipe_in_the_file_system_does_no_harm,
            much_output_and_long_lines_are_taken_and_bounded,
        ]
    )
