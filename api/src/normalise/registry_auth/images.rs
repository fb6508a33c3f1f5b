//! Where the images of a Dockerfile are: credentials go to registries that it names, and to no other.

use std::collections::{BTreeMap, BTreeSet};

use buildkit::BuildkitLimits;
use buildkit::dockerfile::{self, Dockerfile, ImageUse, StageBase};
use executor::image::ImageReference;

use crate::normalise::FieldProblem;

/// How many hosts a message names.
const HOSTS_NAMED_MAX: usize = 10;

/// Where the images of a Dockerfile are.
#[derive(Debug)]
pub(super) struct Images {
    hosts: BTreeSet<String>,
    /// Why an image that the build needs has no known name, if there is one.
    nameless: Option<FieldProblem>,
    /// The registry of the image that the last stage starts from.
    base: Base,
}

#[derive(Debug)]
enum Base {
    /// The stage starts from nothing.
    Scratch,
    At(String),
    /// Its image is the nameless one, or one of several.
    Nameless,
}

impl Images {
    /// Reads the Dockerfile.
    ///
    /// # Errors
    /// The Dockerfile cannot be read, so that nobody knows which images it names.
    pub(super) fn read(
        text: &str,
        build_args: &BTreeMap<String, String>,
        target: Option<&str>,
    ) -> Result<Self, FieldProblem> {
        let limits = BuildkitLimits::default();
        let dockerfile =
            dockerfile::read(text, build_args, target, &limits).map_err(|problem| {
                in_dockerfile(&format!(
                    "{problem}; so nobody knows which registries it uses"
                ))
            })?;
        let needed = dockerfile.images();
        let nameless = needed
            .iter()
            .find(|used| host(&used.image).is_none())
            .map(nameless);
        // A stage that this target does not need may keep its credentials.
        let bases = dockerfile
            .stages()
            .iter()
            .filter_map(|stage| image(&stage.base));
        let names = needed.iter().map(|used| used.image.as_str()).chain(bases);
        Ok(Self {
            hosts: names.filter_map(host).collect(),
            nameless,
            base: base(&dockerfile),
        })
    }

    /// What is wrong with credentials for `hosts`, which are in the order of the request.
    pub(super) fn problems(&self, hosts: &[&str]) -> Vec<FieldProblem> {
        let foreign: Vec<_> = hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| !self.hosts.contains(**host))
            .collect();
        if let (Some(problem), false) = (&self.nameless, foreign.is_empty()) {
            return vec![problem.clone()];
        }
        let problem = |(index, host)| {
            let field = format!("registry_auth[{index}].registry");
            let message = format!(
                "no image of the Dockerfile is at `{host}`; {}",
                self.named()
            );
            FieldProblem::new(field, message)
        };
        foreign.into_iter().map(problem).collect()
    }

    /// The registry of the image that the last stage starts from.
    ///
    /// # Errors
    /// There is none, or nobody knows it.
    pub(super) fn base(&self) -> Result<&str, FieldProblem> {
        match (&self.base, &self.nameless) {
            (Base::At(host), _) => Ok(host),
            (Base::Nameless, Some(problem)) => Err(problem.clone()),
            (Base::Nameless | Base::Scratch, _) => Err(FieldProblem::new(
                "base_image_auth",
                "is for images in registries, and the Dockerfile's last stage starts from none",
            )),
        }
    }

    fn named(&self) -> String {
        let hosts: Vec<&str> = self
            .hosts
            .iter()
            .map(String::as_str)
            .take(HOSTS_NAMED_MAX)
            .collect();
        match hosts.as_slice() {
            [] => "it uses no registry".to_owned(),
            hosts => format!("it uses {}", hosts.join(", ")),
        }
    }
}

fn base(dockerfile: &Dockerfile) -> Base {
    let chain = dockerfile.final_chain();
    let first = chain
        .last()
        .and_then(|index| dockerfile.stages().get(*index));
    match first.map(|stage| image(&stage.base)) {
        Some(Some(image)) => host(image).map_or(Base::Nameless, Base::At),
        Some(None) | None => Base::Scratch,
    }
}

fn image(base: &StageBase) -> Option<&str> {
    match base {
        StageBase::Image(image) => Some(image),
        StageBase::Stage(_) | StageBase::Scratch => None,
    }
}

fn host(image: &str) -> Option<String> {
    let reference = image.parse::<ImageReference>().ok()?;
    Some(reference.registry().to_owned())
}

/// Why the image has no name.
fn nameless(used: &ImageUse) -> FieldProblem {
    let line = used.line;
    in_dockerfile(&match used.unset.as_slice() {
        [] => {
            format!("line {line}: this is not the name of an image, so nobody knows its registry")
        }
        unset => format!(
            "line {line}: the name of the image hangs on {}, which build_args gives no value: nobody knows its registry",
            unset.join(", ")
        ),
    })
}

fn in_dockerfile(message: &str) -> FieldProblem {
    FieldProblem::new("dockerfile", message)
}
