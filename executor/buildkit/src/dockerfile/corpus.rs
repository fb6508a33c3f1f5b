//! The corpus: Dockerfiles, and what they are read as. The suite `tests/dockerfile` asks the real
//! frontend about the same cases.
//!
//! A case is a name, what is asked for, the file, and what is found, one finding a line:
//!
//! ```text
//! === a name
//! arg NAME=value
//! target stage
//! ---
//! FROM debian
//! ---
//! 1: FROM debian
//! ```
//!
//! In the file, `␠`, `␉`, `␍`, `⍽` and `␜` are a blank, a tab, a carriage return, a non-breaking space and
//! a byte order mark.

use std::collections::BTreeMap;

const FILES: [&str; 6] = [
    include_str!("corpus/text.txt"),
    include_str!("corpus/heredocs.txt"),
    include_str!("corpus/variables.txt"),
    include_str!("corpus/stages.txt"),
    include_str!("corpus/mounts.txt"),
    include_str!("corpus/templates.txt"),
];

/// A case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) target: Option<&'static str>,
    pub(crate) text: String,
    /// One finding a line.
    pub(crate) found: &'static str,
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let cases = FILES.iter().flat_map(|file| file.split("=== ").skip(1));
    cases.map(case).collect()
}

fn case(written: &'static str) -> Case {
    let mut parts = written.split("\n---\n");
    let mut part = || parts.next().expect("a case has three parts");
    let (head, text, found) = (part(), part(), part());
    let mut head = head.lines();
    let name = head.next().expect("a case has a name");
    let mut build_args = BTreeMap::new();
    let mut target = None;
    for line in head {
        match line.split_once(' ').expect("a setting has a value") {
            ("arg", arg) => {
                let (name, value) = arg.split_once('=').expect("an argument has a value");
                build_args.insert(name.to_owned(), value.to_owned());
            }
            ("target", stage) => target = Some(stage),
            (other, _) => panic!("{name}: no setting is named {other}"),
        }
    }
    let marks = [
        ('␠', " "),
        ('␉', "\t"),
        ('␍', "\r"),
        ('⍽', "\u{a0}"),
        ('␜', "\u{feff}"),
    ];
    let text = marks.iter().fold(text.to_owned(), |text, (mark, meant)| {
        text.replace(*mark, meant)
    });
    Case {
        name,
        build_args,
        target,
        text: text + "\n",
        found: found.trim_end(),
    }
}
