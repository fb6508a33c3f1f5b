//! What of a Dockerfile means nothing to a template.

use super::instruction::{Instruction, Keyword};
use super::stage::Stage;

/// An instruction without an effect on the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredInstruction {
    /// Its line, from 1.
    pub line: u32,
    /// What it is.
    pub instruction: Keyword,
    /// Why it has none, and what to do instead.
    pub reason: &'static str,
}

/// What is ignored of the stages that the image is made of, the one that becomes it first.
pub(super) fn of(chain: &[&Stage]) -> Vec<IgnoredInstruction> {
    let mut found: Vec<IgnoredInstruction> = chain
        .iter()
        .enumerate()
        .flat_map(|(place, stage)| of_stage(stage, place == 0))
        .collect();
    found.sort_by_key(|ignored| ignored.line);
    found
}

fn of_stage(stage: &Stage, is_last: bool) -> Vec<IgnoredInstruction> {
    let own: Vec<&Instruction> = stage.instructions.iter().collect();
    let with_reason = own.iter().enumerate().filter_map(|(place, instruction)| {
        let is_repeated = || {
            let mut later = own.iter().skip(place + 1);
            later.any(|other| other.keyword == instruction.keyword)
        };
        let reason = match instruction.keyword {
            Keyword::StopSignal => {
                "no signal is sent to a template's machine: it is stopped as a whole; let the \
                 start command tidy up by itself"
            }
            Keyword::Maintainer => {
                "a template has no maintainer; use LABEL maintainer=… to keep it"
            }
            Keyword::Onbuild if is_last => {
                "templates made from this one do not run it; put the instruction into their own \
                 definition"
            }
            Keyword::Cmd | Keyword::Entrypoint | Keyword::Healthcheck if is_repeated() => {
                "the same instruction comes again in this stage, and the last one counts; remove \
                 this one"
            }
            _ => return None,
        };
        Some(IgnoredInstruction {
            line: instruction.line,
            instruction: instruction.keyword,
            reason,
        })
    });
    with_reason.collect()
}
