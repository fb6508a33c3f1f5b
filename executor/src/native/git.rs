//! Clones of repositories: which commit one is to be of is asked before, because it is part of the key,
//! and then exactly that commit is checked out.
//!
//! What the repository and the image's git answer is theirs to decide, so it is checked like any
//! stranger's word. Every text of the caller is one word of the shell, behind `--` where it could be an
//! option.

use std::fmt;

use super::step::{Command, quoted};

/// A repository that wants a password must fail, not wait for one.
const GIT_ENV: [(&str, &str); 1] = [("GIT_TERMINAL_PROMPT", "0")];

/// A clone that a step makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clone {
    /// The repository.
    pub url: String,
    /// Where to, absolute.
    pub path: String,
    /// A branch or tag; the default branch if none is given.
    pub branch: Option<String>,
    /// How many commits of history; all if none is given.
    pub depth: Option<u32>,
    /// Who clones.
    pub user: String,
}

/// The name of a commit: 40 lower-case hex digits, or 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit(String);

/// Which commit the caller means, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(Option<String>);

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(branch) => write!(f, "the branch or tag `{branch}`"),
            None => f.write_str("the default branch"),
        }
    }
}

impl Commit {
    fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = matches!(text.len(), 40 | 64) && text.bytes().all(is_hex);
        valid.then(|| Self(text.to_owned()))
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Clone {
    /// Which commit it is to be of.
    pub fn wanted(&self) -> Wanted {
        Wanted(self.branch.clone())
    }

    /// Asks the repository what it has; the answer is for [`Clone::commit`].
    pub fn question(&self) -> Command {
        let names: Vec<String> = self.names().iter().map(|name| quoted(name)).collect();
        let names = names.join(" ");
        let url = quoted(&self.url);
        self.command(format!("exec git ls-remote -- {url} {names}"))
    }

    /// What git calls what is asked for, best first: as `git clone --branch` looks for it, and of a tag
    /// with a description the commit that it describes.
    fn names(&self) -> Vec<String> {
        match &self.branch {
            None => vec!["HEAD".to_owned()],
            Some(name) => vec![
                format!("refs/heads/{name}"),
                format!("refs/tags/{name}^{{}}"),
                format!("refs/tags/{name}"),
            ],
        }
    }

    /// The commit that the answer to [`Clone::question`] names, if the repository has one.
    ///
    /// git takes names for patterns that match the end of a name, so an answer may hold others too.
    pub fn commit(&self, answer: &str) -> Option<Commit> {
        let answers: Vec<(&str, &str)> = answer
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .collect();
        let of = |name: &String| answers.iter().find(|(_, answer)| answer == name);
        let names = self.names();
        let (commit, _) = names.iter().find_map(of)?;
        Commit::parse(commit)
    }

    /// Clones, and sees to it that `commit` is what is checked out: somebody may have pushed meanwhile.
    pub fn clone_of(&self, commit: &Commit) -> Command {
        let (url, path, commit) = (quoted(&self.url), quoted(&self.path), commit.as_str());
        let branch = self.branch.as_ref();
        let branch = branch.map_or_else(String::new, |name| format!(" --branch {}", quoted(name)));
        let depth = self.depth;
        let depth = depth.map_or_else(String::new, |depth| format!(" --depth {depth}"));
        self.command(format!(
            "set -e\n\
             git clone{branch}{depth} -- {url} {path}\n\
             cd {path}\n\
             test \"$(git rev-parse HEAD)\" != {commit} || exit 0\n\
             echo 'The repository has changed since this step began; taking commit {commit}.'\n\
             git cat-file -e '{commit}^{{commit}}' 2> /dev/null ||\n\
             git fetch{depth} origin {commit} ||\n\
             {{ echo 'Commit {commit} is gone from the repository.' >&2; exit 1; }}\n\
             git reset --quiet --hard {commit}\n\
             test \"$(git rev-parse HEAD)\" = {commit}"
        ))
    }

    /// What cloning comes to whatever the commit is: for a key, to which the commit is added.
    pub fn outline(&self) -> Command {
        self.clone_of(&Commit("0".repeat(40)))
    }

    fn command(&self, script: String) -> Command {
        Command {
            script,
            user: self.user.clone(),
            defaults: GIT_ENV.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn clone(branch: Option<&str>, depth: Option<u32>) -> Clone {
        Clone {
            url: "https://h/r; x".to_owned(),
            path: "/srv/repo".to_owned(),
            branch: branch.map(str::to_owned),
            depth,
            user: "app".to_owned(),
        }
    }

    fn commit(branch: Option<&str>, answer: &str) -> Option<String> {
        let commit = clone(branch, None).commit(answer);
        commit.map(|commit| commit.as_str().to_owned())
    }

    #[test]
    fn texts_are_words_and_never_options_or_shell() {
        assert_eq!(
            clone(None, None).question().script,
            "exec git ls-remote -- 'https://h/r; x' 'HEAD'"
        );
        let hostile = Clone {
            url: "--upload-pack=touch /x".to_owned(),
            ..clone(Some("-b'; x"), Some(3))
        };
        assert_eq!(
            hostile.question().script,
            r"exec git ls-remote -- '--upload-pack=touch /x' 'refs/heads/-b'\''; x' 'refs/tags/-b'\''; x^{}' 'refs/tags/-b'\''; x'"
        );
        let script = hostile.clone_of(&Commit(ONE.to_owned())).script;
        let line =
            r"git clone --branch '-b'\''; x' --depth 3 -- '--upload-pack=touch /x' '/srv/repo'";
        assert_eq!(script.lines().nth(1), Some(line));
        assert!(
            script.contains(&format!("git fetch --depth 3 origin {ONE} ||")),
            "{script}"
        );
    }

    #[test]
    fn branches_come_before_tags_and_tags_are_what_they_describe() {
        let answer = |names: &[&str]| -> String {
            let lines = names.iter().enumerate();
            let line = |(place, name): (usize, &&str)| {
                let digit = (place + 1).to_string();
                format!("{}\t{name}\n", digit.repeat(40))
            };
            lines.map(line).collect()
        };
        let tag = answer(&["refs/tags/v1", "refs/tags/v1^{}"]);
        assert_eq!(commit(Some("v1"), &tag).as_deref(), Some(TWO));
        let light = answer(&["refs/tags/v1"]);
        assert_eq!(commit(Some("v1"), &light).as_deref(), Some(ONE));
        let both = answer(&["refs/tags/v1", "refs/heads/v1", "refs/tags/v1^{}"]);
        assert_eq!(commit(Some("v1"), &both).as_deref(), Some(TWO));
        let other = answer(&["refs/remotes/origin/HEAD", "HEAD"]);
        assert_eq!(commit(None, &other).as_deref(), Some(TWO));
        let like = answer(&["refs/heads/x/refs/heads/main"]);
        assert_eq!(commit(Some("main"), &like), None);
    }

    #[test]
    fn an_answer_that_is_no_commit_is_none() {
        let short = format!("{}\tHEAD\n", &ONE[1..]);
        let shell = format!("{}; x\tHEAD\n", &ONE[3..]);
        let capital = format!("{}\tHEAD\n", "A".repeat(40));
        for answer in ["", "HEAD\n", &short, &shell, &capital] {
            assert_eq!(commit(None, answer), None, "{answer}");
        }
        let long = format!("{}\tHEAD\n", "a".repeat(64));
        assert!(commit(None, &long).is_some());
    }
}
