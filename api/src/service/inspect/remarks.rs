//! What the sender of a request may not have meant.

use domain::definition::{Source, Step};
use executor::image::ImageReference;

use super::{Inspection, dockerfile};

impl Inspection {
    /// What the sender of the request may not have meant, each in a sentence that begins with the
    /// field.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self
            .ignored_fields
            .iter()
            .map(|field| format!("{field}: is not a field of a request, and is ignored"))
            .collect();
        let definition = &self.requested.definition;
        match &definition.source {
            Source::Declarative {
                base_image, steps, ..
            } => {
                if self.requested.base.is_none() {
                    remarks.extend(moving_tag(base_image));
                }
                remarks.extend(idle_boundary(steps));
            }
            Source::Dockerfile { .. } => {
                let dockerfile = self.dockerfile.iter();
                let found =
                    dockerfile.flat_map(|it| dockerfile::remarks(it, &definition.secret_ids));
                remarks.extend(found);
            }
        }
        if definition.start_cmd.is_none() && definition.runtime.readiness.is_some() {
            remarks.push(
                "runtime_config.readiness: is probed in a machine without a start command"
                    .to_owned(),
            );
        }
        remarks
    }
}

/// A reference that means another image tomorrow.
fn moving_tag(base_image: &str) -> Option<String> {
    let image: ImageReference = base_image.parse().ok()?;
    let moves = image.digest().is_none() && image.tag().is_none_or(|tag| tag == "latest");
    moves.then(|| {
        format!(
            "base_image: `{image}` means whatever the tag `latest` points to when the build begins"
        )
    })
}

/// A cache boundary that nothing follows.
fn idle_boundary(steps: &[Step]) -> Option<String> {
    let last = steps.len().checked_sub(1)?;
    matches!(steps.get(last), Some(Step::SkipCache))
        .then(|| format!("steps[{last}]: skip_cache has no step behind it"))
}
