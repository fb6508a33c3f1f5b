"""What the cache keeps, and how it tells why something was not in it."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

from nullspace import Template
from nullspace.types import TemplateBuildCacheKind, TemplateBuildCacheStatus

from common import DEBIAN_IMAGE, Entries, build, cache, equal, holds, main, unique

LAYER, ARTIFACT = TemplateBuildCacheKind.LAYER, TemplateBuildCacheKind.FINAL_ARTIFACT
HIT, MISS = TemplateBuildCacheStatus.HIT, TemplateBuildCacheStatus.MISS


def steps(entries: Entries, status: TemplateBuildCacheStatus) -> list[int | None]:
    """The steps that hit or missed, counted from 1."""
    return [e.step_index for e in cache(entries, LAYER, status)]


def whys(entries: Entries, kind: TemplateBuildCacheKind) -> list[str]:
    """What the misses of a kind say, without what was missed."""
    misses = cache(entries, kind, MISS)
    equal({e.cache_reason.value for e in misses} - {"missing_or_incompatible"}, set(), "reasons of misses")
    for entry in misses:
        holds(str(entry.cache_subject) in entry.message, f"{entry.message!r} names {entry.cache_subject!r}")
    return [e.message.partition(f"{e.cache_subject}: ")[2] for e in misses]


def another_size_reuses_every_layer() -> None:
    name = unique("resized")
    builder = Template.from_image(DEBIAN_IMAGE).run(f"echo {name} > /a").make_dir("/b")
    size = {"cpu_count": 1, "memory_mb": 512}
    _, entries = build(builder, name, **size)
    equal((steps(entries, MISS), whys(entries, LAYER)), ([1, 2], ["", ""]), "misses of the first build")
    equal(whys(entries, ARTIFACT), [""], "what a first artifact is told")
    for change, why in [
        ({"memory_mb": 768}, "memory_mib 512 → 768"),
        ({"cpu_count": 2}, "vcpus 1 → 2"),
        ({"disk_mb": 2048}, "disk_mb none → 2048"),
    ]:
        _, entries = build(builder, name, **size | change)
        equal((steps(entries, HIT), steps(entries, MISS)), ([1, 2], []), f"hits and misses of steps ({why})")
        equal(whys(entries, ARTIFACT), [why], "what the artifact is told")


def a_miss_names_the_file_or_variable_that_changed() -> None:
    name = unique("explained")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        source.mkdir()
        source.joinpath("same.py").write_text(name)

        def built(content: str, variable: str) -> Entries:
            source.joinpath("main.py").write_text(content)
            builder = (
                Template.from_image(DEBIAN_IMAGE)
                .set_file_context(folder)
                .set_build_envs({"SETTING": variable})
                .copy("src", "/app/")
                .run(f"cat /app/main.py; echo {name}")
            )
            return build(builder, name)[1]

        def brief(content: str) -> str:
            return hashlib.sha256(content.encode()).hexdigest()[:8] + "…"

        entries = built("one", "hush-1")
        equal(whys(entries, LAYER), ["", ""], "what a first build is told")
        entries = built("two", "hush-1")
        why = f"src/main.py changed (sha256 {brief('one')} → {brief('two')})"
        first, second = whys(entries, LAYER)
        equal(first, why, "what the copy is told")
        equal(second, f"before it, copy: {why}", "what the command above it is told")
        equal(whys(entries, ARTIFACT), [f"before it, copy: {why}"], "what the artifact is told")
        entries = built("two", "hush-2")
        equal(steps(entries, HIT), [1], "steps that a variable does not reach")
        equal(whys(entries, LAYER), ["environment variable SETTING changed"], "what the command is told")
        holds(all("hush" not in e.message for e in entries), "no value of a variable is in the log")


def a_clone_of_an_unchanged_repository_is_a_hit() -> None:
    name = unique("cloned")
    make = " && ".join(
        [
            "git init --quiet /origin",
            "cd /origin",
            f"echo {name} > file",
            "git add file",
            "git -c user.name=t -c user.email=t@example.org commit --quiet --message=first",
        ]
    )
    builder = (
        Template.from_image(DEBIAN_IMAGE)
        .apt_install(["git"])
        .run(make)
        .git_clone("file:///origin", "/clone")
        .run(f"test $(cat /clone/file) = {name} && git -C /clone rev-parse HEAD")
    )
    _, entries = build(builder, name)
    commits = {e.message for e in entries if re.fullmatch("[0-9a-f]{40}", e.message)}
    equal(len(commits), 1, f"commits that the last step printed: {commits}")
    _, entries = build(builder, name)
    told = f"Commit {commits.pop()} is what the default branch has."
    holds(told in [e.message for e in entries], "the log tells the commit")
    equal((steps(entries, HIT), steps(entries, MISS)), ([1, 2, 3, 4], []), "hits and misses of steps")
    equal(len(cache(entries, ARTIFACT, HIT)), 1, "artifact hits")


if __name__ == "__main__":
    main(
        [
            another_size_reuses_every_layer,
            a_miss_names_the_file_or_variable_that_changed,
            a_clone_of_an_unchanged_repository_is_a_hit,
        ]
    )
