"""Templates as bases: item 20 of the contract's conformance script, and what goes wrong with them."""

from __future__ import annotations

from common import DEBIAN_IMAGE, build, cache, equal, holds, main, raises, unique
from nullspace import Template, TemplateBuild
from nullspace.errors import NotFoundError
from nullspace.types import (
    TemplateBuildCacheKind,
    TemplateBuildCacheStatus,
    TemplateBuildSourceType,
    TemplateBuildStatus,
)


def is_template_base(build_id: str, what: str) -> None:
    record = TemplateBuild.connect(build_id).get_status().build
    equal(record.status, TemplateBuildStatus.READY, f"status on {what}")
    equal(record.source_type, TemplateBuildSourceType.TEMPLATE_BASE, f"source type on {what}")


def item_20_the_builtin() -> None:
    # The file is there if the builtin is the configured image.
    result, _ = build(Template.from_template("base").run("grep -q bookworm /etc/os-release"), unique("on-builtin"))
    is_template_base(result.build_id, "the builtin")


def item_20_every_form_of_an_own_template() -> None:
    name = unique("my-app")
    made, _ = build(Template.from_image(DEBIAN_IMAGE).run(f"echo {name} > /name"), f"{name}:prod")
    latest, _ = build(Template.from_image(DEBIAN_IMAGE).run(f"echo latest {name} > /name"), name)
    last_step = "cat /name"
    for reference, expected in {
        name: f"latest {name}",
        f"{name}:prod": name,
        f"{name}:{made.build_id}": name,
        f"default/{name}": f"latest {name}",
        f"default/{name}:prod": name,
        latest.template_id: f"latest {name}",
    }.items():
        result, entries = build(Template.from_template(reference).run(last_step), f"{name}-child")
        is_template_base(result.build_id, reference)
        steps = [e.message for e in entries if e.step_index is not None]
        hit = cache(entries, TemplateBuildCacheKind.FINAL_ARTIFACT, TemplateBuildCacheStatus.HIT)
        # The same layers are the same base, whatever the reference: only the first of each runs.
        holds(bool(hit) or expected in steps, f"the step on {reference} sees {expected!r}: {steps}")


def a_base_that_is_not_there() -> None:
    name = unique("absent")
    for reference in (name, f"{name}:v1"):
        error = raises(NotFoundError, lambda r=reference: build(Template.from_template(r), unique("orphan")))
        holds(name in str(error) and "builtin" in str(error), f"the message names both attempts: {error}")


if __name__ == "__main__":
    main([item_20_the_builtin, item_20_every_form_of_an_own_template, a_base_that_is_not_there])
