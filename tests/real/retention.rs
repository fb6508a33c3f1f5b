//! What is kept for how long, and how much an owner may have under way: on services whose settings let
//! a scenario see the end of it.

use tests::runner::Scenario;
use tests::service::Place;

/// Scenarios with services of their own, which the published client shows.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![
        Scenario::new("retention::what_nobody_needs_goes", needless),
        Scenario::new("retention::an_owner_has_bounds", bounds),
    ]
}

/// Seconds instead of days. An upload is kept for as long as a busy machine takes to refer to it.
fn needless() {
    let mut place = Place::new();
    place.set("retention", "untagged_secs", 6);
    place.set("retention", "context_secs", 4);
    place.set("retention", "upload_secs", 10);
    run(&place, "retention.py");
}

fn bounds() {
    let mut place = Place::new();
    place.set("executor", "owner_concurrent_builds", 1);
    place.set("limits", "waiting_build_count_max", 2);
    place.set("limits", "context_bytes_max", 64 * 1024);
    place.set("limits", "json_body_bytes_max", 256 * 1024);
    run(&place, "quotas.py");
}

/// Runs the scenarios of a script one after the other: they count on what the service has to do.
fn run(place: &Place, script: &str) {
    let service = place.start();
    for scenario in tests::service::scenarios(script) {
        service.client(script, &scenario);
    }
    assert!(service.terminate().success());
}
