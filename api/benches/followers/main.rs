//! What followers cost a build, and how far behind it they are.
//!
//! A build logs 2,000 lines a second into a real service with its log on the disk: first alone, then
//! with 500 subscribers that follow it and 20 that never read. It is reported in the worker's place,
//! in batches as the worker's are; everything else is the service's own. All figures are of one run
//! on one machine, of which service, build and readers share the processors.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement ends at the first thing that fails, and its results are its output"
)]

mod build;
mod figures;
mod readers;

use std::process::ExitCode;
use std::sync::Arc;

use api::config::{Config, DataDir};
use api::wiring::{Foundation, Service};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use build::{LINES_A_SECOND, Place, Written};
use figures::millis;
use readers::Crowd;

/// Subscribers that read.
const FOLLOWER_COUNT: usize = 500;
/// Subscribers that never read.
const SILENT_COUNT: usize = 20;
/// Batches of one build: eight seconds of them.
const BATCH_COUNT: usize = 400;
/// How much longer a build may take because it is followed.
const RATIO_MAX: f64 = 1.10;
/// How long a reader that takes nothing is borne; short enough to be met within the measurement.
const SLOW_READER_MS: u64 = 2_000;
const UNREAD_ANSWER_MS: u32 = 4_000;

/// Both ends of every connection are here, and the log and the views.
fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

async fn start() -> (Service, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: DataDir::new(folder.path()),
        ..Config::default()
    };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.limits.slow_reader_ms_max = SLOW_READER_MS;
    config.limits.unread_answer_ms_max = UNREAD_ANSWER_MS;
    config.data_dir.create().unwrap();
    let (foundation, runner) = Foundation::open(config).await.unwrap();
    let service = Service::without_worker(foundation, runner).await.unwrap();
    (service, folder)
}

#[tokio::main]
async fn main() -> ExitCode {
    allow_descriptors();
    let (service, _folder) = start().await;
    let place = Place {
        app: Arc::clone(&service.app),
        address: service.address,
        key: service.first_key.as_ref().unwrap().reveal().to_owned(),
    };
    place.fill().await;
    let alone = place.run(&Written::new(BATCH_COUNT)).await;
    let written = Arc::new(Written::new(BATCH_COUNT));
    let crowd = Crowd::gather(&place, FOLLOWER_COUNT, SILENT_COUNT, &written).await;
    let followed = place.run(&written).await;
    let (delays, silent_left) = crowd.disperse(&place.app).await;
    service.stop().await.unwrap();

    let ratio = followed.duration.as_secs_f64() / alone.duration.as_secs_f64();
    println!(
        "a build of {} lines, {LINES_A_SECOND} a second; {FOLLOWER_COUNT} followers, {SILENT_COUNT} that never read",
        build::line_count(BATCH_COUNT)
    );
    println!("  alone     {} s, {}", alone.seconds(), alone.appends());
    println!(
        "  followed  {} s, {}",
        followed.seconds(),
        followed.appends()
    );
    println!("  ratio     {ratio:.3}");
    println!("  from the step's write to the reader: {}", delays.text());
    println!("  of those that never read, {silent_left} were still connected at the end");
    if ratio < RATIO_MAX {
        return ExitCode::SUCCESS;
    }
    println!("the followed build took {ratio:.3} times as long: at most {RATIO_MAX:.2} is wanted");
    ExitCode::FAILURE
}

impl build::Outcome {
    fn seconds(&self) -> String {
        format!("{:.2}", self.duration.as_secs_f64())
    }

    fn appends(&self) -> String {
        let [p50, p99] = [0.50, 0.99].map(|share| millis(self.appends.at(share)));
        format!("a batch was recorded after p50 {p50} ms, p99 {p99} ms")
    }
}
