"""Steps that attack the builder: each build fails with its reason, and the service goes on."""

from __future__ import annotations

from typing import Any

from nullspace import Template
from nullspace.errors import BuildError
from nullspace.types import TemplateBuildStatus

from common import DEBIAN_IMAGE, Entries, build, equal, holds, http, is_whole_log, main, raises, unique

# More than the bounds that the suite's service has: 512 processes and 1024 MiB for one step.
PROCESSES, DISK_MB = 600, 1200


def is_healthy() -> None:
    """The service answers, and a normal build gets ready."""
    with http(None) as client:
        equal(client.get("/healthz").status_code, 200, "status of /healthz")
    name = unique("after")
    result, entries = build(Template.from_image(DEBIAN_IMAGE).run(f"echo {name}"), name)
    is_whole_log(entries)
    equal(result.status, TemplateBuildStatus.READY, "status of the build after the attack")


def failure(command: str, reason: str, **options: Any) -> BuildError:
    """The failure of a build whose second step is `command`."""
    name = unique("attack")
    builder = Template.from_image(DEBIAN_IMAGE).run(f"echo {name}").run(command)
    error = raises(BuildError, lambda: Template.build(builder, name, **options))
    equal(error.details["reason"], reason, f"reason ({error})")
    equal(error.phase.value, "build_step", "phase")
    equal(error.step_index, 2, "the step that failed")
    return error


def a_fork_bomb() -> None:
    bomb = f"for i in $(seq {PROCESSES}); do sleep 60 & done; echo all"
    error = failure(bomb, "step_failed")
    holds("512 processes" in str(error), f"the message names the bound: {error}")
    is_healthy()


def eaten_memory() -> None:
    error = failure("head -c 2G /dev/zero | tail -c 2G > /dev/null", "out_of_memory")
    holds("MiB of memory" in str(error), f"the message names the bound: {error}")
    is_healthy()


def a_filled_disk() -> None:
    parts = f"for i in $(seq {DISK_MB // 100}); do head -c 100M /dev/zero > /part-$i; done; sleep 30"
    error = failure(parts, "disk_full")
    holds("1024 MiB" in str(error), f"the message names the bound: {error}")
    is_healthy()


def users_of_a_step_work_as_on_a_machine() -> None:
    entries: Entries = []
    builder = (
        Template.from_image(DEBIAN_IMAGE)
        .run("useradd -m -u 1234 dev && touch /home/dev/own && chown dev:dev /home/dev/own")
        .run("su dev -c 'echo user=$(id -u) own=$(stat -c %u /home/dev/own)'")
        .run("echo root-on-the-host=$(cut -c 1-40 /proc/self/uid_map | tr -s ' ')")
    )
    Template.build(builder, unique("users"), on_log_entry=entries.append)
    messages = [entry.message for entry in entries]
    holds("user=1234 own=1234" in messages, f"users have their own numbers: {messages}")
    roots = [m for m in messages if m.startswith("root-on-the-host=")]
    equal(roots, ["root-on-the-host= 0 1879048192 268304384"], "whom a step's users are on the host")


if __name__ == "__main__":
    main([a_fork_bomb, eaten_memory, a_filled_disk, users_of_a_step_work_as_on_a_machine])
