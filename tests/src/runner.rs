//! Runs named scenarios, some at a time, and closes with the lines that cargo's own runner prints.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A scenario: what it shows, and how. It fails by panicking.
pub struct Scenario<'a> {
    /// A sentence about the rule, with `::` behind its group.
    pub name: String,
    /// What is run.
    pub run: Box<dyn Fn() + Send + Sync + 'a>,
}

impl std::fmt::Debug for Scenario<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'a> Scenario<'a> {
    /// The scenario `run`, called `name`.
    pub fn new(name: impl Into<String>, run: impl Fn() + Send + Sync + 'a) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// What the command line of a suite asks for: the words a scenario's name must contain.
///
/// Options of cargo's own runner are passed over, so that `cargo test -- --nocapture` works.
#[derive(Debug)]
pub struct Filter(Vec<String>);

impl Filter {
    /// The filter that this process was started with.
    pub fn from_args() -> Self {
        Self(
            std::env::args()
                .skip(1)
                .filter(|word| !word.starts_with('-'))
                .collect(),
        )
    }

    /// Whether a scenario is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| name.contains(word.as_str()))
    }
}

/// Runs `scenarios`, `at_once` at a time; true if none failed and at least one was run.
///
/// # Panics
/// Never: nothing panics while the list of failures is locked.
#[expect(clippy::print_stdout, reason = "the runner's results are its output")]
pub fn run(scenarios: &[Scenario<'_>], at_once: usize) -> bool {
    println!("\nrunning {} tests", scenarios.len());
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let since = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let since = Instant::now();
                    let outcome = catch_unwind(AssertUnwindSafe(&scenario.run));
                    let seconds = since.elapsed().as_secs_f32();
                    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
                    println!("test {} ... {word} ({seconds:.1} s)", scenario.name);
                    if outcome.is_err() {
                        failed
                            .lock()
                            .expect("nothing panics under this lock")
                            .push(&scenario.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nothing panics under this lock");
    for name in &failed {
        println!("failed: {name}");
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; \
         finished in {:.2}s\n",
        scenarios.len() - failed.len(),
        failed.len(),
        since.elapsed().as_secs_f32(),
    );
    failed.is_empty() && !scenarios.is_empty()
}
