"""Two at once: keys of one owner share its names, templates and claims, keys of two owners share nothing but
what is public. Each race is run a few times, and the log tells who won."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from nullspace import Template, TemplateBuild
from nullspace.errors import ConflictError, MachineError, NotFoundError, PermissionError

from common import DEBIAN_IMAGE, at_once, build, equal, holds, http, key_of, main, new_key, raises, unique

OWN = "default"
ROUNDS = 5
TINY = Template.from_image(DEBIAN_IMAGE)


@cache
def two_keys() -> tuple[list[str], list[str]]:
    """Two keys of the one owner: their ids, and the keys."""
    ids, keys = zip(new_key(OWN), new_key(OWN), strict=True)
    return list(ids), list(keys)


def told(kind: str, **filters: str) -> list[dict[str, Any]]:
    """What the owner's part of the log has of this type."""
    with http() as client, client.stream("GET", "/v1/events", params={"type": kind, **filters}) as answer:
        equal(answer.status_code, 200, "status")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    # Between the events it says how far it is.
    return [event for event in map(json.loads, lines) if "type" in event]


def actors(events: list[dict[str, Any]]) -> list[str]:
    return [event["actor"] for event in events]


def one_of(outcomes: list[Any], loses: type[MachineError], code: str) -> int:
    """The index of the one that won; every other one lost in this way."""
    winners = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, MachineError)]
    equal(len(winners), 1, f"winners ({outcomes})")
    for outcome in outcomes:
        if isinstance(outcome, MachineError):
            equal((type(outcome), outcome.code), (loses, code), f"what the others get ({outcome})")
    return winners[0]


def of_two_keys_that_reserve_one_name_one_has_it() -> None:
    ids, keys = two_keys()
    for _ in range(ROUNDS):
        name = unique("wanted")
        outcomes = at_once(*(lambda k=k: Template.reserve_name(name, api_key=k) for k in keys))
        won = one_of(outcomes, ConflictError, "conflict")
        claims = [event for event in told("NameClaimed") if event["data"]["name"] == name]
        equal(actors(claims), [f"key:{ids[won]}"], "who reserved it")
        Template.release_name_claim(outcomes[won].claim_token, api_key=keys[won])


def the_names_of_two_owners_are_two_names() -> None:
    owners = {owner: key_of(owner) for owner in (unique("one"), unique("two"))}
    name = unique("wanted")
    claims = at_once(*(lambda k=k: Template.reserve_name(name, api_key=k) for k in owners.values()))
    equal([claim.canonical_ref for claim in claims], [f"{owner}/{name}" for owner in owners], "both have it")
    built = at_once(*(lambda k=k: Template.build(TINY, name, api_key=k) for k in owners.values()))
    holds(built[0].template_id != built[1].template_id, "two templates")
    for (owner, own), made in zip(owners.items(), built, strict=True):
        equal(Template.get(name, api_key=own).id, made.template_id, f"what {owner} means by it")
    # Nobody takes a name of another's namespace, in a race or not.
    first, second = owners
    error = raises(MachineError, lambda: Template.reserve_name(f"{first}/other", api_key=owners[second]))
    equal(error.code, "invalid_request", "code of a name in the namespace of another")


def builds_under_one_name_at_once_are_of_one_template() -> None:
    _, keys = two_keys()
    for _ in range(ROUNDS):
        name = unique("wanted")
        handles = at_once(*(lambda k=k: Template.build_in_background(TINY, name, api_key=k) for k in keys))
        equal(len({handle.template_id for handle in handles}), 1, "templates")
        for handle in handles:
            handle.wait_until_terminal()
        equal(len(Template.list_builds(name).builds), 2, "builds of it")


def of_two_templates_that_are_renamed_to_one_name_one_has_it() -> None:
    ids, keys = two_keys()
    for _ in range(ROUNDS):
        names, wanted = [unique("one"), unique("two")], unique("wanted")
        made = [build(TINY, name)[0] for name in names]
        outcomes = at_once(
            *(lambda n=n, k=k: Template.rename(n, wanted, api_key=k) for n, k in zip(names, keys, strict=True))
        )
        won = one_of(outcomes, ConflictError, "conflict")
        equal(Template.get(wanted).id, made[won].template_id, "who is called so")
        renames = told("Renamed", template=f"{made[0].template_id},{made[1].template_id}")
        equal(actors(renames), [f"key:{ids[won]}"], "who renamed")
        equal(Template.get(names[1 - won]).name, names[1 - won], "what the other one is called")


def of_two_who_delete_a_template_one_did() -> None:
    ids, keys = two_keys()
    for _ in range(ROUNDS):
        name = unique("doomed")
        made, _ = build(TINY, name)
        outcomes = at_once(*(lambda k=k: Template.delete(name, api_key=k) for k in keys))
        done = [outcome for outcome in outcomes if outcome is None]
        equal(len(done), 1, f"deletions ({outcomes})")
        deletions = told("Deleted", template=made.template_id)
        equal(actors(deletions), [f"key:{ids[outcomes.index(None)]}"], "who deleted it")
        lost = next(outcome for outcome in outcomes if outcome is not None)
        holds(isinstance(lost, NotFoundError | ConflictError), f"what the other one gets: {lost!r}")
        holds(not Template.exists(name), "it is gone")


def a_promotion_and_a_deletion_agree_on_who_was_first() -> None:
    ids, keys = two_keys()
    for round_ in range(ROUNDS):
        name = unique("doomed")
        made, _ = build(TINY, f"{name}:v1")
        handle = TemplateBuild.connect(made.build_id, api_key=keys[0])
        acts = [lambda h=handle: h.promote(tag="prod"), lambda n=name: Template.delete(n, api_key=keys[1])]
        order = [0, 1] if round_ % 2 == 0 else [1, 0]
        outcomes = at_once(*(acts[index] for index in order))
        promoted, deleted = (outcomes[order.index(index)] for index in (0, 1))
        if deleted is None:
            # Whoever came too late is told; whoever came before moved the tag of what was then deleted.
            holds(not Template.exists(name), "it is gone")
            if isinstance(promoted, MachineError):
                equal(type(promoted), ConflictError, f"what the promotion gets ({promoted})")
        else:
            # Only a tag that moved since it was looked at stands against a deletion.
            equal((type(deleted), deleted.code), (ConflictError, "conflict"), f"what the deletion gets ({deleted})")
            holds(not isinstance(promoted, MachineError), f"the promotion won: {promoted}")
            equal(Template.get(f"{name}:prod").id, made.template_id, "what the tag means")
        # In the order in which it happened: nothing happens to a template that is gone.
        happened = [(event["type"], event["actor"]) for event in told("TagsAssigned,Deleted", template=made.template_id)]
        expected = []
        if not isinstance(promoted, MachineError):
            expected.append(("TagsAssigned", f"key:{ids[0]}"))
        if deleted is None:
            expected.append(("Deleted", f"key:{ids[1]}"))
        equal(happened, expected, "what the log tells")


def of_two_promotions_of_one_tag_the_later_one_counts() -> None:
    ids, keys = two_keys()
    name = unique("moved")
    made = [build(TINY, f"{name}:{tag}")[0] for tag in ("v1", "v2")]
    builds = [one.build_id for one in made]
    for _ in range(ROUNDS):
        outcomes = at_once(
            lambda: TemplateBuild.connect(builds[0], api_key=keys[0]).promote(tag="prod"),
            lambda: TemplateBuild.connect(builds[1], api_key=keys[1]).promote(tag="prod"),
        )
        holds(not any(isinstance(outcome, MachineError) for outcome in outcomes), f"both are done: {outcomes}")
        points_to = {tag.tag: tag.build_id for tag in Template.get_tags(name)}["prod"]
        last = told("TagsAssigned", template=made[0].template_id)[-1]
        equal(last["data"]["build"], points_to, "where the last promotion moved it")
        equal(last["actor"], f"key:{ids[builds.index(points_to)]}", "who gave the last word")


def a_public_template_is_changed_by_its_owner_alone_in_a_race_too() -> None:
    stranger_id, stranger = new_key(unique("stranger"))
    for _ in range(ROUNDS):
        name = unique("shown")
        made, _ = build(TINY, f"{name}:v1")
        Template.set_visibility(name, "public")
        reference = f"{OWN}/{name}:v1"
        own, moved, deleted, promoted = at_once(
            lambda n=name: Template.assign_tags(f"{n}:v1", ["prod"]),
            lambda r=reference: Template.assign_tags(r, ["theirs"], api_key=stranger),
            lambda r=reference: Template.delete(r, api_key=stranger),
            lambda b=made.build_id: TemplateBuild.connect(b, api_key=stranger).promote(tag="theirs"),
        )
        equal(sorted(own.tags), ["prod", "v1"], "tags that its owner gave")
        equal([type(moved), type(deleted)], [PermissionError] * 2, f"what the stranger gets ({moved}; {deleted})")
        equal((type(promoted), promoted.code), (NotFoundError, "template_build_not_found"), "of its build")
        equal(sorted(Template.get(name).tags), ["prod", "v1"], "tags afterwards")
        changes = told("TagsAssigned,Deleted,VisibilityChanged", template=made.template_id)
        holds(f"key:{stranger_id}" not in actors(changes), f"the stranger did nothing: {changes}")


if __name__ == "__main__":
    main(
        [
            of_two_keys_that_reserve_one_name_one_has_it,
            the_names_of_two_owners_are_two_names,
            builds_under_one_name_at_once_are_of_one_template,
            of_two_templates_that_are_renamed_to_one_name_one_has_it,
            of_two_who_delete_a_template_one_did,
            a_promotion_and_a_deletion_agree_on_who_was_first,
            of_two_promotions_of_one_tag_the_later_one_counts,
            a_public_template_is_changed_by_its_owner_alone_in_a_race_too,
        ]
    )
