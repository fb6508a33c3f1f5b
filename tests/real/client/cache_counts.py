"""What the caches did for builds, as their summaries count it, and builds that operators look at."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nullspace import Template, TemplateBuild
from nullspace.errors import BuildError
from nullspace.types import (
    TemplateBuildCacheKind,
    TemplateBuildCacheReason,
    TemplateBuildCacheStatus,
    TemplateBuildStatus,
)

from common import DEBIAN_IMAGE, Entries, build, cache, equal, holds, main, raises, unique

BLOB, LAYER = TemplateBuildCacheKind.FILE_BLOB, TemplateBuildCacheKind.LAYER
BYPASS, MISS = TemplateBuildCacheStatus.BYPASS, TemplateBuildCacheStatus.MISS
COUNTERS = [
    f"{kind}_{what}"
    for kind in ("final_artifact", "layer", "file_blob")
    for what in ("hits", "misses", "bypasses", "stores")
]


def counters(build_id: str) -> dict[str, int]:
    """The counters of a build that are not 0; every one of the twelve must be there."""
    summary = TemplateBuild.connect(build_id).cache_summary
    counts = {name: getattr(summary, name) for name in COUNTERS}
    holds(all(isinstance(count, int) for count in counts.values()), f"all twelve are numbers: {counts}")
    return {name: count for name, count in counts.items() if count}


def reasons(entries: Entries, kind: TemplateBuildCacheKind) -> set[TemplateBuildCacheReason | None]:
    return {e.cache_reason for e in cache(entries, kind, BYPASS)}


def the_twelve_counters_count() -> None:
    name = unique("counted")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "src").mkdir()
        Path(folder, "src", "one.txt").write_text(f"one of {name}")
        Path(folder, "src", "two.txt").write_text(f"two of {name}")
        Path(folder, "src", "same.txt").write_text(f"one of {name}")
        Path(folder, "unused.txt").write_text(f"unused of {name}")

        def run(force_upload: bool = False, boundary: bool = False, **options: Any) -> tuple[Any, Entries]:
            builder = Template.from_image(DEBIAN_IMAGE).set_file_context(folder)
            builder = builder.copy("src", "/app/", force_upload=force_upload)
            if boundary:
                builder = builder.skip_cache()
            result, entries = build(builder.run(f"echo {name} > /made"), name, **options)
            equal(result.status, TemplateBuildStatus.READY, "status")
            return result, entries

        # Two contents in three files; two steps that make a layer.
        first, entries = run()
        missing = {e.cache_reason for e in cache(entries, BLOB, MISS)}
        equal(missing, {TemplateBuildCacheReason.MISSING_OR_INCOMPATIBLE}, "why files missed")
        stored = {"final_artifact_stores": 1, "layer_stores": 2}
        new = {"final_artifact_misses": 1, "layer_misses": 2, "file_blob_misses": 2, "file_blob_stores": 2}
        equal(counters(first.build_id), stored | new, "counters of the first build")

        again, _ = run()
        equal(counters(again.build_id), {"final_artifact_hits": 1, "file_blob_hits": 2}, "counters of the same again")

        forced, entries = run(force_upload=True)
        anew = {"final_artifact_bypasses": 1, "layer_bypasses": 2}
        sent = {"file_blob_bypasses": 2, "file_blob_stores": 2}
        equal(counters(forced.build_id), stored | anew | sent, "counters with force_upload")
        for kind in (BLOB, LAYER):
            equal(reasons(entries, kind), {TemplateBuildCacheReason.FORCE_UPLOAD}, f"why {kind} was bypassed")

        whole, entries = run(skip_cache=True)
        there = {"file_blob_hits": 2}
        equal(counters(whole.build_id), stored | anew | there, "counters of a build that skips the cache")
        equal(reasons(entries, LAYER), {TemplateBuildCacheReason.WHOLE_BUILD_SKIP_CACHE}, "why it was bypassed")

        behind, entries = run(boundary=True)
        half = {"final_artifact_bypasses": 1, "final_artifact_stores": 1}
        half |= {"layer_hits": 1, "layer_bypasses": 1, "layer_stores": 1}
        equal(counters(behind.build_id), half | there, "counters behind a boundary")
        equal(reasons(entries, LAYER), {TemplateBuildCacheReason.BUILDER_CACHE_BOUNDARY}, "why it was bypassed")


def _kept() -> Template:
    return Template.from_image(DEBIAN_IMAGE).run("echo kept > /kept")


def kept() -> None:
    """A template, whose layers must stay."""
    build(_kept(), "cache-kept")


def _lost() -> Entries:
    entries: Entries = []
    builder = Template.from_image(DEBIAN_IMAGE).run("echo lost > /lost").run("exit 3")
    raises(BuildError, lambda: Template.build(builder, "cache-lost", on_log_entry=entries.append))
    return entries


def lost() -> None:
    """A build that fails after its first step: nobody needs the layer of that."""
    equal([e.step_index for e in cache(_lost(), LAYER, TemplateBuildCacheStatus.STORED)], [1], "steps that were kept")


def lost_is_there() -> None:
    equal([e.step_index for e in cache(_lost(), LAYER, TemplateBuildCacheStatus.HIT)], [1], "steps that hit")


def lost_is_rebuilt() -> None:
    missed = cache(_lost(), LAYER, MISS)
    equal([e.step_index for e in missed], [1, 2], "steps that missed")
    equal(missed[0].cache_reason, TemplateBuildCacheReason.MISSING_OR_INCOMPATIBLE, "why")


def kept_is_there() -> None:
    _, entries = build(_kept().run("echo more > /more"), "cache-kept-more")
    equal([e.step_index for e in cache(entries, LAYER, TemplateBuildCacheStatus.HIT)], [1], "steps that hit")


def begun() -> None:
    """Leaves a build whose step is running."""
    build = Template.build_in_background(Template.from_image(DEBIAN_IMAGE).run("echo begun; sleep 15"), "cache-begun")
    for entry in build.logs(follow=True):
        if entry.message == "begun":
            return
    raise AssertionError("the step never began")


if __name__ == "__main__":
    main([the_twelve_counters_count, kept, lost, lost_is_there, lost_is_rebuilt, kept_is_there, begun])
