//! The rules. What BuildKit makes of them is tested with the builds.

use serde_json::{Value, json};

use super::*;

fn rules(images: &ImagePolicy, network: Network) -> Vec<Value> {
    let policy = serde_json::to_value(Policy::new(images, network)).unwrap();
    assert_eq!(policy["version"], 1);
    policy["rules"].as_array().unwrap().clone()
}

fn rule(action: &str, match_type: &str, identifier: &str) -> Value {
    json!({"action": action, "selector": {"identifier": identifier, "match_type": match_type}})
}

#[test]
fn nothing_is_allowed_but_what_we_bring() {
    assert_eq!(
        rules(&ImagePolicy::new(), Network::None),
        [
            rule("DENY", "REGEX", "^"),
            rule("ALLOW", "EXACT", "local://context"),
            rule("ALLOW", "EXACT", "local://dockerfile"),
        ]
    );
}

#[test]
fn with_the_network_on_hosts_are_allowed_first_and_private_ones_denied_then() {
    let rules = rules(&ImagePolicy::new(), Network::Default);
    let actions: Vec<&str> = rules
        .iter()
        .map(|rule| rule["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "DENY", "ALLOW", "ALLOW", "ALLOW", "ALLOW", "ALLOW", "DENY", "DENY"
        ]
    );
}

#[test]
fn an_image_is_allowed_by_its_name_and_converted_to_its_pin() {
    let mut images = ImagePolicy::new();
    images.allow("a/free:1", None);
    images.allow("b/digest@sha256:0", None);
    images.allow("c/pinned:1", Some("sha256:1".to_owned()));
    assert_eq!(
        rules(&images, Network::None).split_off(3),
        [
            rule("ALLOW", "WILDCARD", "docker-image://a/free:1@sha256:*"),
            rule("ALLOW", "EXACT", "docker-image://a/free:1"),
            rule("ALLOW", "EXACT", "docker-image://b/digest@sha256:0"),
            json!({
                "action": "CONVERT",
                "selector": {"identifier": "docker-image://c/pinned:1", "match_type": "EXACT"},
                "updates": {"identifier": "docker-image://c/pinned:1@sha256:1"},
            }),
            rule("ALLOW", "EXACT", "docker-image://c/pinned:1@sha256:1"),
        ]
    );
}
