"""Templates as the published client sees them: section 11 of the contract, items 12, 14 to 17 and 21.

Every scenario makes the same tiny template under a name of its own: the first build of it boots a
machine, the others find its artifact.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from nullspace import Template, TemplateBuild
from nullspace.errors import ConflictError, MachineError, NotFoundError, PermissionError
from nullspace.types import (
    TemplateBuildSourceType,
    TemplateBuildStatus,
    TemplateNamespaceKind,
    TemplateVisibility,
)

from common import (
    DEBIAN_IMAGE,
    EXIT_CONFLICT,
    EXIT_FORBIDDEN,
    EXIT_NOT_FOUND,
    EXIT_USAGE,
    NULLSPACE,
    build,
    equal,
    exits,
    holds,
    http,
    is_error,
    key_of,
    main,
    raises,
    unique,
)

# The owner of the suite's own key, whose default namespace has the same name.
OWN = "default"


def tiny(reference: str, **options: Any) -> Any:
    """The build of the tiny template under this reference."""
    result, _ = build(Template.from_image(DEBIAN_IMAGE), reference, **options)
    equal(result.status, TemplateBuildStatus.READY, f"status of {reference}")
    return result


def template_command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([NULLSPACE, "template", *args], capture_output=True, text=True, check=False)


def prints(*args: str) -> str:
    """What `nullspace template …` prints when all is well."""
    done = template_command(*args)
    equal((done.returncode, done.stderr), (0, ""), f"exit code and stderr of {args}")
    return done.stdout


def prints_json(*args: str) -> Any:
    return json.loads(prints(*args))


def refs(templates: Any) -> set[str]:
    return {template.canonical_ref for template in templates}


def tags(reference: str) -> dict[str, str]:
    return {info.tag: info.build_id for info in Template.get_tags(reference)}


def item_12_looking_up() -> None:
    name = unique("my-app")
    first = tiny(f"{name}:v1")
    second = tiny(name)
    equal(second.template_id, first.template_id, "the builds of one name are of one template")
    holds(f"{OWN}/{name}" in refs(Template.list()), "the list has it")
    listed = Template.list(fields=["id", "canonical_ref"])
    holds({"id": first.template_id, "canonical_ref": f"{OWN}/{name}"} in listed, f"in the list of fields: {listed}")
    for reference in (name, f"{name}:v1", f"{name}:{first.build_id}", f"{OWN}/{name}:v1", first.template_id):
        info = Template.get(reference)
        equal((info.id, info.name, info.namespace_slug), (first.template_id, name, OWN), reference)
        equal(info.canonical_ref, f"{OWN}/{name}", f"canonical ref of {reference}")
        equal((info.tags, info.default_tag), (["default", "v1"], "default"), f"tags of {reference}")
        equal((info.visibility, info.builtin), (TemplateVisibility.PRIVATE, False), reference)
        holds(Template.exists(reference), f"{reference} exists")
    equal(Template.get(f"{name}:v1", fields="id,name"), {"id": first.template_id, "name": name}, "two fields")
    unknown = unique("nope")
    for reference in (unknown, f"{name}:v9", f"{name}:tb_{'0' * 26}", f"other/{name}", f"tmpl_{'1' * 26}"):
        holds(not Template.exists(reference), f"{reference} does not exist")
        equal(raises(NotFoundError, lambda r=reference: Template.get(r)).code, "template_not_found", reference)
    equal(raises(MachineError, lambda: Template.list(fields=["nope"])).code, "invalid_fields", "an unknown field")


def item_12_the_builtin() -> None:
    info = Template.get("nullspace/base:default")
    equal((info.name, info.builtin, info.visibility), ("base", True, TemplateVisibility.PUBLIC), "the builtin")
    equal(Template.get(info.id).canonical_ref, "nullspace/base", "by its id")
    holds("nullspace/base" in refs(Template.list()), "the list has it")
    raises(PermissionError, lambda: Template.get_tags("nullspace/base"))
    raises(PermissionError, lambda: Template.assign_tags("nullspace/base:latest", ["x"]))
    raises(PermissionError, lambda: Template.rename("nullspace/base", "x"))


def item_14_tags() -> None:
    name = unique("my-app")
    first, second = tiny(f"{name}:v1"), tiny(name)
    reference = f"{name}:{first.build_id}"
    info = Template.assign_tags(reference, ["a", "b"])
    equal(info.tags, ["a", "b", "default", "v1"], "tags")
    expected = {"a": first.build_id, "b": first.build_id, "default": second.build_id, "v1": first.build_id}
    equal(tags(name), expected, "where they point")
    Template.assign_tags(name, ["a"])
    equal(tags(name)["a"], second.build_id, "a tag moves to the build that the reference means")
    equal(Template.remove_tag(name, "b"), None, "the answer")
    holds("b" not in tags(name), "the tag is gone")
    raises(NotFoundError, lambda: Template.get(f"{name}:b"))
    raises(NotFoundError, lambda: Template.remove_tags(f"{OWN}/{name}", "b"))
    refused = raises(MachineError, lambda: Template.assign_tags(name, ["tb_x"]))
    equal(refused.code, "invalid_request", "a tag like a build id")
    raises(NotFoundError, lambda: Template.assign_tags(f"{name}:v9", ["x"]))


def item_15_renaming_and_visibility() -> None:
    old, new = unique("my-app"), unique("new-app")
    made = tiny(f"{old}:v1")
    info = Template.rename(old, new)
    equal((info.id, info.name, info.canonical_ref), (made.template_id, new, f"{OWN}/{new}"), "the renamed template")
    for reference in (old, f"{old}:v1", f"{OWN}/{old}", new):
        equal(Template.get(reference).id, made.template_id, reference)
    equal([alias.alias_ref for alias in Template.list_aliases(new)], [f"{OWN}/{old}"], "aliases")
    other = unique("other-app")
    tiny(other)
    raises(ConflictError, lambda: Template.rename(other, new))
    raises(ConflictError, lambda: Template.rename(other, old))
    raises(ConflictError, lambda: tiny(old))
    equal(Template.remove_alias(new, f"{OWN}/{old}"), None, "the answer")
    raises(NotFoundError, lambda: Template.get(old))
    raises(NotFoundError, lambda: Template.remove_alias(new, f"{OWN}/{old}"))
    equal(Template.list_aliases(new), [], "aliases afterwards")
    equal(Template.set_visibility(new, "public").visibility, TemplateVisibility.PUBLIC, "shown")
    equal(Template.get(new).visibility, TemplateVisibility.PUBLIC, "still shown")
    equal(Template.set_visibility(new, "private").visibility, TemplateVisibility.PRIVATE, "hidden again")


def item_16_names_are_kept_by_a_claim() -> None:
    name = unique("x")
    second_caller = key_of(OWN)
    claim = Template.reserve_name(name)
    equal(claim.canonical_ref, f"{OWN}/{name}", "canonical ref")
    raises(ConflictError, lambda: Template.reserve_name(name, api_key=second_caller))
    raises(ConflictError, lambda: Template.reserve_name(f"{OWN}/{name}"))
    stranger = key_of(unique("stranger"))
    unknown = "template_name_claim_not_found"
    error = raises(NotFoundError, lambda: Template.release_name_claim(claim.claim_token, api_key=stranger))
    equal(error.code, unknown, "a claim of somebody else")
    equal(Template.release_name_claim(claim.claim_token), None, "the answer")
    error = raises(NotFoundError, lambda: Template.release_name_claim(claim.claim_token))
    equal(error.code, unknown, "a claim that was released")
    again = Template.reserve_name(name, api_key=second_caller)
    tiny(name)
    raises(NotFoundError, lambda: Template.release_name_claim(again.claim_token))
    raises(ConflictError, lambda: Template.reserve_name(name))


def item_17_namespaces() -> None:
    own = Template.get_namespace(OWN)
    equal((own.slug, own.kind, own.is_default), (OWN, TemplateNamespaceKind.USER, True), "one's own")
    system = Template.get_namespace("nullspace")
    equal((system.kind, system.is_default), (TemplateNamespaceKind.SYSTEM, False), "the system's")
    raises(NotFoundError, lambda: Template.get_namespace(unique("none")))


def items_12_and_20_templates_of_others() -> None:
    owner, name = unique("owner"), unique("shared")
    key = key_of(owner)
    made = tiny(f"{name}:v1", api_key=key)
    reference = f"{owner}/{name}:v1"
    holds(not Template.exists(reference), "a private template is nowhere for others")
    raises(NotFoundError, lambda: Template.delete(reference))
    Template.set_visibility(name, "public", api_key=key)
    equal(Template.get(reference).id, made.template_id, "a public template is seen by others")
    holds(f"{owner}/{name}" in refs(Template.list()), "and listed")
    equal(tags(f"{owner}/{name}"), {"v1": made.build_id}, "its tags")
    raises(PermissionError, lambda: Template.delete(reference))
    raises(PermissionError, lambda: Template.assign_tags(reference, ["x"]))
    equal(Template.get_namespace(owner).is_default, False, "its namespace is known by it")
    child, _ = build(Template.from_template(reference), unique("child"))
    record = TemplateBuild.connect(child.build_id).get_status().build
    equal(record.source_type, TemplateBuildSourceType.TEMPLATE_BASE, "source type of what is built on it")
    Template.set_visibility(name, "private", api_key=key)
    holds(not Template.exists(reference), "hidden again")


def item_21_deleting() -> None:
    name = unique("my-app")
    made = tiny(f"{name}:v1")
    alias = unique("old-app")
    Template.rename(name, alias)
    Template.rename(alias, name)
    equal(Template.delete(f"{OWN}/{name}:v1"), None, "the answer")
    for reference in (name, f"{name}:v1", alias, made.template_id):
        holds(not Template.exists(reference), f"{reference} does not exist")
    raises(NotFoundError, lambda: Template.delete(name))
    holds(f"{OWN}/{name}" not in refs(Template.list()), "it is not listed")
    raises(PermissionError, lambda: Template.delete("nullspace/base"))
    again = tiny(name)
    holds(again.template_id != made.template_id, "the name is free for another template")
    equal(tags(name), {"default": again.build_id}, "which has tags of its own")


def the_command_line_lists_and_shows() -> None:
    name = unique("my-app")
    made = tiny(f"{name}:v1")
    holds(made.template_id in prints("list"), "the table has the id")
    listed = {row["canonical_ref"]: row for row in prints_json("list", "--json")}
    equal(listed[f"{OWN}/{name}"]["tags"], ["v1"], "tags in the list")
    rows = [line for line in prints("list", "--fields", "id,tags").splitlines() if made.template_id in line]
    equal(len(rows), 1, "rows of fields")
    holds("v1" in rows[0], f"the tag in the row: {rows}")
    exits(EXIT_USAGE, "list", "--fields", "id,nope")
    equal(prints_json("get", name, "--fields", "id,name"), {"id": made.template_id, "name": name}, "two fields")
    equal(prints_json("get", f"{name}:v1")["canonical_ref"], f"{OWN}/{name}", "all fields")
    unknown = unique("nope")
    error = json.loads(exits(EXIT_NOT_FOUND, "get", unknown, "--json"))["error"]
    equal(error["code"], "template_not_found", "code")
    holds(unknown in error["message"] and error["request_id"], f"message and request id: {error}")
    equal(prints_json("exists", name), {"template_ref": name, "exists": True}, "exists")
    equal(prints_json("exists", unknown)["exists"], False, "does not exist")
    namespace = prints_json("namespace", "get", OWN)
    equal(namespace, {"slug": OWN, "kind": "user", "is_default": True}, "namespace")
    exits(EXIT_NOT_FOUND, "namespace", "get", unknown)


def the_command_line_changes_and_deletes() -> None:
    name, new = unique("my-app"), unique("new-app")
    made = tiny(f"{name}:v1")
    equal(prints_json("tag", "assign", f"{name}:{made.build_id}", "prod", "stable")["tags"], ["prod", "stable", "v1"], "tags")
    listed = prints_json("tag", "list", name)
    equal({tag["tag"]: tag["build_id"] for tag in listed}, dict.fromkeys(["prod", "stable", "v1"], made.build_id), "tags")
    equal(prints("tag", "remove", name, "stable"), f"Removed tag stable from {name}\n", "the line")
    exits(EXIT_NOT_FOUND, "tag", "remove", name, "stable")
    equal(prints_json("rename", name, new)["name"], new, "the new name")
    equal([alias["alias_ref"] for alias in prints_json("alias", "list", new)], [f"{OWN}/{name}"], "aliases")
    equal(prints_json("visibility", "set", new, "public")["visibility"], "public", "visibility")
    exits(EXIT_CONFLICT, "reserve", new)
    exits(EXIT_CONFLICT, "reserve", name)
    line = f"Removed alias {OWN}/{name} from {new}\n"
    equal(prints("alias", "remove", new, f"{OWN}/{name}"), line, "the line")
    claim = prints_json("reserve", name)
    equal(claim["canonical_ref"], f"{OWN}/{name}", "the reserved name")
    exits(EXIT_CONFLICT, "reserve", name)
    token = claim["claim_token"]
    equal(prints("claim", "release", token), f"Released claim {token}\n", "the line")
    exits(EXIT_NOT_FOUND, "claim", "release", token)
    equal(prints("delete", new), f"Deleted {new}\n", "the line")
    exits(EXIT_NOT_FOUND, "delete", new)
    exits(EXIT_FORBIDDEN, "delete", "nullspace/base")


def the_routes_below_the_id_are_the_same() -> None:
    name, new = unique("my-app"), unique("new-app")
    made = tiny(f"{name}:v1")
    base = f"/v1/templates/{made.template_id}"
    with http() as client:
        equal(client.get(base).json(), client.get(f"/v1/templates/refs/{name}").json(), "the template")
        assigned = client.post(f"{base}/tags", json={"tags": ["x"]})
        equal((assigned.status_code, assigned.json()["tags"]), (200, ["v1", "x"]), "assigned tags")
        equal([tag["tag"] for tag in client.get(f"{base}/tags").json()], ["v1", "x"], "listed tags")
        equal(client.delete(f"{base}/tags/x").status_code, 204, "removing a tag")
        equal(client.post(f"{base}/rename", json={"new_name": new}).json()["name"], new, "the new name")
        equal(client.get(f"{base}/aliases").json()[0]["alias_ref"], f"{OWN}/{name}", "the alias")
        equal(client.delete(f"{base}/aliases/{OWN}%2F{name}").status_code, 204, "removing an alias")
        shown = client.patch(f"{base}/visibility", json={"visibility": "public"})
        equal((shown.status_code, shown.json()["visibility"]), (200, "public"), "visibility")
        deleted = client.delete(base)
        equal((deleted.status_code, deleted.content), (204, b""), "deleting")
        is_error(client.get(base), 404, "template_not_found")


if __name__ == "__main__":
    main(
        [
            item_12_looking_up,
            item_12_the_builtin,
            item_14_tags,
            item_15_renaming_and_visibility,
            item_16_names_are_kept_by_a_claim,
            item_17_namespaces,
            items_12_and_20_templates_of_others,
            item_21_deleting,
            the_command_line_lists_and_shows,
            the_command_line_changes_and_deletes,
            the_routes_below_the_id_are_the_same,
        ]
    )
