//! The whole service on real parts, driven by the published client and by its operator commands.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::process::ExitCode;

use tests::runner::{Filter, Scenario, run};
use tests::service::{Place, Service, scenarios};

mod buildkit_network;
mod buildkitd;
mod cache_operator;
mod canary;
mod cancel;
mod crash;
mod dockerfile_daemons;
mod events;
mod openapi;
mod operator;
mod private_images;
mod retention;
mod steps;
mod webhooks;

/// Scripts with the published client, below `client/`.
const SCRIPTS: [&str; 18] = [
    "bad_input.py",
    "build_history.py",
    "builds.py",
    "cache.py",
    "command_line.py",
    "context.py",
    "dockerfile_edges.py",
    "dockerfiles.py",
    "events.py",
    "isolation.py",
    "lineage.py",
    "logs.py",
    "races.py",
    "step_failures.py",
    "steps.py",
    "template_bases.py",
    "templates.py",
    "wrong_keys.py",
];

/// Scenarios that run side by side: the service builds two templates at once.
const AT_ONCE: usize = 3;

fn main() -> ExitCode {
    let filter = Filter::from_args();
    let place = Place::new();
    let service = place.start();
    let shared_passed = run_shared(&service, &filter);
    let ended = service.terminate();
    // Its templates take more of the disk than those of all services after it.
    drop(place);

    // Scenarios that end a service have one of their own.
    let mut wanted = operator::own();
    wanted.extend(crash::own());
    wanted.extend(events::own());
    wanted.extend(cancel::own());
    wanted.extend(private_images::own());
    wanted.extend(cache_operator::own());
    wanted.extend(buildkitd::own());
    wanted.extend(canary::own());
    wanted.extend(retention::own());
    wanted.extend(dockerfile_daemons::own());
    wanted.extend(openapi::own());
    wanted.extend(webhooks::own());
    wanted.push(Scenario::new(
        "operator::a_service_that_has_built_ends_with_0",
        move || {
            assert!(ended.success(), "{ended}");
        },
    ));
    wanted.retain(|scenario| filter.wants(&scenario.name));
    let own_passed = wanted.is_empty() || run(&wanted, 1);
    let network_passed = buildkit_network::run_wanted(&filter);
    if shared_passed && own_passed && network_passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Everything that one service can show; true if nothing of it failed.
fn run_shared(service: &Service, filter: &Filter) -> bool {
    let client = SCRIPTS.iter().flat_map(|script| {
        scenarios(script).into_iter().map(move |name| {
            let title = format!("{}::{name}", script.trim_end_matches(".py"));
            Scenario::new(title, move || {
                service.client(script, &name);
            })
        })
    });
    let mut wanted: Vec<Scenario<'_>> = client.collect();
    wanted.extend(operator::shared(service));
    wanted.extend(steps::shared(service));
    wanted.extend(cache_operator::shared(service));
    wanted.retain(|scenario| filter.wants(&scenario.name));
    wanted.is_empty() || run(&wanted, AT_ONCE)
}
