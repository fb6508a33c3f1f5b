//! What is needed stays: pins, uses, and what lies on what.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A stack of layers with these names, bottom first.
async fn stack(store: &LayerStore, names: &[&str]) -> Vec<Layer> {
    let mut layers = Vec::new();
    for name in names {
        layers.push(put(store, name, 10_000).await);
    }
    store.stack(&layers);
    layers
}

#[tokio::test]
async fn a_pin_keeps_a_layer_and_all_beneath_it_until_it_is_let_go() {
    let world = World::new();
    let store = world.open();
    drop(stack(&store, &["base", "step", "other"]).await);
    store.pin("art", [key("step")]);
    let evicted = store.evict_to(0).await.unwrap();
    assert_eq!(evicted.layers, [key("other")]);
    assert_eq!(evicted.left_bytes, store.content_bytes());
    assert_eq!(evicted.pinned_bytes, evicted.left_bytes);
    assert!(store.get(&key("base")).is_some());

    store.unpin("art");
    let evicted = store.evict_to(0).await.unwrap();
    assert_eq!(evicted.layers, [key("step"), key("base")]);
}

#[tokio::test]
async fn one_of_two_owners_is_enough() {
    let world = World::new();
    let store = world.open();
    drop(put(&store, "a", 1).await);
    store.pin("one", [key("a")]);
    store.pin("two", [key("a")]);
    store.unpin("one");
    assert_eq!(store.evict_to(0).await.unwrap().layers, []);
    let needed = Refused::Needed {
        owners: vec!["two".to_owned()],
        in_use: false,
    };
    assert_eq!(store.may_go(&key("a")), Err(needed));
    let leaving = BTreeSet::from(["two".to_owned()]);
    assert_eq!(store.plan_eviction(0, &leaving).layers, [key("a")]);
    assert!(store.get(&key("a")).is_some(), "a plan removes nothing");
}

#[tokio::test]
async fn a_layer_is_used_whenever_one_on_it_is() {
    let world = World::new();
    let store = world.open();
    drop(stack(&store, &["base", "step"]).await);
    drop(put(&store, "later", 10_000).await);
    // The base itself is the longest unused of all three.
    store.get(&key("step")).unwrap();
    let left = store.content_bytes() - 1;
    let evicted = store.evict_to(left).await.unwrap();
    assert_eq!(evicted.layers, [key("later")]);
}

#[tokio::test]
async fn what_lies_on_what_survives_a_restart_and_so_does_the_order() {
    let world = World::new();
    let store = world.open();
    drop(stack(&store, &["base", "step", "top"]).await);
    for (name, beneath) in [("base", "bottom"), ("top", &*key("step").hex())] {
        let link = world.root().join(key(name).hex()).join("beneath");
        eventually(|| std::fs::read_link(&link).is_ok_and(|link| link == Path::new(beneath))).await;
    }
    drop(store);
    let store = world.open();
    let beneath = |name: &str| {
        let listed = store
            .list()
            .into_iter()
            .find(|layer| layer.key == key(name));
        listed.unwrap().beneath
    };
    assert_eq!(beneath("top"), Some(key("step")));
    assert_eq!(beneath("base"), None);
    let held = store.get(&key("step")).unwrap();
    assert_eq!(store.evict_to(0).await.unwrap().layers, [key("top")]);
    drop(held);
    let evicted = store.evict_to(0).await.unwrap();
    assert_eq!(evicted.layers, [key("step"), key("base")]);
}

#[tokio::test]
async fn a_layer_of_unknown_ground_goes_before_what_it_may_lie_on() {
    let world = World::new();
    let store = world.open();
    drop(stack(&store, &["base"]).await);
    // Committed by a process that died before it said what the layer lies on.
    drop(put(&store, "orphan", 10_000).await);
    let left = store.content_bytes() - 1;
    assert_eq!(store.evict_to(left).await.unwrap().layers, [key("orphan")]);
}

#[tokio::test]
async fn chains_that_bite_their_tails_end() {
    let world = World::new();
    let store = world.open();
    for (name, beneath) in [("a", "b"), ("b", "a")] {
        drop(put(&store, name, 1).await);
        let link = world.root().join(key(name).hex()).join("beneath");
        std::os::unix::fs::symlink(key(beneath).hex(), link).unwrap();
    }
    drop(store);
    let store = world.open();
    // Nobody can say which is on top: both stay, and nothing hangs.
    assert_eq!(store.evict_to(0).await.unwrap().layers, []);
    store.pin("art", [key("a")]);
    assert_eq!(store.list().len(), 2);
    assert!(store.may_go(&key("b")).is_err());
}

#[tokio::test]
async fn evicting_a_layer_takes_those_on_it_and_is_refused_if_one_of_them_is_needed() {
    let world = World::new();
    let store = world.open();
    let mut layers = stack(&store, &["base", "step", "top"]).await;
    let top = layers.pop();
    drop(layers);
    let refused = store.evict(&key("base")).await.unwrap();
    let in_use = Refused::Needed {
        owners: Vec::new(),
        in_use: true,
    };
    assert_eq!(refused, Err(in_use));
    drop(top);
    let evicted = store.evict(&key("step")).await.unwrap().unwrap();
    assert_eq!(evicted.layers, [key("top"), key("step")]);
    assert!(store.get(&key("base")).is_some());
    let unknown = store.evict(&key("step")).await.unwrap();
    assert_eq!(unknown, Err(Refused::Unknown));
}

#[tokio::test]
async fn a_full_filesystem_makes_layers_go() {
    let world = World::new();
    let store = world.open();
    drop(put(&store, "a", 10_000).await);
    assert_eq!(store.keep_within(u64::MAX, 1).await.unwrap().layers, []);
    let evicted = store.keep_within(u64::MAX, u64::MAX).await.unwrap();
    assert_eq!(evicted.layers, [key("a")]);
}

#[tokio::test]
async fn what_comes_to_be_needed_after_it_was_chosen_stays() {
    let world = World::new();
    let store = world.open();
    for name in ["taken", "pinned", "built on", "free"] {
        drop(stack(&store, &[name]).await);
    }
    let chosen = store.index().evictable(&BTreeSet::new());
    assert_eq!(chosen.len(), 4);
    let held = store.get(&key("taken")).unwrap();
    store.pin("art", [key("pinned")]);
    drop(stack(&store, &["built on", "new"]).await);
    let (gone, _) = store.take_away(&chosen, |_| true).unwrap();
    assert_eq!(gone, [key("free")]);
    assert!(held.path().join("file").exists());
}

/// Eviction runs against builds that take, mount and let go of the same layers: a handle that was
/// given is good until it is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_layer_in_hand_never_goes_however_hard_it_is_tried() {
    let world = World::new();
    let store = world.open();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let evicting = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut evicted = 0;
            while !*stopped.borrow() {
                evicted += store.evict_to(0).await.unwrap().layers.len();
            }
            evicted
        })
    };
    let builders: Vec<_> = (0..4)
        .map(|builder| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..60 {
                    let names = ["base".to_owned(), format!("step {}", (builder + round) % 3)];
                    let mut layers = Vec::new();
                    for name in &names {
                        layers.push(put(&store, name, 1).await);
                        store.stack(&layers);
                    }
                    for layer in &layers {
                        let there = std::fs::read(layer.path().join("file"));
                        assert_eq!(there.unwrap().len(), 1, "round {round}");
                    }
                }
            })
        })
        .collect();
    for builder in builders {
        builder.await.unwrap();
    }
    stop.send_replace(true);
    assert!(evicting.await.unwrap() > 0, "nothing was tried");
}

/// What may happen to a store of a few layers; each layer `n` lies on `n - 1` of its stack of three.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Build(u8),
    Take(u8),
    LetGo,
    Pin(u8, u8),
    Unpin(u8),
    EvictTo(u64),
    Evict(u8),
}

const LAYERS: u8 = 9;
const STACK: u8 = 3;

fn deed() -> impl Strategy<Value = Deed> {
    let layer = 0..LAYERS;
    prop_oneof![
        4 => layer.clone().prop_map(Deed::Build),
        2 => layer.clone().prop_map(Deed::Take),
        1 => Just(Deed::LetGo),
        2 => (0..3_u8, layer.clone()).prop_map(|(owner, layer)| Deed::Pin(owner, layer)),
        1 => (0..3_u8).prop_map(Deed::Unpin),
        3 => (0..6_u64).prop_map(|layers| Deed::EvictTo(layers * EACH)),
        1 => layer.prop_map(Deed::Evict),
    ]
}

/// The bytes that each layer of the property takes on the disk, its folder included: see `put`.
const EACH: u64 = 24 * 1024;

fn name(layer: u8) -> String {
    format!("layer {layer}")
}

/// The layer and those beneath it, bottom first.
fn ground(layer: u8) -> impl Iterator<Item = u8> {
    layer - layer % STACK..=layer
}

/// The model: who has pinned what, and what is in hand.
#[derive(Default)]
struct Model {
    pins: BTreeMap<u8, u8>,
    hands: Vec<Vec<Layer>>,
}

impl Model {
    fn needed(&self) -> BTreeSet<Digest> {
        let pinned = self.pins.values().flat_map(|layer| ground(*layer));
        let held = self.hands.iter().flatten().map(|layer| *layer.key());
        pinned.map(|layer| key(&name(layer))).chain(held).collect()
    }
}

async fn act(store: &LayerStore, model: &mut Model, deed: Deed) {
    let before: BTreeSet<Digest> = store.list().into_iter().map(|layer| layer.key).collect();
    match deed {
        Deed::Build(layer) | Deed::Take(layer) => {
            let mut layers = Vec::new();
            for layer in ground(layer) {
                layers.push(put(store, &name(layer), 10_000).await);
                store.stack(&layers);
            }
            if matches!(deed, Deed::Take(_)) {
                model.hands.push(layers);
            }
        }
        Deed::LetGo => drop(model.hands.pop()),
        Deed::Pin(owner, layer) => {
            // As an artifact does: all layers that it was made of.
            store.pin(
                &owner.to_string(),
                ground(layer).map(|layer| key(&name(layer))),
            );
            model.pins.insert(owner, layer);
        }
        Deed::Unpin(owner) => {
            store.unpin(&owner.to_string());
            model.pins.remove(&owner);
        }
        Deed::EvictTo(bytes_max) => {
            let planned = store.plan_eviction(bytes_max, &BTreeSet::new());
            let evicted = store.evict_to(bytes_max).await.unwrap();
            assert_eq!(evicted.layers, planned.layers, "a plan is what happens");
            let idle = store
                .list()
                .into_iter()
                .any(|layer| !model.needed().contains(&layer.key));
            assert!(
                store.content_bytes() <= bytes_max || !idle,
                "room was left unused"
            );
        }
        Deed::Evict(layer) => drop(store.evict(&key(&name(layer))).await.unwrap()),
    }
    let after: BTreeMap<Digest, StoredLayer> = store
        .list()
        .into_iter()
        .map(|layer| (layer.key, layer))
        .collect();
    let gone = before.iter().filter(|key| !after.contains_key(*key));
    let lost: Vec<_> = gone.filter(|key| model.needed().contains(*key)).collect();
    assert!(lost.is_empty(), "{deed:?} took {lost:?}");
    for layer in after.values() {
        let grounded = layer
            .beneath
            .is_none_or(|beneath| after.contains_key(&beneath));
        assert!(grounded, "{deed:?} left {layer:?} on nothing");
    }
    let sum: u64 = after.values().map(|layer| layer.content_bytes).sum();
    assert_eq!(sum, store.content_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_needed_stays_and_the_rest_makes_room(deeds in prop::collection::vec(deed(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let store = world.open();
            let mut model = Model::default();
            for deed in deeds {
                act(&store, &mut model, deed).await;
            }
        });
    }
}
