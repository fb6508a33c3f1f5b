//! What builders of one store leave to each other.

use super::*;
use crate::native::testkit::processes_with;

#[tokio::test]
async fn every_miss_is_told_why() {
    let mut site = Site::new().await;
    let steps = |second: &str| [run("echo 1 > /one"), run(second), run("echo 3 > /three")];
    let misses = async |site: &Site, steps: &[Step]| -> Vec<String> {
        let (built, story) = site.build(steps).await;
        built.unwrap();
        let lines = story.lines.into_iter();
        lines.filter(|line| line.contains("missed")).collect()
    };
    assert_eq!(
        misses(&site, &steps("echo 2 > /two")).await,
        ["1/3 missed", "2/3 missed", "3/3 missed"]
    );
    let why = "step text changed (was `RUN echo 2 > /two`)";
    assert_eq!(
        misses(&site, &steps("echo two > /two")).await,
        [
            format!("2/3 missed: {why}"),
            format!("3/3 missed: before it, RUN echo two > /two: {why}"),
        ]
    );
    site.build_variable = "no";
    let first = "environment variable BUILD changed";
    let told = misses(&site, &steps("echo two > /two")).await;
    assert_eq!(told[0], format!("1/3 missed: {first}"));
    assert_eq!(
        told[1],
        format!("2/3 missed: before it, RUN echo 1 > /one: {first}")
    );
    site.builder.layers.evict_to(0).await.unwrap();
    let told = misses(&site, &steps("echo two > /two")).await;
    assert_eq!(told[0], "1/3 missed: evicted since it was last made");
}

#[tokio::test]
async fn of_concurrent_builds_one_runs_a_step_and_the_others_wait_for_it() {
    let site = Site::new().await;
    // Sleeps until it is killed; the shell around it keeps quiet about that.
    let nap = format!("600.{}", std::process::id());
    let script = format!("sh -c 'exec 2> /dev/null; sleep {nap}; :'; echo ran");
    let steps = [run(&script)];
    let (plan, key) = (site.plan(&steps), site.last_key(&steps));
    let builds: [_; 2] = std::array::from_fn(|_| {
        let (plan, base) = (plan.clone(), vec![site.base.clone()]);
        let builder = NativeBuilder {
            containers: site.builder.containers.clone(),
            layers: site.builder.layers.clone(),
            blobs: Arc::clone(&site.builder.blobs),
            mounts_dir: site.builder.mounts_dir.clone(),
            holdings: Holdings::default(),
        };
        tokio::spawn(async move {
            let (mut story, cancel) = (Story::default(), CancellationToken::new());
            let built = builder
                .build(&plan, base, &purpose(), resources(), &mut story, &cancel)
                .await;
            built.unwrap();
            story
        })
    });
    eventually("two builds at the same step", || {
        site.builder.layers.flight_count(&key) == 2
    })
    .await;
    let asleep = || processes_with(&format!("sleep\0{nap}"));
    eventually("a step that sleeps", || !asleep().is_empty()).await;
    for pid in asleep() {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
    let mut stories = Vec::new();
    for build in builds {
        stories.push(build.await.unwrap());
    }
    stories.sort_by_key(|story| story.output.len());
    let [waited, ran] = &stories[..] else {
        panic!("{} stories", stories.len())
    };
    assert_eq!(
        waited.lines,
        [
            "1/1 started",
            "1/1 hit after waiting",
            "1/1 finished None true"
        ]
    );
    assert_eq!((waited.output.as_str(), ran.output.as_str()), ("", "ran\n"));
    assert!(ran.lines.contains(&"1/1 stored".to_owned()));
    site.assert_nothing_is_left();
}
