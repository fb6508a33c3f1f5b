//! Clones, from a git server that steps reach through the filtered network.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use tokio::process::Child;

use super::*;
use crate::native::network_tests::{make_internet, on_a_host_of_its_own};
use crate::process::Tool;

/// Where the server is, in a network namespace of its own.
const SERVER: &str = "198.51.100.1:9418";
const URL: &str = "git://198.51.100.1/repo";

/// A repository, and the server that gives it away.
struct Origin {
    folder: tempfile::TempDir,
    _server: Child,
    _internet: File,
}

impl Origin {
    async fn new() -> Self {
        let (internet, _) = make_internet().await;
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), "init --quiet --initial-branch=main repo").await;
        let net = format!(
            "--net=/proc/{}/fd/{}",
            std::process::id(),
            internet.as_raw_fd()
        );
        let server = Tool::new("nsenter")
            .arg(net)
            .arg("/usr/lib/git-core/git-daemon")
            .args(["--export-all", "--listen=198.51.100.1"])
            .arg(format!("--base-path={}", folder.path().display()))
            .command()
            .spawn()
            .unwrap();
        let address = SERVER.parse().unwrap();
        eventually("the git server", || {
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        })
        .await;
        Self {
            folder,
            _server: server,
            _internet: internet,
        }
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    /// Commits `text` as the content of `file`, and gives the commit.
    async fn commit(&self, text: &str) -> String {
        commit(&self.repo(), text).await
    }
}

async fn commit(repo: &Path, text: &str) -> String {
    std::fs::write(repo.join("file"), text).unwrap();
    git(repo, "add file").await;
    git(repo, &format!("commit --quiet --message={text}")).await;
    git(repo, "rev-parse HEAD").await
}

/// Runs git on the host, and gives what it printed.
async fn git(folder: &Path, arguments: &str) -> String {
    let finished = Tool::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(arguments.split(' '))
        .current_dir(folder)
        .run_ok(Duration::from_secs(20))
        .await
        .unwrap();
    String::from_utf8(finished.stdout)
        .unwrap()
        .trim()
        .to_owned()
}

fn clone(branch: Option<&str>, depth: Option<u32>) -> Step {
    Step::GitClone {
        url: URL.to_owned(),
        path: "/repo".to_owned(),
        branch: branch.map(str::to_owned),
        depth,
    }
}

/// What the clone holds, which commit it is at, and how many it has.
fn look() -> Step {
    run("cd /repo && cat file && echo && git rev-parse HEAD && git rev-list --count HEAD")
}

async fn networked() -> Site {
    Site {
        network: StepNetwork::Internet,
        ..Site::new().await
    }
}

/// The lines of step `index` between its start and its end.
fn of_step(story: &Story, index: u32) -> Vec<String> {
    let begin = format!("{index}/");
    let lines = story.lines.iter().filter(|line| line.starts_with(&begin));
    let bare = lines.filter_map(|line| line.split_once(' ').map(|(_, what)| what.to_owned()));
    bare.filter(|what| what != "started" && !what.starts_with("finished"))
        .collect()
}

/// The text of a build's failure.
fn failure(built: Result<Vec<Layer>, BuildFailure<Infallible>>) -> String {
    domain::causes::chain(&built.unwrap_err())
}

#[test]
fn a_clone_is_made_anew_when_its_branch_has_moved_and_only_then() {
    on_a_host_of_its_own(|| async {
        let (origin, site) = (Origin::new().await, networked().await);
        let one = origin.commit("one").await;
        let steps = [clone(Some("main"), None), look()];
        let (built, story) = site.build(&steps).await;
        built.unwrap();
        assert!(
            story.output.ends_with(&format!("one\n{one}\n1\n")),
            "{}",
            story.output
        );
        let knows = "knows the branch or tag `main`".to_owned();
        assert_eq!(
            of_step(&story, 1),
            [knows.clone(), "missed".to_owned(), "stored".to_owned()]
        );

        let (built, story) = site.build(&steps).await;
        built.unwrap();
        assert_eq!(of_step(&story, 1), [knows.clone(), "hit".to_owned()]);
        assert_eq!(
            (of_step(&story, 2), story.output.as_str()),
            (vec!["hit".to_owned()], "")
        );

        let two = origin.commit("two").await;
        let (built, story) = site.build(&steps).await;
        built.unwrap();
        let why = format!("commit {}… → {}…", &one[..8], &two[..8]);
        assert_eq!(of_step(&story, 1)[1], format!("missed: {why}"));
        assert_eq!(
            of_step(&story, 2)[0],
            format!("missed: before it, GIT CLONE {URL} /repo: {why}")
        );
        assert!(
            story.output.ends_with(&format!("two\n{two}\n2\n")),
            "{}",
            story.output
        );

        let (built, story) = site.build(&[clone(None, Some(1)), look()]).await;
        built.unwrap();
        assert_eq!(of_step(&story, 1)[0], "knows the default branch");
        assert!(story.output.ends_with(&format!("two\n{two}\n1\n")));
        site.assert_nothing_is_left();
    });
}

#[test]
fn a_tag_is_the_commit_that_it_describes() {
    on_a_host_of_its_own(|| async {
        let (origin, site) = (Origin::new().await, networked().await);
        let one = origin.commit("one").await;
        git(&origin.repo(), "tag --annotate --message=first v1").await;
        git(&origin.repo(), "tag light").await;
        origin.commit("two").await;
        for tag in ["v1", "light"] {
            let (built, story) = site.build(&[clone(Some(tag), None), look()]).await;
            built.unwrap();
            assert!(
                story.output.contains(&format!("one\n{one}\n")),
                "{}",
                story.output
            );
        }
    });
}

/// A story in which somebody changes the repository between the question and the clone.
struct Meddled {
    story: Story,
    repo: PathBuf,
    rewrite: bool,
}

impl StepObserver for Meddled {
    type Error = Infallible;

    async fn event(&mut self, step: &PlannedStep, event: StepEvent) -> Result<(), Infallible> {
        if matches!(event, StepEvent::CommitKnown { .. }) {
            if self.rewrite {
                git(&self.repo, "commit --quiet --amend --message=rewritten").await;
                git(&self.repo, "reflog expire --expire=now --all").await;
                git(&self.repo, "gc --quiet --prune=now").await;
            } else {
                commit(&self.repo, "later").await;
            }
        }
        self.story.event(step, event).await
    }

    async fn output(
        &mut self,
        step: &PlannedStep,
        stream: OutputStream,
        bytes: &[u8],
    ) -> Result<(), Infallible> {
        self.story.output(step, stream, bytes).await
    }
}

async fn meddled(
    site: &Site,
    origin: &Origin,
    depth: Option<u32>,
    rewrite: bool,
) -> (Result<(), BuildFailure<Infallible>>, String) {
    let mut observer = Meddled {
        story: Story::default(),
        repo: origin.repo(),
        rewrite,
    };
    let plan = site.plan(&[clone(Some("main"), depth), look()]);
    let base = vec![site.base.clone()];
    let cancel = CancellationToken::new();
    let built = site
        .builder
        .build(&plan, base, &purpose(), resources(), &mut observer, &cancel)
        .await;
    (built.map(drop), observer.story.output)
}

#[test]
fn a_push_after_the_question_gives_no_other_commit() {
    on_a_host_of_its_own(|| async {
        let (origin, site) = (Origin::new().await, networked().await);
        let mut commits = 0;
        for depth in [None, Some(1)] {
            let asked = origin
                .commit(&format!("asked-{depth:?}").replace(['(', ')'], ""))
                .await;
            commits += 1;
            let (built, output) = meddled(&site, &origin, depth, false).await;
            built.unwrap();
            let count = depth.unwrap_or(commits);
            assert!(
                output.ends_with(&format!("\n{asked}\n{count}\n")),
                "{output}"
            );
            assert!(output.contains("The repository has changed"), "{output}");
            commits += 1;
        }
        let asked = origin.commit("gone").await;
        let (built, output) = meddled(&site, &origin, None, true).await;
        let Err(BuildFailure::Step {
            index: 1, source, ..
        }) = built
        else {
            panic!("{built:?}")
        };
        assert!(
            matches!(source, StepError::Exited { code: 1, .. }),
            "{source:?}"
        );
        let gone = format!("Commit {asked} is gone from the repository.");
        assert!(output.contains(&gone), "{output}");
        site.assert_nothing_is_left();
    });
}

#[test]
fn a_question_without_an_answer_says_why() {
    on_a_host_of_its_own(|| async {
        let (origin, mut site) = (Origin::new().await, networked().await);
        origin.commit("one").await;
        let (built, _) = site.build(&[clone(Some("none"), None)]).await;
        assert_eq!(
            failure(built),
            format!(
                "step 1 of 1 (GIT CLONE {URL} /repo) failed: cannot tell the commit of the branch or \
                 tag `none`: the repository has no such commit"
            )
        );
        let elsewhere = Step::GitClone {
            url: "git://198.51.100.1/nothing".to_owned(),
            path: "/repo".to_owned(),
            branch: None,
            depth: None,
        };
        let (built, _) = site.build(&[elsewhere]).await;
        let told = failure(built);
        assert!(told.ends_with("git ended with code 128"), "{told}");

        site.network = StepNetwork::None;
        let (built, _) = site.build(&[clone(None, None)]).await;
        let told = failure(built);
        let why =
            "git ended with code 128, and the build has no network (`internet_access` is false)";
        assert!(told.ends_with(why), "{told}");
        let no_git = Step::Remove {
            path: "/usr/bin/git".to_owned(),
            recursive: false,
            force: false,
        };
        let (built, _) = site.build(&[no_git, clone(None, None)]).await;
        let told = failure(built);
        assert!(told.ends_with("there is no git in the image"), "{told}");
        site.assert_nothing_is_left();
    });
}

#[tokio::test]
async fn hostile_addresses_and_names_are_no_options_and_no_commands() {
    let site = Site::new().await;
    let make = run("git init --quiet /r && cd /r && git config user.name t && \
         git config user.email t && git commit --quiet --allow-empty --message=x");
    // A shell that gets to see it says `pwned-42`; git repeats it as it is written.
    for (url, branch) in [
        ("ext::sh -c echo% pwned-$((40+2))% >&2", None),
        ("--upload-pack=echo pwned-$((40+2)) >&2; true", None),
        ("-c", Some("core.sshCommand=echo pwned-$((40+2)) >&2; true")),
        ("file:///r'; echo pwned-$((40+2)) >&2; '", None),
        (
            "file:///r",
            Some("--upload-pack=echo pwned-$((40+2)) >&2; true"),
        ),
        ("file:///r", Some("'; echo pwned-$((40+2)) >&2; '")),
    ] {
        let hostile = Step::GitClone {
            url: url.to_owned(),
            path: "/repo".to_owned(),
            branch: branch.map(str::to_owned),
            depth: None,
        };
        let (built, _) = site.build(&[make.clone(), hostile]).await;
        let Err(BuildFailure::Step {
            index: 2, source, ..
        }) = built
        else {
            panic!("{url} {branch:?}: {built:?}")
        };
        let StepError::Commit { stderr_tail, .. } = source else {
            panic!("{url} {branch:?}: {source:?}")
        };
        let said = stderr_tail.join("\n");
        assert!(!said.contains("pwned-42"), "{url} {branch:?}: {said}");
    }
    let honest = Step::GitClone {
        url: "file:///r".to_owned(),
        path: "/repo".to_owned(),
        branch: None,
        depth: None,
    };
    let look = run("git -C /repo log -1");
    let (built, _) = site.build(&[make, honest, look]).await;
    built.unwrap();
    site.assert_nothing_is_left();
}
