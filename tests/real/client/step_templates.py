"""The templates that the scenarios of `steps.py` look into. Each is built once for all of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from nullspace import Template, wait_for_port
from nullspace.types import TemplateBuildStatus

from common import build, equal, http, is_whole_log
from rootfs import Rootfs

SCM_IMAGE = "buildpack-deps:bookworm-scm"
NODE_IMAGE_VERSION = "20"
# Not ASCII, and a blank: what a path may hold.
ODD = "sub folder/naïve ü.txt"
# A user with a group of another number, as images have them.
ADD_USER = "groupadd --gid 2000 crew && useradd --create-home --uid 1500 --gid crew app"
# Names of packages that a shell would take for more than names.
HOSTILE = ["x; touch /pwned", "$(touch /pwned)", "`touch /pwned`", "it's", 'a"b', "a b", "*", "-", "|| true"]
# Writes down how it was called: one call a line, each argument quoted. As git it has one commit.
STAND_IN = r"""#!/bin/bash
printf '%s\n' "${0##*/} ${*@Q}" >> /calls
case "${0##*/} $1" in
  "git ls-remote") for name; do [[ $name != HEAD && $name != refs/* ]] || printf '%040d\t%s\n' 0 "$name"; done ;;
  "git clone") mkdir -p -- "${@: -1}" ;;
  "git rev-parse") printf '%040d\n' 0 ;;
esac
"""
PYTHON_PACKAGES = "/usr/local/lib/python3.11/dist-packages"


@contextlib.contextmanager
def context() -> Iterator[str]:
    """The folder that the templates copy from."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path, text, mode in (
            ("one.txt", "one\n", 0o644),
            ("two.txt", "two\n", 0o600),
            ("same.txt", "one\n", 0o644),
            ("tool.sh", "#!/bin/sh\necho tool\n", 0o755),
            ("empty", "", 0o644),
            (f"tree/{ODD}", "odd\n", 0o644),
            ("tree/a.txt", "a\n", 0o640),
            ("blank name.txt", "blank\n", 0o644),
        ):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(mode)
        (root / "tree/hollow").mkdir(mode=0o700)
        yield folder


def commands(template: Template) -> Template:
    """Every form of `run`."""
    return (
        template.run([ADD_USER, "mkdir /lines", "pwd > /lines/pwd"])
        .run(
            """set -eu
cat > /lines/text <<'END'
a 'b' "c" $d `e` \\ f
END
printf '%s' "$BUILD_ONLY" > /lines/env
printf '%s' "${AT_RUN_TIME-none}" > /lines/runtime-env
"""
        )
        .run('id -u > ~/who; id -g >> ~/who; echo "$HOME" >> ~/who; pwd >> ~/who', user="app")
        .run("false; id -u > /home/app/number; id -g >> /home/app/number", user="1500:7")
        .skip_cache()
        .run("echo after > /lines/after")
    )


def folders_and_links(template: Template) -> Template:
    return (
        template.make_dir("/made/deep/er", mode=0o1770)
        .make_dir("/made/plain")
        .make_dir("/made/deep", mode="0711")
        .make_symlink("/nowhere at all", "/made/link")
        .make_symlink("../made/deep", "/made/parents/of/link")
        .make_symlink("/target/name", "/made/plain")
    )


def removals(template: Template) -> Template:
    return (
        template.run("mkdir -p /gone/tree/a/b /gone/kept && touch /gone/file /gone/tree/a/f")
        .run("ln -s /gone/kept /gone/link")
        .remove("/gone/file")
        .remove("/gone/tree", recursive=True)
        .remove("/gone/link")
        .remove("/etc/issue.net")
        .remove("/etc/profile.d", recursive=True)
        .remove("/not/there", force=True)
    )


def renames(template: Template) -> Template:
    return (
        template.run(
            "mkdir -p /lower/tree/sub && echo s > /lower/tree/sub/s && ln /lower/tree/sub/s /lower/tree/hard && "
            "ln -s sub/s /lower/tree/soft && chmod 2750 /lower/tree/sub && chown -R app:crew /lower/tree && "
            "echo new > /lower/new && echo old > /lower/old && mkdir /lower/dir"
        )
        # One that came with the image, one that an earlier step made.
        .rename("/etc/skel", "/moved/skel")
        .rename("/lower/tree", "/moved/tree")
        .rename("/lower/new", "/lower/old", force=True)
        .rename("/etc/issue", "/lower/dir")
    )


def copies(template: Template) -> Template:
    return (
        template.copy("one.txt", "/copied/renamed")
        .copy("one.txt", "/copied/into/")
        .copy(["one.txt", "two.txt", "same.txt", "empty"], "/copied/several")
        .copy("tree", "/copied/tree")
        .copy("tree", "/copied/forced/", user="app:crew", mode=0o640, force_upload=True)
        .copy("tool.sh", "/copied/setuid", mode="4755", user="app")
        .copy("tool.sh", "/copied/numbers", user="7:9")
        .copy("tool.sh", "/copied/number", user="1500")
        .copy("blank name.txt", "/copied/blank name/")
        .copy_items(
            [
                ("one.txt", "/items/one"),
                {"src": ["two.txt", "empty"], "dst": "/items/more/", "mode": "0600", "user": "app"},
                {"src": "tree", "dst": "/items/tree"},
            ]
        )
    )


def users_and_folders(template: Template) -> Template:
    return (
        template.workdir("/srv/app")
        .copy("one.txt", "relative/")
        .run("pwd > pwd")
        .set_user("app")
        .workdir("nested")
        .run("id -un > made-by; pwd > pwd")
        .make_dir("mine/deep", mode=0o700)
        .make_symlink("mine", "link")
        .copy("one.txt", "still-roots")
        .workdir("/srv/last/")
    )


def files() -> Template:
    template = (
        Template.from_debian_image()
        .set_build_envs({"BUILD_ONLY": "it's \"quoted\" $HOME"})
        .env({"AT_RUN_TIME": "here it is"})
    )
    for add in (commands, folders_and_links, removals, renames, copies, users_and_folders):
        template = add(template)
    return template


def calls() -> Template:
    """Installers and git are stand-ins that write down their arguments, so that nothing fails."""
    template = Template.from_debian_image().run(
        f"cd /usr/local/bin; printf %s {shlex.quote(STAND_IN)} > pip; chmod 755 pip; touch /calls; chmod 666 /calls; "
        "for name in apt-get npm bun git; do ln -s pip $name; done"
    )
    hostile: list[Callable[[Template], Template]] = [
        lambda t: t.apt_install(HOSTILE),
        lambda t: t.pip_install(HOSTILE),
        lambda t: t.npm_install(HOSTILE),
        lambda t: t.bun_install(HOSTILE),
        lambda t: t.git_clone("file:///x; touch /pwned", "/$(touch /pwned)", branch="`touch /pwned`"),
    ]
    for add in hostile:
        template = add(template)
    # The same plain steps as we do them and as the client renders them.
    template = installations(template.run("mv /calls /calls-hostile; touch /calls; chmod 666 /calls"))
    template = template.run("mv /calls /calls-steps; touch /calls; chmod 666 /calls")
    for command in rendered(installations(Template.from_debian_image())):
        template = template.run(command)
    return template


def installations(template: Template) -> Template:
    return (
        template.apt_install("a", "b=1.*")
        .pip_install("c==2", "d[e]")
        .pip_install("f", g=False)
        .npm_install("@g/h@^1")
        .npm_install("i", g=True)
        .bun_install("j")
        .bun_install("k", g=True)
        .git_clone("https://l/m.git")
        .git_clone("https://l/m.git", "/n", branch="o", depth=3)
    )


def rendered(template: Template) -> list[str]:
    """The commands of the client's own rendering as a Dockerfile."""
    return re.findall(r"^RUN (.*)$", template.to_dockerfile(), re.MULTILINE)


def changes(template: Template, top: str) -> Template:
    """Changes of files below `top`, which the client can render as commands."""
    return (
        template.make_dir(f"{top}/made/deep", mode="2751")
        .make_dir(f"{top}/made/plain")
        .make_symlink("../plain", f"{top}/made/deep/link")
        .make_symlink("/some/name", f"{top}/made/plain")
        .rename(f"{top}/src/tree", f"{top}/made/tree")
        .rename(f"{top}/src/one", f"{top}/src/two", force=True)
        .rename(f"{top}/src/moved", f"{top}/made/plain")
        .remove(f"{top}/src/file")
        .remove(f"{top}/src/dir", recursive=True)
        .remove(f"{top}/src/link-to-dir")
        .remove(f"{top}/none", force=True)
        .run("id -un; echo \"a 'b'\" | tr a-z A-Z > " + f"{top}/made/ran")
        .run(f"id -un > {top}/made/by; echo hello > {top}/made/said", user="app")
    )


def twins() -> Template:
    """The same steps twice, by a user that is not root: as steps, and as the client renders them."""
    prepare = (
        "for top in /steps /rendered; do mkdir -p $top/src/tree/sub $top/src/dir/a; cd $top/src; "
        "echo 1 > one; echo 2 > two; echo m > moved; echo f > file; echo t > tree/sub/t; "
        "chmod 2700 tree/sub; ln -s dir link-to-dir; chown -hR app:crew $top; done"
    )
    template = Template.from_debian_image().run([ADD_USER, "passwd -d app > /dev/null", prepare]).set_user("app")
    template = changes(template, "/steps")
    for command in rendered(changes(Template.from_debian_image(), "/rendered")):
        # Debian's `su` asks for a password of an account that has one; this one has none.
        template = template.run(command)
    return template


def packages() -> Template:
    return (
        Template.from_python_image("3.11", variant="slim")
        .run(ADD_USER)
        .apt_install("hello")
        .pip_install("six")
        .set_user("app")
        .pip_install("idna", g=False)
    )


def clones() -> Template:
    make = """set -eu
git config --system user.name a && git config --system user.email a@b
git init -q -b main /srv/origin && cd /srv/origin
for n in 1 2 3; do echo $n > file; git add file; git commit -q -m $n; done
git checkout -q -b side && echo side > file && git commit -q -a -m side && git checkout -q main
cp -a /srv/origin /srv/users && chown -R app:crew /srv/users
"""
    return (
        Template.from_image(SCM_IMAGE)
        .run([ADD_USER, make])
        .git_clone("file:///srv/origin")
        .git_clone("file:///srv/origin", "/shallow", branch="side", depth=1)
        .workdir("/place")
        .git_clone("file:///srv/origin", "relative/path")
        .workdir("/home/app")
        .set_user("app")
        .git_clone("file:///srv/users", "cloned", branch="side")
    )


def npm() -> Template:
    return (
        Template.from_node_image(NODE_IMAGE_VERSION, variant="slim")
        .run([ADD_USER, "mkdir /app && chown app:crew /app"])
        .npm_install("json5", g=True)
        .workdir("/app")
        .set_user("app")
        .npm_install("ms")
    )


def every() -> Template:
    """All fifteen kinds of step, in a template that serves what they made."""
    no_more = "echo 'APT::Install-Recommends \"false\";' > /etc/apt/apt.conf.d/no-recommends"
    make = (
        "git init -q -b main /srv/origin && cd /srv/origin && "
        "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m c"
    )
    return (
        Template.from_bun_image("1")
        .set_build_envs({"BUILD_ONLY": "never at run time"})
        .env({"AT_RUN_TIME": "here it is"})
        .run([no_more, ADD_USER, 'test "$BUILD_ONLY" = "never at run time"'])
        .apt_install("git", "python3-pip")
        .pip_install("six")
        .npm_install("json5", g=True)
        .bun_install("ms", g=True)
        .run(make)
        .skip_cache()
        .git_clone("file:///srv/origin", "/cloned")
        .copy("one.txt", "/copied/", mode="0640", user="app")
        .copy_items([("tree", "/items/")])
        .make_dir("/www", mode=0o755)
        .make_symlink("/copied/one.txt", "/www/link.txt")
        .rename("/etc/skel", "/www/skel")
        .remove("/etc/issue.net")
        .run("chown app /www")
        .workdir("/www")
        .set_user("app")
        .npm_install("ms")
        .bun_install("json5")
        .set_start_cmd("exec python3 -m http.server 8000", wait_for_port(8000))
    )


RECIPES: dict[str, Callable[[], Template]] = {
    recipe.__name__: recipe for recipe in (files, calls, twins, packages, clones, npm, every)
}


def build_once(recipe: str) -> str:
    """Builds the template `steps-RECIPE` unless it is there, and gives the id of its build; whoever comes
    meanwhile waits."""
    # Beside the service's data: a name in there means the same to every scenario of one service.
    note = Path(os.environ["NULLSPACE_TEST_DATA_DIR"]).with_name(f"steps-{recipe}.build")
    with open(note, "a+", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.seek(0)
        if build_id := held.read():
            return build_id
        with context() as folder:
            # Installers want room; a build of steps alone does not.
            memory_mb = 1024 if recipe in {"npm", "every"} else 512
            template = RECIPES[recipe]().set_file_context(folder)
            result, entries = build(template, f"steps-{recipe}", memory_mb=memory_mb)
        equal(result.status, TemplateBuildStatus.READY, f"status of steps-{recipe}")
        is_whole_log(entries)
        held.write(result.build_id)
        return result.build_id


def inside(recipe: str) -> Rootfs:
    """The root file system of the template `steps-RECIPE`, as it is in its artifact."""
    build_id = build_once(recipe)
    with http() as client:
        built = client.get(f"/v1/templates/builds/{build_id}").json()["build"]
    (artifact,) = built["artifact_ids"]
    return Rootfs(Path(os.environ["NULLSPACE_TEST_DATA_DIR"], "artifacts", artifact, "rootfs.ext4"))
