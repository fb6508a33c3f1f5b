"""Two at once: keys of one owner share its names, templates and claims, keys of two owners share nothing but
what is public. Each race is run a few times, and whoever began is somebody else each time."""

from __future__ import annotations

from typing import Any

from nullspace import Template, TemplateBuild
from nullspace.errors import ConflictError, MachineError, NotFoundError, PermissionError

from common import DEBIAN_IMAGE, at_once, build, equal, holds, key, key_of, main, raises, unique

OWN = "default"
ROUNDS = 5
TINY = Template.from_image(DEBIAN_IMAGE)


def one_of(outcomes: list[Any], loses: type[MachineError], code: str) -> int:
    """The index of the one that won; every other one lost in this way."""
    winners = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, MachineError)]
    equal(len(winners), 1, f"winners ({outcomes})")
    for outcome in outcomes:
        if isinstance(outcome, MachineError):
            equal((type(outcome), outcome.code), (loses, code), f"what the others get ({outcome})")
    return winners[0]


def of_two_keys_that_reserve_one_name_one_has_it() -> None:
    keys = [key(), key_of(OWN)]
    for _ in range(ROUNDS):
        name = unique("wanted")
        outcomes = at_once(*(lambda k=k: Template.reserve_name(name, api_key=k) for k in keys))
        won = one_of(outcomes, ConflictError, "conflict")
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
    keys = [key(), key_of(OWN)]
    for _ in range(ROUNDS):
        name = unique("wanted")
        handles = at_once(*(lambda k=k: Template.build_in_background(TINY, name, api_key=k) for k in keys))
        equal(len({handle.template_id for handle in handles}), 1, "templates")
        for handle in handles:
            handle.wait_until_terminal()
        equal(len(Template.list_builds(name).builds), 2, "builds of it")


def of_two_templates_that_are_renamed_to_one_name_one_has_it() -> None:
    keys = [key(), key_of(OWN)]
    for _ in range(ROUNDS):
        names, wanted = [unique("one"), unique("two")], unique("wanted")
        made = [build(TINY, name)[0] for name in names]
        outcomes = at_once(
            *(lambda n=n, k=k: Template.rename(n, wanted, api_key=k) for n, k in zip(names, keys, strict=True))
        )
        won = one_of(outcomes, ConflictError, "conflict")
        equal(Template.get(wanted).id, made[won].template_id, "who is called so")
        equal(Template.get(names[1 - won]).name, names[1 - won], "what the other one is called")


def of_two_who_delete_a_template_one_did() -> None:
    keys = [key(), key_of(OWN)]
    for _ in range(ROUNDS):
        name = unique("doomed")
        build(TINY, name)
        outcomes = at_once(*(lambda k=k: Template.delete(name, api_key=k) for k in keys))
        done = [outcome for outcome in outcomes if outcome is None]
        equal(len(done), 1, f"deletions ({outcomes})")
        lost = next(outcome for outcome in outcomes if outcome is not None)
        holds(isinstance(lost, NotFoundError | ConflictError), f"what the other one gets: {lost!r}")
        holds(not Template.exists(name), "it is gone")


def a_promotion_and_a_deletion_agree_on_who_was_first() -> None:
    other = key_of(OWN)
    for round_ in range(ROUNDS):
        name = unique("doomed")
        made, _ = build(TINY, f"{name}:v1")
        handle = TemplateBuild.connect(made.build_id)
        acts = [lambda h=handle: h.promote(tag="prod"), lambda n=name: Template.delete(n, api_key=other)]
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


def of_two_promotions_of_one_tag_the_later_one_counts() -> None:
    other = key_of(OWN)
    name = unique("moved")
    builds = [build(TINY, f"{name}:{tag}")[0].build_id for tag in ("v1", "v2")]
    for _ in range(ROUNDS):
        outcomes = at_once(
            lambda: TemplateBuild.connect(builds[0]).promote(tag="prod"),
            lambda: TemplateBuild.connect(builds[1], api_key=other).promote(tag="prod"),
        )
        holds(not any(isinstance(outcome, MachineError) for outcome in outcomes), f"both are done: {outcomes}")
        points_to = {tag.tag: tag.build_id for tag in Template.get_tags(name)}["prod"]
        holds(points_to in builds, f"it points to one of them: {points_to}")


def a_public_template_is_changed_by_its_owner_alone_in_a_race_too() -> None:
    stranger = key_of(unique("stranger"))
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
