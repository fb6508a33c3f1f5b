//! Secret values of builds: used, printed, leaked, cancelled, retried; and then looked for in every
//! byte that the service has kept, said or logged.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tests::runner::Scenario;
use tests::search::Words;
use tests::service::Place;

const SCRIPT: &str = "canary.py";

/// What a step prints that is no secret, to show that the search finds what is there.
const PLANTED: &str = "pl4nted-canary-3f9a";

/// Scenarios with a service of its own, which logs everything.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![Scenario::new(
        "canary::secret_values_are_nowhere_after_every_kind_of_build",
        secret_values_are_nowhere,
    )]
}

/// A value that nobody else has.
fn token() -> String {
    let mut random = [0_u8; 48];
    let mut source = std::fs::File::open("/dev/urandom").expect("Linux has it");
    source.read_exact(&mut random).expect("it never ends");
    // With `/` and `+`, which encodings for URLs change.
    format!("c/+{}", STANDARD.encode(random))
}

fn secret_values_are_nowhere() {
    let mut place = Place::new();
    place.add_settings("[logging]\nfilter = \"trace\"\n");
    let service = place.start();
    let wire = place.folder().join("wire.bin");
    let values = [
        ("NULLSPACE_TEST_VALUE", token()),
        ("NULLSPACE_TEST_OTHER_VALUE", token()),
        (
            "NULLSPACE_TEST_LINES",
            format!("-----BEGIN-----\n{}\n{}\n", token(), token()),
        ),
    ];
    let mut envs: Vec<(&str, &str)> = values
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let wire_path = wire.to_str().expect("a text").to_owned();
    envs.push(("NULLSPACE_TEST_WIRE", &wire_path));
    envs.push(("NULLSPACE_TEST_PLANTED", PLANTED));
    for scenario in tests::service::scenarios(SCRIPT) {
        service.client_with(SCRIPT, &scenario, &envs);
    }
    assert!(service.terminate().success());

    let planted = Words::new(vec![("planted".to_owned(), PLANTED.into())]);
    let found = planted.below(place.folder());
    for part in ["/log/", "/views/", "wire.bin"] {
        let is_found = found.iter().any(|place| place.contains(part));
        assert!(is_found, "the search does not find in {part}: {found:?}");
    }
    let forms = values
        .iter()
        .flat_map(|(name, value)| Words::forms_of(name, value.as_bytes()));
    let found = Words::new(forms.collect()).below(place.folder());
    assert_eq!(found, Vec::<String>::new(), "secret values are kept");
}
