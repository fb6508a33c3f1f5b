//! The names of the vertexes that are steps: `[build  2/11] RUN make`. An image that `COPY --from` or a
//! mount names is called by no place, `FROM docker.io/library/debian:bookworm@sha256:…`: so is a base image,
//! where another build that has the vertex uses it so.

/// Instructions beyond this are not counted: no Dockerfile that BuildKit takes has as many.
const PLACE_MAX: u32 = 1_000_000;

/// How the instruction of an image begins.
const BASE: &str = "FROM ";

/// What a step's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StepName {
    /// The stage as BuildKit calls it, in lower case: its name, `stage-N`, or nothing if the
    /// Dockerfile has one stage only.
    pub(super) stage: String,
    /// Its place among the counted instructions of the stage, from 1.
    pub(super) place: u32,
    /// How many there are; none if the name does not tell.
    pub(super) total: Option<u32>,
    /// The instruction.
    pub(super) text: String,
}

impl StepName {
    /// None if the name is not a step's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if name.starts_with(BASE) {
            return Some(Self {
                stage: String::new(),
                place: 1,
                total: None,
                text: name.to_owned(),
            });
        }
        let (head, text) = name.strip_prefix('[')?.split_once("] ")?;
        // A platform may stand before the stage, and blanks before the place if there are ten or more.
        let mut words = head.split_whitespace().rev();
        let (place, total) = words.next()?.split_once('/')?;
        let (place, total) = (number(place)?, number(total)?);
        if place == 0 || place > total {
            return None;
        }
        let stage = words.next().filter(|word| !word.contains('/'));
        Some(Self {
            stage: stage.unwrap_or_default().to_lowercase(),
            place,
            total: Some(total),
            // The merge at the end of a `COPY --link`.
            text: text.strip_prefix("LINK ").unwrap_or(text).to_owned(),
        })
    }

    /// Whether it is a base image. Stages with the same one share its vertex, whose name is that of the
    /// stage that BuildKit met first.
    pub(super) fn is_base(&self) -> bool {
        self.text.starts_with(BASE)
    }

    /// Whether it tells where in its Dockerfile the step stands.
    pub(super) fn has_place(&self) -> bool {
        self.total.is_some()
    }
}

fn number(text: &str) -> Option<u32> {
    // `parse` would take a sign, too.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&number| number <= PLACE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, stage: &str, (place, total): (u32, u32), text: &str) {
        let expected = StepName {
            stage: stage.to_owned(),
            place,
            total: Some(total),
            text: text.to_owned(),
        };
        assert_eq!(StepName::parse(name), Some(expected));
    }

    #[test]
    fn a_step_is_known_by_its_stage_its_place_and_its_instruction() {
        check("[1/2] FROM debian", "", (1, 2), "FROM debian");
        check("[ 2/11] RUN make", "", (2, 11), "RUN make");
        check("[build  2/11] RUN make", "build", (2, 11), "RUN make");
        check("[stage-2 3/6] COPY . .", "stage-2", (3, 6), "COPY . .");
        check("[linux/amd64 build 2/3] RUN a", "build", (2, 3), "RUN a");
        check("[linux/amd64->arm64 1/3] RUN a", "", (1, 3), "RUN a");
        check(
            "[s 4/6] LINK COPY --link a /b",
            "s",
            (4, 6),
            "COPY --link a /b",
        );
        check(
            "[1/2] RUN [ -e a ] && b\nc",
            "",
            (1, 2),
            "RUN [ -e a ] && b\nc",
        );
        check("[Base 1/1] ONBUILD RUN x", "base", (1, 1), "ONBUILD RUN x");
    }

    #[test]
    fn an_image_may_be_called_by_no_place() {
        let name = StepName::parse("FROM debian@sha256:0").unwrap();
        assert!(name.is_base());
        assert!(!name.has_place());
        assert_eq!(name.text, "FROM debian@sha256:0");
    }

    #[test]
    fn other_names_are_no_steps() {
        for name in [
            "",
            "[",
            "[]",
            "[] ",
            "[internal] load metadata for docker.io/library/debian:bookworm",
            "[auth] library/debian:pull token for docker.io",
            "[context a/b] load metadata for x",
            "exporting to oci image format",
            "[0/3] RUN a",
            "[4/3] RUN a",
            "[+1/3] RUN a",
            "[1/99999999999] RUN a",
            "[1/] RUN a",
            "[1/2]RUN a",
            "FROMAGE",
            "RUN a",
        ] {
            assert_eq!(StepName::parse(name), None, "{name}");
        }
    }
}
