//! Dockerfiles that nobody wrote: made of pieces that are likely to be misunderstood, from a number, so
//! that each can be made again.

use std::collections::BTreeMap;

use crate::corpus::Case;

/// Makes one file.
pub(crate) struct Generator {
    state: u64,
    text: String,
    escape: char,
    /// How many stages there are.
    stages: usize,
    /// The names that they have.
    names: Vec<&'static str>,
}

const NAMES: [&str; 6] = ["one", "two", "Three", "scratch", "x", "y"];
const IMAGES: [&str; 12] = [
    "registry.test/a",
    "registry.test/b:1",
    "registry.test/c/d",
    "registry.test/x$A",
    "registry.test/x${B:-b}",
    "registry.test/x${A:+c}$C",
    "\"registry.test/q\"",
    "registry.test/x${D%-*}",
    "registry.test/x${D##*-}",
    "registry.test/x${D//-/_}",
    "registry.test/x${D/b-?/y}",
    "registry.test/x${E-${B:-n}}",
];
const WORDS: [&str; 24] = [
    "true",
    "\"a b\"",
    "'c'",
    "<<#EOF",
    "<<-\"#X_Y\"",
    "<<'#E'",
    "3<<#EOF",
    "<< #EOF",
    "<<<#EOF",
    "\\<<#EOF",
    "\"<<#EOF\"",
    "${x:-<<#EOF}",
    "${x,,}",
    "${x:0:1}",
    "a${x}b",
    "$(echo $A)",
    "\"",
    "'",
    "\\\"",
    "[",
    "--mount=type=secret,id=late",
    "#",
    "$",
    "\u{a0}",
];
const VALUES: [&str; 16] = [
    "a",
    "b-c-d",
    "\"q w\"",
    "'$A'",
    "$A",
    "${B:-z}",
    "\\$A",
    "\"\\$A$B\"",
    "",
    "a\\ b",
    "${A#?}",
    "${D%%-*}x",
    "x=y",
    "${C?no}",
    "$A$B",
    "${A:+${B:-$D}}",
];
const MOUNTS: [&str; 16] = [
    "type=secret,id=tok",
    "type=secret,id=req,required",
    "type=secret,src=s$A",
    "type=secret,target=/run/x/${B:-y}/",
    "type=secret,id=e,env=E",
    "type=$KIND,id=maybe,target=/m",
    "from=SCRATCH,target=/m",
    "from=registry.test/m,target=/m",
    "target=/m,from=registry.test/o,from=scratch",
    "type=cache,target=/c",
    "type=tmpfs,target=/t",
    "type=cache,from=registry.test/n,target=/n",
    "from=scratch,target=/s",
    "target=/ctx",
    "type=secret,\\\"id=q,r\\\"",
    "TYPE=SECRET,ID=up",
];
const WRONG_MOUNTS: [&str; 3] = ["from=$A,target=/m", "type=secret,id=a\"b", ""];
const ADDED: [&str; 8] = [
    "https://registry.test/f",
    "http://registry.test/$A",
    "git@127.0.0.1:r.git",
    "https://registry.test/r.git#main",
    "local",
    "./x@y:z",
    "<<#EOF",
    "HTTPS://registry.test/f",
];

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            text: String::new(),
            escape: '\\',
            stages: 0,
            names: Vec::new(),
        }
    }

    pub(crate) fn case(mut self) -> Case {
        self.head();
        for _ in 0..=self.below(4) {
            self.stage();
        }
        let mut build_args = BTreeMap::new();
        for name in ["A", "B", "C", "D", "KIND", "TARGETARCH"] {
            if self.one_in(3) {
                let values = ["", "v", "b-c-d", "$A", "secret", "a b"];
                build_args.insert(name.to_owned(), self.of(&values).to_owned());
            }
        }
        let target = match self.below(24) {
            0 => Some("nope"),
            1..6 => self.name(),
            _ => None,
        };
        Case {
            name: "made up",
            build_args,
            target,
            text: self.text,
            found: "",
        }
    }

    /// The next number below `end`.
    fn below(&mut self, end: usize) -> usize {
        // xorshift64
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let end = u64::try_from(end).expect("a number of 64 bits");
        usize::try_from((self.state >> 11) % end).expect("it is below")
    }

    /// The name of a stage that is there, if one is.
    fn name(&mut self) -> Option<&'static str> {
        let place = self.below(self.names.len().max(1));
        self.names.get(place).copied()
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of(&mut self, items: &[&'static str]) -> &'static str {
        let place = self.below(items.len());
        items.get(place).copied().expect("it is one of them")
    }

    fn append(&mut self, items: &[&'static str]) {
        let item = self.of(items);
        self.text += item;
    }

    fn head(&mut self) {
        if self.one_in(12) {
            self.text.push('\u{feff}');
        }
        if self.one_in(8) {
            self.text += "# syntax=registry.test/frontend\n";
        }
        if self.one_in(5) {
            self.text += "# escape=`\n";
            self.escape = '`';
        }
        if self.one_in(8) {
            self.text += "\n# escape=`\n";
        }
        for _ in 0..self.below(4) {
            self.arg();
        }
    }

    fn arg(&mut self) {
        let mut line = "ARG".to_owned();
        for _ in 0..=self.below(2) {
            line.push(' ');
            line += self.of(&["A", "B", "C", "D", "E", "KIND", "TARGETOS"]);
            if !self.one_in(3) {
                line.push('=');
                line += self.of(&VALUES);
            }
        }
        self.line(&line);
    }

    fn stage(&mut self) {
        let mut line = self.of(&["FROM", "from", "FROM"]).to_owned();
        if self.one_in(8) {
            line += self.of(&[" --platform=linux/amd64", " --platform=$BUILDPLATFORM"]);
        }
        line.push(' ');
        line += match self.below(8) {
            0 if self.one_in(6) => self.of(&NAMES),
            0 | 1 => self.name().unwrap_or("scratch"),
            2 => "scratch",
            3 => "registry.test/a",
            _ => self.of(&IMAGES),
        };
        if !self.one_in(3) {
            let name = self.of(&NAMES);
            line += self.of(&[" AS ", " as "]);
            line += name;
            self.names.push(name);
        }
        self.line(&line);
        self.stages += 1;
        for _ in 0..self.below(5) {
            self.instruction();
        }
    }

    fn instruction(&mut self) {
        match self.below(12) {
            0 => self.arg(),
            1 => {
                let (name, value) = (self.of(&["A", "B", "X"]), self.of(&VALUES));
                let mark = self.of(&["=", " "]);
                self.line(&format!("ENV {name}{mark}{value}"));
            }
            2 | 3 => self.copy(),
            4 => {
                let source = self.of(&ADDED);
                self.with_heredocs(&format!("ADD {source} /x"));
            }
            5 => {
                let path = self.of(&["/", "/w", "$A", "w"]);
                self.line(&format!("WORKDIR {path}"));
            }
            6 => {
                let rest = self.of(&[
                    "RUN --mount=type=secret,id=on$A true",
                    "COPY --from=registry.test/onbuild /x /y",
                    "COPY --from=one /x /y",
                    "ARG A=onbuild",
                    "RUN cat <<#EOF",
                    "ENV A=onbuild",
                ]);
                self.with_heredocs(&format!("ONBUILD {rest}"));
            }
            7 => {
                let rest = self.of(&[
                    "CMD [\"a\"]",
                    "CMD a",
                    "ENTRYPOINT [\"a\"",
                    "LABEL a=b",
                    "USER 1",
                ]);
                self.line(rest);
            }
            8 => self.append(&["\n", "# a comment\n", "  # COPY --from=no / /\\\n", " \t\n"]),
            _ => self.run(),
        }
    }

    fn copy(&mut self) {
        let from = match self.below(8) {
            0 => "0".to_owned(),
            1 => self.below(self.stages + 1).to_string(),
            2 | 3 => self.of(&NAMES).to_owned(),
            4 => String::new(),
            5 => self
                .of(&["$A", "a$", "scratch", "+0", "-1", "007"])
                .to_owned(),
            _ => self
                .of(&[
                    "registry.test/c",
                    "registry.test/c:2",
                    "\"registry.test/z\"",
                ])
                .to_owned(),
        };
        // A stage of which nothing is copied would be needed and not be done.
        let files = match from.as_str() {
            "" => self.of(&["<<#EOF /x", "<<#EOF <<-'#E' /x/"]),
            _ => self.of(&["/x /y", "[\"/x\", \"/y z\"]", "-- /x /y", "--link /x /y"]),
        };
        self.with_heredocs(&format!("COPY --from={from} {files}"));
    }

    fn run(&mut self) {
        let mut line = self.of(&["RUN", "run", "RUN"]).to_owned();
        for _ in 0..self.below(3) {
            line += " --mount=";
            line += if self.one_in(40) {
                self.of(&WRONG_MOUNTS)
            } else {
                self.of(&MOUNTS)
            };
        }
        if self.one_in(10) {
            line += self.of(&[
                " [\"a\", \"<<#EOF\"]",
                " [\"\\ud800\", \"<<#EOF\"]",
                " [1e999] <<#EOF",
                " [1]",
                " [ -f x ] <<#EOF",
                " []",
            ]);
        }
        for _ in 0..=self.below(4) {
            line.push(' ');
            line += self.of(&WORDS);
        }
        self.with_heredocs(&line);
    }

    /// A line, and after it what may be the body of a here-document, and is good without one too: its
    /// ends are comments.
    fn with_heredocs(&mut self, line: &str) {
        self.line(line);
        if line.contains("<<") && !self.one_in(40) {
            for _ in 0..3 {
                self.append(&[
                    "RUN --mount=type=secret,id=body true\n",
                    "COPY --from=registry.test/body / /\n",
                    "#EOF \n",
                    "\t#EOF\n",
                ]);
                self.text += "#EOF\n\t#X_Y\n#E\n#EOF\n";
            }
        }
    }

    /// A line, perhaps continued at some of its blanks, and perhaps ended as on Windows.
    fn line(&mut self, line: &str) {
        let mut written = String::new();
        for (place, word) in line.split(' ').enumerate() {
            if place > 0 {
                if self.one_in(14) {
                    written.push(' ');
                    written.push(self.escape);
                    written += self.of(&[
                        "\n",
                        " \t\n",
                        "\r\n",
                        "\n# comment\n",
                        "\n\n",
                        "\n  # x \\\n",
                    ]);
                } else {
                    written += self.of(&[" ", " ", " ", "  ", "\t"]);
                }
            }
            written += word;
        }
        written += self.of(&["\n", "\n", "\n", "\r\n", " \n"]);
        self.text += &written;
    }
}
