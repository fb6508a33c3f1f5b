//! Images behind a password: what a build may do with it, and where the password never is.

use tests::registry::{PASSWORD, PrivateRegistry, USER};
use tests::runner::Scenario;
use tests::search::Words;
use tests::service::{Place, Service};

const SCRIPT: &str = "private_images.py";

/// What is written to a build's log to show that the search would find the password.
const PLANTED: &str = "pl4nted-in-a-step";

/// Scenarios with a service and a registry of their own.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![Scenario::new(
        "private_images::a_password_opens_an_image_to_its_owner_and_stays_in_memory",
        passwords,
    )]
}

fn passwords() {
    let registry = PrivateRegistry::start("debian:bookworm");
    let place = Place::with_plain_registry(registry.host());
    let service = place.start();
    let image = registry.image();
    let run = |service: &Service, scenario: &str, more: &[(&str, &str)]| {
        let mut envs = vec![
            ("NULLSPACE_TEST_PRIVATE_IMAGE", image.as_str()),
            ("NULLSPACE_TEST_PRIVATE_USER", USER),
            ("NULLSPACE_TEST_PRIVATE_PASSWORD", PASSWORD),
            ("NULLSPACE_TEST_PLANTED", PLANTED),
        ];
        envs.extend(more);
        service.client_with(SCRIPT, scenario, &envs)
    };
    run(
        &service,
        "without_credentials_it_fails_and_a_retry_with_them_is_ready",
        &[],
    );
    run(&service, "a_wrong_password_is_refused", &[]);
    let other = key_of(&service, "another");
    let envs = [("NULLSPACE_TEST_OTHER_KEY", other.as_str())];
    run(
        &service,
        "what_is_cached_for_one_owner_is_closed_to_another",
        &envs,
    );
    let lost = run(&service, "begun", &[]);
    service.kill();
    let service = place.start();
    run(&service, "lost", &[("NULLSPACE_TEST_BUILD", lost.trim())]);
    assert!(service.terminate().success());

    let found = |word: &str| Words::new(vec![(word.to_owned(), word.into())]).below(place.folder());
    assert!(!found(PLANTED).is_empty(), "the search finds nothing");
    let encoded = [PASSWORD, "YnVpbGRlcjprZXB0LWluLW1lbTByeS1vbmx5"];
    for word in encoded {
        assert_eq!(found(word), Vec::<String>::new(), "`{word}` is on the disk");
    }
}

fn key_of(service: &Service, owner: &str) -> String {
    let output = service.operate(&["key", "create", "--owner", owner, "--label", owner]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let key = printed
        .split_whitespace()
        .find(|word| word.starts_with("ns_live_"));
    key.unwrap_or_else(|| panic!("no key in {printed}"))
        .to_owned()
}
