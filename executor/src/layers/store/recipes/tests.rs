use super::*;
use crate::layers::recipe::{Listed, Value};

/// A memory in a temporary folder.
struct World {
    dir: tempfile::TempDir,
    limits: RecipeLimits,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            limits: RecipeLimits::default(),
        }
    }

    fn open(&self) -> Recipes {
        Recipes::open(self.dir.path().join(FOLDER), self.limits)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join(FOLDER)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }
}

fn place(subject: &str, index: u32) -> Place {
    Place {
        scope: "team".to_owned(),
        subject: subject.to_owned(),
        index: Some(index),
    }
}

fn step(kind: &str, parent: Option<&Recipe>, text: &str) -> Recipe {
    let recipe = Recipe::new(kind).with(Role::Base, "base image", Value::Digest(Digest::ZERO));
    let recipe = match parent {
        None => recipe,
        Some(parent) => recipe.with(Role::Parent, "step before", Value::Digest(parent.key())),
    };
    recipe.with(Role::Text, "step", Value::text(text))
}

/// Steps with these texts on top of one another.
fn stack(texts: &[&str]) -> Vec<Recipe> {
    let mut steps: Vec<Recipe> = Vec::new();
    for text in texts {
        steps.push(step("run", steps.last(), text));
    }
    steps
}

/// Builds `steps` as a build of `subject` does: what each one is told if it has to be made, or nothing
/// of it if it is not wanted.
async fn build(recipes: &Recipes, subject: &str, steps: &[Recipe]) -> Vec<Option<String>> {
    let mut told = Vec::new();
    for (at, step) in (1..).zip(steps) {
        let at = place(subject, at);
        told.push(recipes.explain(step.clone(), at.clone(), Vec::new()).await);
        recipes.note(step.clone(), at).await;
    }
    told
}

#[tokio::test]
async fn a_first_build_is_told_nothing() {
    let world = World::new();
    let told = build(&world.open(), "app", &stack(&["a", "b", "c"])).await;
    assert_eq!(told, [None, None, None]);
    // Nor is another subject, whatever the two have in common.
    let told = build(&world.open(), "other", &stack(&["x", "b"])).await;
    assert_eq!(told, [None, None]);
    // Nor is a step that is like the one beneath it.
    let told = build(&world.open(), "twice", &stack(&["same", "same"])).await;
    assert_eq!(told, [None, None]);
}

#[tokio::test]
async fn a_change_is_told_where_it_is_and_named_above() {
    let world = World::new();
    build(&world.open(), "app", &stack(&["a", "b", "c"])).await;
    // As after a restart: all of it comes from the disk.
    let recipes = world.open();
    let told = build(&recipes, "app", &stack(&["a", "B", "c"])[1..]).await;
    let changed = "step text changed (was `b`)";
    assert_eq!(
        told,
        [
            Some(changed.to_owned()),
            Some(format!("before it, B: {changed}"))
        ]
    );
    let steps = stack(&["a", "B", "new", "c"]);
    recipes.note(steps[2].clone(), place("app", 3)).await;
    let told = recipes.explain(steps[3].clone(), place("app", 4), Vec::new());
    assert_eq!(told.await.unwrap(), "new was added before it");
    let steps = stack(&["a", "c"]);
    let told = recipes.explain(steps[1].clone(), place("app", 2), Vec::new());
    // It stands on the same thing as `b`, which is nearer than a `c` that does not.
    assert_eq!(told.await.unwrap(), "step text changed (was `b`)");
}

#[tokio::test]
async fn what_was_made_before_was_evicted() {
    let world = World::new();
    let steps = stack(&["a"]);
    let recipes = world.open();
    build(&recipes, "app", &steps).await;
    let told = recipes.explain(steps[0].clone(), place("other", 7), Vec::new());
    assert_eq!(told.await.unwrap(), "evicted since it was last made");
}

#[tokio::test]
async fn what_others_made_is_not_told() {
    let world = World::new();
    let recipes = world.open();
    let steps = stack(&["secret", "b"]);
    build(&recipes, "app", &steps).await;
    let foreign = |index| Place {
        scope: "strangers".to_owned(),
        ..place("app", index)
    };
    let mine = stack(&["mine", "b"]);
    for step in [&steps[0], &steps[1], &mine[0], &mine[1]] {
        let told = recipes.explain(step.clone(), foreign(1), mine.clone());
        assert_eq!(told.await, None);
    }
    // Somebody who takes the same layer is told what became of it, and still nothing of what is beneath.
    recipes.note(steps[1].clone(), foreign(2)).await;
    recipes.note(mine[0].clone(), foreign(1)).await;
    let told = recipes.explain(mine[1].clone(), foreign(2), Vec::new());
    assert_eq!(told.await.unwrap(), "a step before it changed");
}

#[tokio::test]
async fn a_kind_is_compared_with_its_own_kind() {
    let world = World::new();
    let recipes = world.open();
    recipes.note(step("copy", None, "a"), place("app", 1)).await;
    let told = recipes.explain(step("run", None, "a"), place("app", 1), Vec::new());
    assert_eq!(told.await, None);
}

#[tokio::test]
async fn a_whole_is_compared_with_what_was_made_for_the_same_subject() {
    let world = World::new();
    let recipes = world.open();
    let whole = |parent: &Recipe, vcpus: u32| {
        let recipe = step("whole", Some(parent), "a");
        recipe.setting("vcpus", Value::plain(Some(vcpus)))
    };
    let of = |subject: &str| Place {
        index: None,
        ..place(subject, 0)
    };
    let (old, new) = (stack(&["a"]), stack(&["b"]));
    build(&recipes, "app", &old).await;
    recipes.note(whole(&old[0], 1), of("app")).await;
    let explain = |recipe, place, in_hand| recipes.explain(recipe, place, in_hand);
    let told = explain(whole(&old[0], 2), of("app"), old.clone()).await;
    assert_eq!(told.unwrap(), "vcpus 1 → 2");
    let told = explain(whole(&old[0], 2), of("other"), old).await;
    assert_eq!(told, None);
    // Nothing of the new steps was made yet: they are only in hand.
    let told = explain(whole(&new[0], 1), of("app"), new.clone()).await;
    assert_eq!(told.unwrap(), "before it, b: step text changed (was `a`)");
}

#[tokio::test]
async fn the_longest_unused_is_forgotten_first() {
    let mut world = World::new();
    world.limits.count_max = 2;
    let recipes = world.open();
    let [a, b, c] = ["a", "b", "c"].map(|text| step("run", None, text));
    recipes.note(a.clone(), place("app", 1)).await;
    recipes.note(b.clone(), place("app", 1)).await;
    recipes.note(a.clone(), place("app", 1)).await;
    recipes.note(c.clone(), place("app", 1)).await;
    let known = |recipe: &Recipe| recipes.get(&recipe.key()).is_some();
    assert_eq!([known(&a), known(&b), known(&c)], [true, false, true]);
    assert_eq!(world.names().len(), 2);
    world.limits.bytes_max = 10;
    world.open();
    assert_eq!(world.names(), [""; 0]);
}

#[tokio::test]
async fn listings_are_kept_beside_and_within_their_bound() {
    let mut world = World::new();
    let copy = |content: &[u8], count: u32| {
        let listed = |at| Listed {
            path: format!("file-{at:05}"),
            mode: 0o644,
            content: Some(Digest::of(content)),
        };
        Recipe::new("copy").files(Listing {
            source: "src".to_owned(),
            files: (0..count).map(listed).collect(),
        })
    };
    world.open().note(copy(b"1", 10_000), place("app", 1)).await;
    let recipes = world.open();
    let told = recipes.explain(copy(b"2", 10_000), place("app", 1), Vec::new());
    let told = told.await.unwrap();
    assert!(
        told.starts_with("src/file-00000 changed (sha256 "),
        "{told}"
    );
    assert!(told.ends_with(" and 9999 more"), "{told}");
    let names = world.names();
    assert!(
        names.len() == 2 && names[0].ends_with(".files.json"),
        "{names:?}"
    );
    // The recipe itself stays small.
    let recipe = world.dir.path().join(FOLDER).join(&names[1]);
    assert!(fs::metadata(recipe).unwrap().len() < 1024);

    world.limits.listing_bytes_max = 1000;
    let recipes = world.open();
    let told = recipes.explain(copy(b"2", 10_000), place("app", 1), Vec::new());
    assert_eq!(told.await.unwrap(), "files of src changed");
}

#[tokio::test]
async fn files_that_changed_are_named_above_too() {
    let world = World::new();
    let steps = |content: &[u8]| {
        let copy = Recipe::new("copy").files(Listing {
            source: "src".to_owned(),
            files: vec![Listed {
                path: "a".to_owned(),
                mode: 0o644,
                content: Some(Digest::of(content)),
            }],
        });
        let above = Recipe::new("run")
            .with(Role::Parent, "step before", Value::Digest(copy.key()))
            .with(Role::Text, "step", Value::text("x"));
        [copy, above]
    };
    build(&world.open(), "app", &steps(b"1")).await;
    let told = build(&world.open(), "app", &steps(b"2")).await;
    let [Some(below), Some(above)] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(below.starts_with("src/a changed (sha256 "), "{below}");
    assert_eq!(*above, format!("before it, copy: {below}"));
}

#[tokio::test]
async fn damage_is_forgotten_and_breaks_nothing() {
    let world = World::new();
    let steps = stack(&["a", "b"]);
    build(&world.open(), "app", &steps).await;
    let folder = world.dir.path().join(FOLDER);
    let path = |recipe: &Recipe| folder.join(format!("{}.json", recipe.key().hex()));
    let text = fs::read_to_string(path(&steps[0])).unwrap();
    fs::write(path(&steps[0]), text.replace("\"a\"", "\"x\"")).unwrap();
    fs::write(path(&steps[1]), "{").unwrap();
    fs::write(folder.join("fresh"), "torn").unwrap();
    let recipes = world.open();
    assert_eq!(world.names(), [""; 0]);
    assert_eq!(build(&recipes, "app", &steps).await, [None, None]);
}
