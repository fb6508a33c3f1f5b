//! Whole builds on a small base: real layers, real containers.

mod cache;
mod git;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use domain::Digest;
use domain::definition::{ContextEntry, ContextKind, ContextManifest, CopyItem, Step};

use super::*;
use crate::layers::OverlayMount;
use crate::limits::layers::LayerLimits;
use crate::native::container::StepNetwork;
use crate::native::key::Inputs;
use crate::native::step::Ambient;
use crate::native::testkit::{Kit, eventually, fill_small_root, install_git};

/// Everything that was observed, one line each.
#[derive(Default)]
struct Story {
    lines: Vec<String>,
    output: String,
}

impl StepObserver for Story {
    type Error = Infallible;

    async fn event(&mut self, step: &PlannedStep, event: StepEvent) -> Result<(), Infallible> {
        let what = match event {
            StepEvent::Started => "started".to_owned(),
            StepEvent::CommitKnown { wanted, .. } => format!("knows {wanted}"),
            StepEvent::CacheHit { waited: None, .. } => "hit".to_owned(),
            StepEvent::CacheHit { .. } => "hit after waiting".to_owned(),
            StepEvent::CacheMissed { difference, .. } => {
                difference.map_or_else(|| "missed".to_owned(), |told| format!("missed: {told}"))
            }
            StepEvent::CacheBypassed { reason, .. } => format!("bypassed {reason:?}"),
            StepEvent::CacheStored { .. } => "stored".to_owned(),
            StepEvent::Finished {
                exit_code, cached, ..
            } => {
                format!("finished {exit_code:?} {cached}")
            }
        };
        self.lines
            .push(format!("{}/{} {what}", step.index, step.total));
        Ok(())
    }

    async fn output(
        &mut self,
        _: &PlannedStep,
        _: OutputStream,
        bytes: &[u8],
    ) -> Result<(), Infallible> {
        self.output.push_str(&String::from_utf8_lossy(bytes));
        Ok(())
    }
}

/// A layer store with a small base in it, and a builder.
struct Site {
    kit: Kit,
    folder: tempfile::TempDir,
    builder: NativeBuilder,
    base: Layer,
    network: StepNetwork,
    build_variable: &'static str,
}

const CONTENT: &str = "print('hello')\n";

impl Site {
    async fn new() -> Self {
        let (kit, folder) = (Kit::new().await, tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        let layers = LayerStore::open(at("layers"), LayerLimits::default()).unwrap();
        std::fs::create_dir(at("mounts")).unwrap();
        std::fs::write(at("blob"), CONTENT).unwrap();
        let fill = |staging: crate::layers::Staging| async move {
            fill_small_root(staging.path()).await;
            install_git(staging.path()).await;
            Ok::<_, Infallible>(())
        };
        let (base, _) = layers
            .get_or_build(Digest::of(b"base"), fill)
            .await
            .unwrap();
        let blob = at("blob");
        let builder = NativeBuilder {
            containers: kit.containers.clone(),
            layers,
            blobs: Arc::new(move |_| std::fs::File::open(&blob)),
            mounts_dir: at("mounts"),
            holdings: Holdings::default(),
        };
        Self {
            kit,
            folder,
            builder,
            base,
            network: StepNetwork::None,
            build_variable: "yes",
        }
    }

    fn plan(&self, steps: &[Step]) -> Plan {
        let kind = ContextKind::File {
            digest: Digest::of(CONTENT.as_bytes()),
            bytes: CONTENT.len().try_into().unwrap(),
        };
        let entry = ContextEntry {
            path: "ctx/app.py".to_owned(),
            mode: 0o644,
            kind,
        };
        let context = ContextManifest::new(vec![entry]).unwrap();
        let ambient = Ambient {
            env: BTreeMap::from([("BUILD".to_owned(), self.build_variable.to_owned())]),
            user: "root".to_owned(),
            workdir: "/".to_owned(),
        };
        Plan::new(&Inputs {
            base: *self.base.key(),
            steps,
            ambient,
            context: Some(&context),
            network: self.network,
            skip_cache: false,
            nonce: Digest::of(b"this build"),
        })
        .unwrap()
    }

    async fn build(&self, steps: &[Step]) -> (Result<Vec<Layer>, BuildFailure<Infallible>>, Story) {
        let mut story = Story::default();
        let cancel = CancellationToken::new();
        let resources = resources();
        let plan = self.plan(steps);
        let base = vec![self.base.clone()];
        let built = self
            .builder
            .build(&plan, base, &purpose(), resources, &mut story, &cancel)
            .await;
        (built.map(|built| built.layers), story)
    }

    /// The key of the last step's layer.
    fn last_key(&self, steps: &[Step]) -> Digest {
        let (recipes, _) = self.plan(steps).recipes().unwrap();
        recipes.last().unwrap().key()
    }

    /// Runs `look` on the merged files of `layers`.
    fn look<T>(&self, layers: &[Layer], look: impl FnOnce(&std::path::Path) -> T) -> T {
        let target = tempfile::tempdir_in(self.folder.path()).unwrap();
        let mount = OverlayMount::read_only(layers, target.path()).unwrap();
        let seen = look(target.path());
        drop(mount);
        seen
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(
            std::fs::read_dir(&self.builder.mounts_dir).unwrap().count(),
            0
        );
        self.kit.assert_nothing_is_left("no-process-has-this");
    }
}

fn purpose() -> Purpose {
    Purpose {
        scope: "team".to_owned(),
        subject: "app".to_owned(),
    }
}

fn resources() -> StepResources {
    StepResources {
        memory_mib: 256,
        vcpus: 1,
        deadline: Duration::from_mins(1),
    }
}

fn run(command: &str) -> Step {
    Step::Run {
        command: command.to_owned(),
        user: None,
    }
}

fn copy(dst: &str) -> Step {
    Step::Copy(CopyItem {
        sources: vec!["ctx".to_owned()],
        dst: dst.to_owned(),
        user: Some("app".to_owned()),
        mode: None,
        force_upload: false,
    })
}

/// What is in the root filesystem after the steps of the test below.
fn assert_files(root: &std::path::Path) {
    use std::os::unix::fs::MetadataExt as _;
    let main = std::fs::metadata(root.join("srv/link")).unwrap();
    assert_eq!(
        (main.uid(), main.gid(), main.mode() & 0o7777),
        (1000, 1001, 0o644)
    );
    assert_eq!(
        std::fs::read_to_string(root.join("srv/main.py")).unwrap(),
        CONTENT
    );
    assert_eq!(
        std::fs::read_to_string(root.join("srv/data/uid")).unwrap(),
        "1000\n"
    );
    assert!(!root.join("srv/app").exists());
    assert_eq!(
        std::fs::metadata(root.join("srv/last")).unwrap().uid(),
        1000
    );
    assert_eq!(std::fs::metadata(root.join("srv")).unwrap().uid(), 0);
}

#[tokio::test]
async fn steps_see_what_the_ones_before_did() {
    let site = Site::new().await;
    let steps = [
        Step::Workdir {
            path: "/srv".to_owned(),
        },
        copy("app/"),
        Step::MakeDir {
            path: "data".to_owned(),
            mode: Some(0o1777),
        },
        Step::User {
            user: "app".to_owned(),
        },
        run("id -u > data/uid; pwd; cat app/app.py; echo $BUILD"),
        Step::Rename {
            src: "app/app.py".to_owned(),
            dst: "main.py".to_owned(),
            force: false,
        },
        Step::MakeSymlink {
            target: "main.py".to_owned(),
            path: "link".to_owned(),
        },
        Step::Remove {
            path: "app".to_owned(),
            recursive: true,
            force: false,
        },
        Step::Workdir {
            path: "last".to_owned(),
        },
    ];
    let (built, story) = site.build(&steps).await;
    let layers = built.unwrap();
    assert_eq!(story.output, "/srv\nprint('hello')\nyes\n");
    assert_eq!(
        story.lines[..11],
        [
            "1/9 started",
            "1/9 finished None false",
            "2/9 started",
            "2/9 missed",
            "2/9 stored",
            "2/9 finished None false",
            "3/9 started",
            "3/9 missed",
            "3/9 stored",
            "3/9 finished None false",
            "4/9 started",
        ]
    );
    assert!(
        story
            .lines
            .contains(&"5/9 finished Some(0) false".to_owned())
    );
    site.look(&layers, assert_files);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_second_build_takes_every_layer_from_the_store_up_to_the_change() {
    let site = Site::new().await;
    let steps = |last: &str| [run("echo 1 > /one"), copy("/two/"), run(last)];
    let (first, _) = site.build(&steps("echo 3")).await;
    let (again, story) = site.build(&steps("echo 3")).await;
    let keys = |layers: Vec<Layer>| layers.iter().map(|layer| *layer.key()).collect::<Vec<_>>();
    assert_eq!(keys(first.unwrap()), keys(again.unwrap()));
    assert_eq!(story.output, "");
    let of_last = |story: &Story| {
        story
            .lines
            .iter()
            .filter(|line| line.starts_with("3/3"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of_last(&story),
        ["3/3 started", "3/3 hit", "3/3 finished None true"]
    );
    let (changed, story) = site.build(&steps("echo 4")).await;
    changed.unwrap();
    let hits = story
        .lines
        .iter()
        .filter(|line| line.ends_with(" hit"))
        .count();
    assert_eq!((hits, story.output.as_str()), (2, "4\n"));
    let boundary = [run("echo 1 > /one"), Step::SkipCache, run("echo 5")];
    let (skipped, story) = site.build(&boundary).await;
    skipped.unwrap();
    assert!(story.lines.contains(&"1/3 hit".to_owned()));
    assert!(
        story
            .lines
            .contains(&"3/3 bypassed BuilderCacheBoundary".to_owned())
    );
}

#[tokio::test]
async fn a_failed_step_says_why_and_leaves_nothing() {
    let site = Site::new().await;
    let failing = run("echo trace > /trace; seq 1 30 >&2; echo no such thing >&2; exit 7");
    let before = run("echo kept > /kept");
    let (built, story) = site.build(&[before.clone(), failing.clone()]).await;
    let Err(BuildFailure::Step {
        index: 2,
        total: 2,
        source,
        ..
    }) = built
    else {
        panic!("{built:?}")
    };
    let StepError::Exited {
        code: 7,
        stderr_tail,
    } = source
    else {
        panic!("{source:?}")
    };
    assert_eq!(stderr_tail.len(), 20);
    assert_eq!(stderr_tail.last().unwrap(), "no such thing");
    assert_eq!(story.lines.last().unwrap(), "2/2 missed");
    site.assert_nothing_is_left();

    let look = run("test ! -e /trace && cat /kept");
    let (built, story) = site.build(&[before.clone(), look]).await;
    built.unwrap();
    assert_eq!(
        (story.lines[1].as_str(), story.output.as_str()),
        ("1/2 hit", "kept\n")
    );
    assert!(
        site.builder
            .layers
            .get(&site.last_key(&[before, failing]))
            .is_none()
    );
}

#[tokio::test]
async fn bounds_and_faults_of_a_step_are_told_apart() {
    let site = Site::new().await;
    let failure = async |steps: &[Step]| match site.build(steps).await.0 {
        Err(BuildFailure::Step { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let eater = run("head -c 600m /dev/zero | tail -c 599m > /dev/null");
    let error = failure(&[eater]).await;
    assert!(
        matches!(
            error,
            StepError::OutOfMemory {
                memory_mib: 256,
                ..
            }
        ),
        "{error:?}"
    );
    let error = failure(&[
        Step::User {
            user: "who".to_owned(),
        },
        run("true"),
    ])
    .await;
    assert_eq!(error.to_string(), "the step cannot run as `who`");
    let gone = Step::Remove {
        path: "/bin/sh".to_owned(),
        recursive: false,
        force: false,
    };
    let error = failure(&[gone, run("true")]).await;
    assert!(matches!(error, StepError::NotStarted(_)), "{error:?}");
    let error = failure(&[Step::Remove {
        path: "/no".to_owned(),
        recursive: false,
        force: false,
    }])
    .await;
    assert_eq!(
        domain::causes::chain(&error),
        "cannot remove `/no`: there is no such file or folder"
    );
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_cancelled_build_ends_also_while_it_waits_for_another() {
    let site = Site::new().await;
    let steps = [run("echo up; sleep 600")];
    let plan = site.plan(&steps);
    let builds: [_; 2] = std::array::from_fn(|_| {
        let (builder, plan, base) = (site.builder.clone(), plan.clone(), vec![site.base.clone()]);
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let task = tokio::spawn(async move {
            let mut story = Story::default();
            let built = builder
                .build(&plan, base, &purpose(), resources(), &mut story, &cancel)
                .await;
            (built, story)
        });
        (task, stop)
    });
    let [(first, stop_first), (second, stop_second)] = builds;
    eventually("a running container", || {
        !site.kit.control_groups().is_empty()
    })
    .await;
    stop_second.cancel();
    let (second, story) = second.await.unwrap();
    assert!(matches!(
        second,
        Err(BuildFailure::Step {
            source: StepError::Cancelled,
            ..
        })
    ));
    assert_eq!(story.lines, ["1/1 started"]);
    stop_first.cancel();
    let (first, _) = first.await.unwrap();
    assert!(matches!(
        first,
        Err(BuildFailure::Step {
            source: StepError::Cancelled,
            ..
        })
    ));
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn mounts_that_a_crash_left_are_taken_away() {
    let site = Site::new().await;
    let dir = site.builder.mounts_dir.join("with \\ and blank");
    std::fs::create_dir(&dir).unwrap();
    let [upper, work] = ["upper", "work"].map(|name| site.folder.path().join(name));
    for folder in [&upper, &work, &dir.join("one"), &dir.join("two")] {
        std::fs::create_dir(folder).unwrap();
    }
    let base = [site.base.clone()];
    let mount = OverlayMount::writable(&base, &upper, &work, &dir.join("one")).unwrap();
    // As a crash does: nobody unmounts it.
    let _crashed = std::mem::ManuallyDrop::new(mount);
    assert!(dir.join("one/etc/passwd").exists());

    assert_eq!(unmount_left(&dir).unwrap(), 1);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    assert!(site.base.path().join("etc/passwd").exists());
    assert_eq!(unmount_left(&dir.join("none")).unwrap(), 0);
}
