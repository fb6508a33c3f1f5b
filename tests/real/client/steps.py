"""What each kind of step makes: seen in the root file system of the built template."""

from __future__ import annotations

import re

from common import equal, holds, main
from rootfs import Node, Rootfs, file, folder, link
from step_templates import HOSTILE, ODD, PYTHON_PACKAGES, build_once, context, every, inside

APP = "1500:2000"
# The folder of the test's context below `tree`, as a copy of it must be.
TREE = {
    "a.txt": file("a\n", "0640"),
    "hollow": folder(mode="0700"),
    "sub folder": folder("naïve ü.txt"),
    ODD: file("odd\n"),
}
TOOL = "#!/bin/sh\necho tool\n"


def has(rootfs: Rootfs, expected: dict[str, Node | None]) -> None:
    """Checks every path before it fails, for a build is dear."""
    wrong = {path: found for path, node in expected.items() if (found := rootfs.at(path)) != node}
    holds(not wrong, "\n".join(f"{path}: expected {expected[path]}, is {found}" for path, found in wrong.items()))


def run_takes_commands_of_every_form() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                # A list is a step for each command.
                "/lines/pwd": file("/\n"),
                "/lines/text": file("a 'b' \"c\" $d `e` \\ f\n"),
                "/lines/after": file("after\n"),
            },
        )


def run_is_done_by_the_user_that_is_named() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                "/home/app/who": file("1500\n2000\n/home/app\n/\n", owner=APP),
                "/home/app/number": file("1500\n7\n", owner="1500:7"),
            },
        )


def build_variables_are_in_the_steps_and_others_are_not() -> None:
    with inside("files") as rootfs:
        equal(rootfs.text("/lines/env"), "it's \"quoted\" $HOME", "the variable of the build")
        equal(rootfs.text("/lines/runtime-env"), "none", "the variable of the machine")


def make_dir_makes_parents_and_sets_the_mode() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                "/made/deep/er": folder(mode="1770"),
                "/made/deep": folder("er", mode="0711"),
                "/made/plain": folder("name"),
                "/srv/app/nested/mine/deep": folder(mode="0700", owner=APP),
                "/srv/app/nested/mine": folder("deep", owner=APP),
            },
        )


def make_symlink_takes_its_target_as_it_is_written() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                "/made/link": link("/nowhere at all"),
                "/made/parents/of/link": link("../made/deep"),
                "/made/plain/name": link("/target/name"),
                "/srv/app/nested/link": link("mine", owner=APP),
            },
        )


def remove_takes_away_what_is_named_and_nothing_else() -> None:
    with inside("files") as rootfs:
        has(rootfs, {"/gone": folder("kept"), "/etc/issue.net": None, "/etc/profile.d": None})
        holds(rootfs.exists("/etc/profile"), "what stands beside is kept")


def rename_moves_folders_of_lower_layers_whole() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                "/etc/skel": None,
                "/moved/skel": folder(".bash_logout", ".bashrc", ".profile"),
                "/lower/tree": None,
                "/moved/tree": folder("hard", "soft", "sub", owner=APP),
                "/moved/tree/sub": folder("s", mode="2750", owner=APP),
                "/moved/tree/sub/s": file("s\n", owner=APP),
                "/moved/tree/hard": file("s\n", owner=APP),
                "/moved/tree/soft": link("sub/s", owner=APP),
                "/lower/new": None,
                "/lower/old": file("new\n"),
                "/etc/issue": None,
                "/lower/dir": folder("issue"),
            },
        )


def copy_puts_files_under_a_name_or_into_a_folder() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                "/copied/renamed": file("one\n"),
                "/copied/into": folder("one.txt"),
                "/copied/into/one.txt": file("one\n"),
                "/copied/several": folder("empty", "one.txt", "same.txt", "two.txt"),
                "/copied/several/one.txt": file("one\n"),
                "/copied/several/same.txt": file("one\n"),
                "/copied/several/two.txt": file("two\n", "0600"),
                "/copied/several/empty": file(""),
                # The client gives a source a name without blanks.
                "/copied/blank name": folder("blank_name.txt"),
            },
        )


def copy_puts_what_is_in_a_folder_into_the_destination() -> None:
    with inside("files") as rootfs:
        equal(rootfs.tree("/copied/tree"), TREE, "the copied folder")


def copy_gives_files_the_owner_and_mode_that_are_named() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                "/copied/setuid": file(TOOL, "4755", APP),
                "/copied/numbers": file(TOOL, "0755", "7:9"),
                # A number alone is the group's, too.
                "/copied/number": file(TOOL, "0755", "1500:1500"),
                "/copied/forced/a.txt": file("a\n", "0640", APP),
                # Who may read a folder may enter it: 0640 is meant for what is in it.
                "/copied/forced/sub folder": folder("naïve ü.txt", mode="0750", owner=APP),
                f"/copied/forced/{ODD}": file("odd\n", "0640", APP),
            },
        )


def copy_items_copies_each_as_it_says() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                "/items": folder("more", "one", "tree"),
                "/items/one": file("one\n"),
                "/items/more": folder("empty", "two.txt", owner=APP),
                "/items/more/two.txt": file("two\n", "0600", APP),
                "/items/more/empty": file("", "0600", APP),
            },
        )
        equal(rootfs.tree("/items/tree"), TREE, "the copied folder")


def workdir_is_made_and_later_paths_start_there() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                "/srv/app": folder("nested", "pwd", "relative"),
                "/srv/app/relative/one.txt": file("one\n"),
                "/srv/app/pwd": file("/srv/app\n"),
                "/srv/app/nested/pwd": file("/srv/app/nested\n", owner=APP),
                "/srv/last": folder(owner=APP),
            },
        )


def user_is_who_later_steps_run_as() -> None:
    with inside("files") as rootfs:
        has(
            rootfs,
            {
                "/srv/app/nested": folder("link", "made-by", "mine", "pwd", "still-roots", owner=APP),
                "/srv/app/nested/made-by": file("app\n", owner=APP),
                # As in a Dockerfile, only `user` of the copy itself changes the owner.
                "/srv/app/nested/still-roots": file("one\n"),
            },
        )


def nothing_of_the_build_is_left_in_the_template() -> None:
    for recipe in ("files", "packages"):
        with inside(recipe) as rootfs:
            has(rootfs, {"/run": folder("lock"), "/tmp": folder(mode="1777"), "/proc": folder(), "/sys": folder()})


def names_of_packages_are_never_read_by_a_shell() -> None:
    with inside("calls") as rootfs:
        equal(rootfs.at("/pwned"), None, "what a shell would have made")
        names = " ".join(quoted(name) for name in HOSTILE)
        clone = f"'file:///x; touch /pwned' {quoted('/$(touch /pwned)')}"
        expected = [
            "apt-get 'update'",
            f"apt-get 'install' '-y' {names}",
            "apt-get 'clean'",
            f"pip 'install' '--no-cache-dir' {names}",
            f"npm 'install' {names}",
            f"bun 'add' {names}",
        ]
        found = rootfs.text("/calls-hostile").splitlines()
        equal([call for call in found if not call.startswith("git ")], expected, "calls of installers")
        clones = [call for call in found if " 'clone' " in call]
        equal(len(clones), 1, f"clones in {found}")
        holds(clones[0].endswith(clone) and quoted("`touch /pwned`") in clones[0], f"the clone: {clones[0]}")


def quoted(word: str) -> str:
    return "'" + word.replace("'", r"'\''") + "'"


def installers_are_called_as_the_client_renders_them() -> None:
    def plain(text: str) -> list[str]:
        # `--` closes git's options; the emptied cache, and commits that are asked for first, are ours.
        calls = [call.replace(" '--' ", " ").replace("'--global'", "'-g'") for call in text.splitlines()]
        calls = [re.sub(r"'--user' '--no-cache-dir'", "'--no-cache-dir' '--user'", call) for call in calls]
        return [c for c in calls if c != "apt-get 'clean'" and (not c.startswith("git ") or " 'clone' " in c)]

    with inside("calls") as rootfs:
        expected = plain(rootfs.text("/calls"))
        equal(len(expected), 10, "calls of the rendering")
        equal(plain(rootfs.text("/calls-steps")), expected, "calls of the steps")


def steps_change_files_as_the_client_renders_them() -> None:
    with inside("twins") as rootfs:
        expected = rootfs.tree("/rendered")
        holds("made/tree/sub/t" in expected, f"the rendering changed files: {sorted(expected)}")
        equal(rootfs.tree("/steps"), expected, "the files that steps changed")


def apt_install_installs_and_leaves_no_lists() -> None:
    with inside("packages") as rootfs:
        hello = rootfs.at("/usr/bin/hello")
        holds(hello is not None and (hello.kind, hello.mode, hello.owner) == ("file", "0755", "0:0"), f"hello: {hello}")
        status = rootfs.text("/var/lib/dpkg/status")
        holds("\nPackage: hello\nStatus: install ok installed\n" in status, "dpkg knows it")
        equal(rootfs.at("/var/lib/apt/lists"), folder(), "lists")
        archives = rootfs.at("/var/cache/apt/archives")
        holds(archives is not None and not str(archives.content).count(".deb"), f"archives: {archives}")


def pip_install_is_for_all_users_or_for_one() -> None:
    with inside("packages") as rootfs:
        six = rootfs.at(f"{PYTHON_PACKAGES}/six.py")
        holds(six is not None and six.owner == "0:0" and six.mode == "0644", f"six: {six and six[:3]}")
        own = "/home/app/.local/lib/python3.11/site-packages"
        package = rootfs.at(f"{own}/idna")
        holds(package is not None and (package.kind, package.owner) == ("dir", APP), f"idna: {package}")
        owners = {node.owner for node in rootfs.tree("/home/app/.local").values() if node is not None}
        equal(owners, {APP}, "owners in the user's folder")
        equal(rootfs.at(f"{PYTHON_PACKAGES}/idna"), None, "the user's package among those of all")
        holds(not rootfs.exists("/root/.cache/pip") and not rootfs.exists("/home/app/.cache/pip"), "no cache is left")


def npm_install_goes_to_the_working_folder_or_is_global() -> None:
    with inside("npm") as rootfs:
        equal(rootfs.at("/app"), folder("node_modules", "package-lock.json", "package.json", owner=APP), "/app")
        holds('"name": "ms"' in rootfs.text("/app/node_modules/ms/package.json"), "ms is in the working folder")
        owners = {node.owner for node in rootfs.tree("/app").values() if node is not None}
        equal(owners, {APP}, "owners in the working folder")
        equal(rootfs.at("/usr/local/bin/json5"), link("../lib/node_modules/json5/lib/cli.js"), "the global command")
        package = rootfs.at("/usr/local/lib/node_modules/json5/package.json")
        holds(package is not None and package.owner == "0:0", f"json5: {package}")


def bun_install_goes_to_the_working_folder_or_is_global() -> None:
    # The image's `bun` is a stand-in that has npm do the work: this shows the step, not Bun.
    with inside("every") as rootfs:
        local, shared = "/www/node_modules/json5/package.json", "/usr/local/lib/node_modules/ms/package.json"
        holds('"name": "json5"' in rootfs.text(local), "json5 is in the working folder")
        holds('"name": "ms"' in rootfs.text(shared), "ms is global")


def git_clone_takes_branch_and_depth() -> None:
    with inside("clones") as rootfs:
        equal(rootfs.text("/workspace/file"), "3\n", "the default branch at the default path")
        equal(rootfs.text("/workspace/.git/HEAD"), "ref: refs/heads/main\n", "the default branch")
        equal(rootfs.at("/workspace/.git/shallow"), None, "a whole clone has all commits")
        equal(rootfs.text("/shallow/file"), "side\n", "the branch that is named")
        equal(rootfs.text("/shallow/.git/HEAD"), "ref: refs/heads/side\n", "the branch that is named")
        equal(len(rootfs.text("/shallow/.git/shallow").splitlines()), 1, "commits where a clone of depth 1 ends")


def git_clone_goes_to_its_path_as_the_user_in_force() -> None:
    with inside("clones") as rootfs:
        equal(rootfs.text("/place/relative/path/file"), "3\n", "relative paths start at the working folder")
        equal(rootfs.at("/home/app/cloned/file"), file("side\n", owner=APP), "a file of the user's clone")
        owners = {node.owner for node in rootfs.tree("/home/app/cloned").values() if node is not None}
        equal(owners, {APP}, "owners in the user's clone")


def every_kind_of_step_in_one_template() -> None:
    with context() as files_of_it:
        steps = every().set_file_context(files_of_it).to_json()["steps"]
    equal(len({step["action"] for step in steps}), 15, "kinds of steps")
    build_once("every")


if __name__ == "__main__":
    # The first scenario of a template builds it: those are far apart, so that templates are built side by side.
    main(
        [
            every_kind_of_step_in_one_template,
            run_takes_commands_of_every_form,
            pip_install_is_for_all_users_or_for_one,
            npm_install_goes_to_the_working_folder_or_is_global,
            git_clone_takes_branch_and_depth,
            names_of_packages_are_never_read_by_a_shell,
            steps_change_files_as_the_client_renders_them,
            run_is_done_by_the_user_that_is_named,
            build_variables_are_in_the_steps_and_others_are_not,
            make_dir_makes_parents_and_sets_the_mode,
            make_symlink_takes_its_target_as_it_is_written,
            remove_takes_away_what_is_named_and_nothing_else,
            rename_moves_folders_of_lower_layers_whole,
            copy_puts_files_under_a_name_or_into_a_folder,
            copy_puts_what_is_in_a_folder_into_the_destination,
            copy_gives_files_the_owner_and_mode_that_are_named,
            copy_items_copies_each_as_it_says,
            workdir_is_made_and_later_paths_start_there,
            user_is_who_later_steps_run_as,
            nothing_of_the_build_is_left_in_the_template,
            installers_are_called_as_the_client_renders_them,
            apt_install_installs_and_leaves_no_lists,
            bun_install_goes_to_the_working_folder_or_is_global,
            git_clone_goes_to_its_path_as_the_user_in_force,
        ]
    )
