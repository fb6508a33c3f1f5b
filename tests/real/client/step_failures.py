"""Steps that fail: each tells its phase, its place, why, and the last lines of what it said."""

from __future__ import annotations

import json
from collections.abc import Callable

from nullspace import Template
from nullspace.errors import BuildError
from nullspace.types import TemplateBuildLogKind

from common import Entries, equal, holds, is_whole_log, main, raises, unique
from step_templates import context

Failing = Callable[[Template], Template]


def fails(template: Template, add: Failing, *told: str, details: dict[str, object] | None = None) -> None:
    """The step that `add` adds fails, and the error tells all of `told`."""
    entries: Entries = []
    with context() as folder:
        builder = add(template.run("true")).run("echo never").set_file_context(folder)
        name = unique("step-fails")
        error = raises(
            BuildError,
            lambda: Template.build(builder, name, on_log_entry=entries.append, internet_access=False),
        )
    is_whole_log(entries, TemplateBuildLogKind.ERROR)
    whole = f"{error} {json.dumps(error.details, ensure_ascii=False)}"
    # A command tells itself what is wrong: its step's title, which the message repeats, would prove nothing.
    telling = "\n".join(error.details.get("stderr_tail", [str(error)]))
    equal(error.phase.value, "build_step", f"phase ({whole})")
    equal(error.step_index, 2, f"the step, counted from 1 ({whole})")
    equal(error.retryable, False, f"retryable ({whole})")
    for words in told:
        holds(words in telling, f"{words!r} is told: {whole}")
    for key, value in (details or {}).items():
        equal(error.details.get(key), value, f"{key} ({whole})")


def of_files(add: Failing, *told: str) -> None:
    fails(Template.from_debian_image(), add, *told)


def a_command_that_exits_with_a_code() -> None:
    of_run = Template.from_debian_image
    last = "for n in $(seq 100); do echo line-$n >&2; done; exit 42"
    fails(of_run(), lambda t: t.run(last), "line-100", "line-99", details={"exit_code": 42})
    fails(of_run(), lambda t: t.run("set -e\nfalse\necho not reached"), details={"exit_code": 1})
    fails(of_run(), lambda t: t.run("sh -c 'kill -KILL $$'"), details={"exit_code": 137})
    fails(of_run(), lambda t: t.run("no-such-program"), "no-such-program", details={"exit_code": 127})


def a_user_that_the_image_does_not_have() -> None:
    of_files(lambda t: t.run("true", user="nobody-here"), "nobody-here")
    of_files(lambda t: t.copy("one.txt", "/x", user="nobody-here"), "nobody-here")
    of_files(lambda t: t.copy("one.txt", "/x", user="root:no-group"), "no-group")


def a_removal_of_what_is_not_there_or_is_a_folder() -> None:
    of_files(lambda t: t.remove("/not/there"), "/not/there", "no such file or folder")
    of_files(lambda t: t.remove("/etc/apt"), "/etc/apt", "it is a folder")
    of_files(lambda t: t.remove("/", recursive=True, force=True), "root of the file system")


def a_rename_of_nothing_or_onto_something() -> None:
    of_files(lambda t: t.rename("/not/there", "/x"), "/not/there", "no such file or folder")
    of_files(lambda t: t.rename("/etc/passwd", "/etc/group"), "/etc/group", "something already")
    of_files(lambda t: t.rename("/etc", "/etc/apt/etc", force=True), "into itself")


def a_folder_or_link_where_something_else_is() -> None:
    of_files(lambda t: t.make_dir("/etc/passwd/x"), "/etc/passwd/x", "not a folder")
    of_files(lambda t: t.make_symlink("/x", "/etc/passwd"), "/etc/passwd", "something already")
    of_files(lambda t: t.copy("one.txt", "/etc/passwd/x"), "/etc/passwd/x")


def apt_names_the_package_that_it_does_not_know() -> None:
    image = Template.from_debian_image()
    fails(image, lambda t: t.apt_install("x; touch pwned"), "Unable to locate package x; touch pwned")


def pip_names_the_package_that_is_none() -> None:
    image = Template.from_python_image("3.11", variant="slim")
    fails(image, lambda t: t.pip_install("x$(touch /pwned)"), "Invalid requirement: 'x$(touch /pwned)'")


def npm_and_bun_name_the_package_that_is_none() -> None:
    fails(Template.from_bun_image("1"), lambda t: t.npm_install("x$(touch /pwned)"), "x$(touch /pwned)")
    # By npm: the image's `bun` is a stand-in.
    fails(Template.from_bun_image("1"), lambda t: t.bun_install("x`touch /pwned`"), "x`touch /pwned`")


def git_names_the_repository_that_is_none() -> None:
    image = Template.from_image("buildpack-deps:bookworm-scm")
    fails(image, lambda t: t.git_clone("file:///not; touch /pwned"), "/not; touch /pwned")


if __name__ == "__main__":
    main(
        [
            a_command_that_exits_with_a_code,
            a_user_that_the_image_does_not_have,
            a_removal_of_what_is_not_there_or_is_a_folder,
            a_rename_of_nothing_or_onto_something,
            a_folder_or_link_where_something_else_is,
            apt_names_the_package_that_it_does_not_know,
            pip_names_the_package_that_is_none,
            npm_and_bun_name_the_package_that_is_none,
            git_names_the_repository_that_is_none,
        ]
    )
