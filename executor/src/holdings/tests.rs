use std::process::Stdio;

use super::*;
use crate::process::Tool;

fn impatient() -> WorkerLimits {
    WorkerLimits {
        gone_ms_max: 50,
        ..WorkerLimits::default()
    }
}

async fn settled(holdings: &Holdings) -> Aftermath {
    let aftermath = holdings.settle(Instant::now(), &impatient()).await;
    aftermath.expect("there is a list")
}

fn sleeper() -> tokio::process::Child {
    let mut command = Tool::new("sleep").arg("600").command();
    command.stdout(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_process_is_left_until_it_was_waited_for() {
    let holdings = Holdings::new();
    let mut child = sleeper();
    let pid = child.id().unwrap();
    holdings.hold([Thing::process("sleep", pid)]);
    let name = format!("process {pid} (sleep)");
    assert_eq!(holdings.running(), [name.as_str()]);
    assert_eq!(settled(&holdings).await.left, [name.as_str()]);
    child.start_kill().unwrap();
    // A zombie at first; that is not gone.
    child.wait().await.unwrap();
    let aftermath = settled(&holdings).await;
    assert_eq!((aftermath.gone, aftermath.left), (vec![name], Vec::new()));
}

#[tokio::test]
async fn a_dropped_process_is_awaited() {
    let holdings = Holdings::new();
    let child = sleeper();
    let pid = child.id().unwrap();
    holdings.hold([Thing::process("sleep", pid)]);
    drop(child);
    let limits = WorkerLimits::default();
    let aftermath = holdings.settle(Instant::now(), &limits).await.unwrap();
    assert_eq!(aftermath.left, Vec::<String>::new());
    assert_eq!(aftermath.gone, [format!("process {pid} (sleep)")]);
}

#[tokio::test]
async fn a_tool_that_is_dropped_stays_on_the_list_and_one_that_ends_does_not() {
    let holdings = Holdings::new();
    let run = |seconds: &str| {
        let tool = Tool::new("sleep").arg(seconds).held_by(&holdings);
        async move { tool.run(Duration::from_mins(1)).await }
    };
    run("0").await.unwrap();
    assert_eq!(holdings.running(), Vec::<String>::new());
    let dropped = tokio::time::timeout(Duration::from_millis(50), run("600")).await;
    dropped.unwrap_err();
    let running = holdings.running();
    assert!(
        matches!(running.as_slice(), [name] if name.ends_with(" (sleep)")),
        "{running:?}"
    );
    assert_eq!(settled(&holdings).await.gone, running);
}

#[tokio::test]
async fn what_ended_in_its_own_time_is_not_looked_for() {
    let holdings = Holdings::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let held = holdings.hold([Thing::Folder(path.clone())]);
    held.released();
    let aftermath = settled(&holdings).await;
    assert_eq!((aftermath.gone, aftermath.left), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn folders_and_mounts_are_told_by_their_names_and_found_until_they_are_gone() {
    let holdings = Holdings::new();
    let folder = tempfile::Builder::new().prefix("view-").tempdir().unwrap();
    let path = folder.path().to_owned();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &path, "tmpfs", flags, None).unwrap();
    holdings.hold([Thing::mount(&path), Thing::Folder(path.clone())]);
    let parent = path.parent().unwrap().file_name().unwrap();
    let name = Path::new(parent).join(path.file_name().unwrap());
    let name = name.display();
    let (mount, whole) = (format!("mount {name}"), format!("folder {name}"));
    assert_eq!(
        settled(&holdings).await.left,
        [mount.clone(), whole.clone()]
    );
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty()).unwrap();
    let unmounted = settled(&holdings).await;
    assert_eq!((unmounted.gone, unmounted.left), (vec![mount], vec![whole]));
    folder.close().unwrap();
    assert_eq!(settled(&holdings).await.left, Vec::<String>::new());
}

#[tokio::test]
async fn namespaces_are_found_in_processes() {
    let holdings = Holdings::new();
    let mut command = Tool::new("unshare")
        .args(["--net", "--mount", "sh", "-c", "echo in; exec sleep 600"])
        .command();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 3];
    let stdout = child.stdout.as_mut().unwrap();
    tokio::io::AsyncReadExt::read_exact(stdout, &mut said)
        .await
        .unwrap();
    let pid = child.id().unwrap();
    let net = std::fs::metadata(format!("/proc/{pid}/ns/net")).unwrap();
    let things = [
        Thing::Network(net.ino()),
        Thing::mounts_of(pid).expect("it runs"),
    ];
    let names = things.each_ref().map(ToString::to_string);
    holdings.hold(things);
    assert_eq!(settled(&holdings).await.left, names);
    child.kill().await.unwrap();
    assert_eq!(settled(&holdings).await.gone, names);
}

#[tokio::test]
async fn what_a_remote_service_does_not_confirm_is_left() {
    for is_over in [false, true] {
        let holdings = Holdings::new();
        let what = "the build at a daemon".to_owned();
        holdings.hold([Thing::Remote { what, is_over }]);
        assert_eq!(settled(&holdings).await.left.is_empty(), is_over);
    }
}

#[tokio::test]
async fn nobody_looks_without_a_list() {
    let holdings = Holdings::default();
    holdings.hold([Thing::Folder("/".into())]);
    assert_eq!(holdings.settle(Instant::now(), &impatient()).await, None);
}
