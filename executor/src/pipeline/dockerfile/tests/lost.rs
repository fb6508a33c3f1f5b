//! Daemons that are not there, or are not there any more.

use std::path::Path;

use domain::failure::FailureReason;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::kit::{Wish, World, daemon};

/// The suites' daemon at another address, until it is cut off.
fn door(folder: &Path) -> (String, CancellationToken) {
    let path = folder.join("door.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let behind = daemon().strip_prefix("unix://").unwrap().to_owned();
    let cut = CancellationToken::new();
    let until = cut.clone();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = until.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (mut outside, _) = accepted.unwrap();
            let (behind, until) = (behind.clone(), until.clone());
            tokio::spawn(async move {
                let mut inside = UnixStream::connect(behind).await.unwrap();
                tokio::select! {
                    () = until.cancelled() => {}
                    _ = tokio::io::copy_bidirectional(&mut outside, &mut inside) => {}
                }
            });
        }
    });
    (format!("unix://{}", path.display()), cut)
}

fn slow(world: &World) -> String {
    format!(
        "FROM debian:bookworm\nRUN echo begun; sleep 2; echo done > /done # {}\n",
        world.folder().display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_daemon_is_a_failure_that_a_retry_may_help() {
    let world = World::at(&["unix:///nonexistent/buildkitd.sock".to_owned()]).await;
    let dockerfile = slow(&world);
    let built = world
        .build(Wish {
            dockerfile: &dockerfile,
            ..Wish::default()
        })
        .await;
    let failure = built.failure();
    assert_eq!(failure.reason, FailureReason::BuilderUnavailable);
    assert!(failure.reason.retried_by_itself());
    assert!(
        failure.message.contains("/nonexistent/buildkitd.sock"),
        "{failure:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_whose_daemon_is_lost_is_built_by_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let (address, cut) = door(folder.path());
    let world = World::at(&[address.clone(), daemon()]).await;
    // The one that has something to do already is not chosen first.
    let busy = world
        .services
        .buildkit
        .lease(&[address.parse().unwrap()])
        .await
        .unwrap();
    assert_eq!(busy.address().to_string(), daemon());
    let dockerfile = slow(&world);
    let building = world.build(Wish {
        dockerfile: &dockerfile,
        ..Wish::default()
    });
    let cutting = async {
        world.until_logged("begun").await;
        cut.cancel();
    };
    let (built, ()) = tokio::join!(building, cutting);
    assert_eq!(built.read("done").as_deref(), Some("done\n"));
    assert!(
        built.log().contains("starts again at another daemon"),
        "{}",
        built.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_whose_only_daemon_is_lost_fails_and_may_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (address, cut) = door(folder.path());
    let world = World::at(&[address]).await;
    let dockerfile = slow(&world);
    let building = world.build(Wish {
        dockerfile: &dockerfile,
        ..Wish::default()
    });
    let cutting = async {
        world.until_logged("begun").await;
        cut.cancel();
    };
    let (built, ()) = tokio::join!(building, cutting);
    let failure = built.failure();
    assert_eq!(
        failure.reason,
        FailureReason::BuilderUnavailable,
        "{failure:?}"
    );
}
