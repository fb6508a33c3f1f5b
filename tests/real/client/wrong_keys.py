"""Keys that open nothing, and those of others: section 11 of the client's contract, item 19."""

from __future__ import annotations

from collections.abc import Callable

from nullspace import Template, TemplateBuild
from nullspace.errors import AuthError, NotFoundError

from common import DEBIAN_IMAGE, EXIT_AUTH, EXIT_NOT_FOUND, build, equal, exits, holds, http, key, key_of, main, raises, unique

WRONG = "ns_live_wrong"
BUILDER = Template.from_image(DEBIAN_IMAGE)
Act = Callable[[str], object]


def of_templates(name: str) -> dict[str, Act]:
    """Every method that asks the service and takes a key."""
    return {
        "build": lambda k: Template.build(BUILDER, name, api_key=k),
        "build_in_background": lambda k: Template.build_in_background(BUILDER, name, api_key=k),
        "validate": lambda k: Template.validate(BUILDER, name, api_key=k),
        "plan": lambda k: Template.plan(BUILDER, name, api_key=k),
        "list": lambda k: Template.list(api_key=k),
        "get": lambda k: Template.get(name, api_key=k),
        "exists": lambda k: Template.exists(name, api_key=k),
        "delete": lambda k: Template.delete(name, api_key=k),
        "rename": lambda k: Template.rename(name, f"{name}-2", api_key=k),
        "list_builds": lambda k: Template.list_builds(name, api_key=k),
        "assign_tags": lambda k: Template.assign_tags(name, ["x"], api_key=k),
        "get_tags": lambda k: Template.get_tags(name, api_key=k),
        "remove_tag": lambda k: Template.remove_tag(name, "v1", api_key=k),
        "remove_tags": lambda k: Template.remove_tags(name, "v1", api_key=k),
        "list_aliases": lambda k: Template.list_aliases(name, api_key=k),
        "remove_alias": lambda k: Template.remove_alias(name, f"default/{name}", api_key=k),
        "set_visibility": lambda k: Template.set_visibility(name, "public", api_key=k),
        "reserve_name": lambda k: Template.reserve_name(f"{name}-3", api_key=k),
        "release_name_claim": lambda k: Template.release_name_claim("tnc_x", api_key=k),
        "get_namespace": lambda k: Template.get_namespace("default", api_key=k),
    }


def of_builds(build_id: str) -> dict[str, Act]:
    """Every method of a build's handle, on one that has this key and no right to the build."""

    def on(act: Callable[[TemplateBuild], object]) -> Act:
        return lambda k: act(with_key(build_id, k))

    return {
        "connect": lambda k: TemplateBuild.connect(build_id, api_key=k),
        "get_status": on(lambda b: b.get_status()),
        "wait_until_terminal": on(lambda b: b.wait_until_terminal()),
        "logs": on(lambda b: list(b.logs(follow=False))),
        "cancel": on(lambda b: b.cancel()),
        "retry": on(lambda b: b.retry()),
        "promote": on(lambda b: b.promote(tag="x")),
    }


def with_key(build_id: str, api_key: str) -> TemplateBuild:
    """The handle of a build whose owner's key has been exchanged for another one."""
    handle = TemplateBuild.connect(build_id)
    handle._client._client.headers["Authorization"] = f"Bearer {api_key}"
    return handle


def item_19_a_wrong_key_opens_nothing() -> None:
    name = unique("mine")
    made, _ = build(BUILDER, f"{name}:v1")
    acts = of_templates(name) | of_builds(made.build_id)
    for method, act in acts.items():
        for wrong in (WRONG, f"{key()}x"):
            error = raises(AuthError, lambda a=act, k=wrong: a(k))
            equal(error.code, "unauthorized", f"code of {method} ({error})")
            holds(wrong not in str(error), f"{method} does not repeat the key")
    exits(EXIT_AUTH, "list", api_key=WRONG)
    exits(EXIT_AUTH, "build-status", made.build_id, api_key=WRONG)
    info = Template.get(name)
    equal((info.tags, info.visibility.value), (["v1"], "private"), "the template afterwards")
    equal(len(Template.list_builds(name).builds), 1, "its builds afterwards")
    holds(not Template.exists(f"{name}-2") and not Template.exists(f"{name}-3"), "nothing else was made")


def item_19_somebody_elses_build_is_not_found() -> None:
    name = unique("mine")
    made, _ = build(BUILDER, f"{name}:v1")
    other = key_of(unique("other"))
    for method, act in of_builds(made.build_id).items():
        error = raises(NotFoundError, lambda a=act: a(other))
        equal(error.code, "template_build_not_found", f"{method}: {error}")
    exits(EXIT_NOT_FOUND, "build-status", made.build_id, api_key=other)
    exits(EXIT_NOT_FOUND, "promote", made.build_id, "--tag", "x", api_key=other)
    # Nor does it tell that it is there: one that is not gets the same answer.
    with http(other) as client:
        theirs = client.get(f"/v1/templates/builds/{made.build_id}").json()
        none = client.get(f"/v1/templates/builds/tb_{'0' * 26}").json()
    told = [
        (body["code"], body["error"].replace(made.build_id, "ID").replace(f"tb_{'0' * 26}", "ID")) for body in (theirs, none)
    ]
    equal(told[0], told[1], "what is said of a build of somebody else, and of none")
    # A public template changes nothing about its builds.
    Template.set_visibility(name, "public")
    equal(Template.get(f"default/{name}", api_key=other).id, made.template_id, "the template is seen")
    raises(NotFoundError, lambda: TemplateBuild.connect(made.build_id, api_key=other))


if __name__ == "__main__":
    main([item_19_a_wrong_key_opens_nothing, item_19_somebody_elses_build_is_not_found])
