//! Takes the image that BuildKit left: its layers into the store, after they were searched for the values
//! of the build's secrets.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use domain::build::{CacheKind, CacheStored, CacheSubject, Event};
use domain::failure::{Failure, FailurePhase, FailureReason};
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use super::super::{Attempt, Interruption, failures};
use super::prepare::Prepared;
use super::run::output_dir;
use crate::image::{ImageError, ImageFailure, Inspect, LayerStage, LayoutImage, PullProgress};
use crate::layers::{Layer, Provenance};
use crate::secrets::search::{Leak, Part, Search, SearchError};

/// What errors call the image.
const IMAGE: &str = "the image that the Dockerfile makes";

impl Attempt<'_> {
    /// The image in `scratch`, and its layers in the store.
    pub(super) async fn take_image(
        &self,
        prepared: &Prepared,
        scratch: &Path,
    ) -> Result<(LayoutImage, Vec<Layer>), Interruption> {
        let limits = &self.services.limits;
        let folder = output_dir(scratch);
        let image = LayoutImage::open(folder, IMAGE, &limits.image).await;
        let image = image.map_err(|error| unusable(&error))?;
        let search = self.search().await?;
        let document = serde_json::from_slice(&image.config_document)
            .map_err(|error| failures::internal(&error))?;
        if let Some(leak) = search.configuration(&document) {
            return Err(leaked(&leak).into());
        }
        let inspector = Inspector {
            search,
            stop: self.stop.clone(),
            base_layers: shared_layers(&image, prepared),
            verdict: Mutex::default(),
        };
        let layers = self.import(&image, Arc::new(inspector)).await?;
        Ok((image, layers))
    }

    /// The search for the values of the build's secrets.
    async fn search(&self) -> Result<Search, Interruption> {
        let (secrets, limits) = (self.secrets.clone(), self.services.limits.secrets);
        let search = failures::blocking(move || {
            let values = secrets.iter().flat_map(|secrets| secrets.values());
            let exposed = values.map(|(id, value)| (id, value.expose_secret()));
            Search::new(exposed, &limits)
        });
        search.await
    }

    async fn import(
        &self,
        image: &LayoutImage,
        inspector: Arc<Inspector>,
    ) -> Result<Vec<Layer>, Interruption> {
        let base_layers = inspector.base_layers;
        let provenances = Mutex::new(vec![Provenance::Hit; image.layers.len()]);
        let note = |progress: PullProgress| {
            if let LayerStage::Stored { provenance } = progress.stage {
                let mut all = provenances.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(known) = all.get_mut(progress.layer_index) {
                    *known = provenance;
                }
            }
        };
        let inspect: Inspect = {
            let inspector = Arc::clone(&inspector);
            Arc::new(move |index, folder| inspector.accepts(index, folder))
        };
        let store = self.services.layers.held_by(&self.holdings);
        let import = image.import(&store, Some(&inspect), &note);
        let imported = self
            .unless_stopped("the import of the image", import)
            .await?;
        inspector.verdict()?;
        let layers = imported.map_err(|error| unusable(&error))?;

        let provenances = provenances
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let own = || {
            layers
                .iter()
                .zip(&provenances)
                .enumerate()
                .skip(base_layers)
        };
        // What was there was searched for the secrets of another build, or of none.
        let known: Vec<(usize, Layer)> = own()
            .filter(|(_, (_, provenance))| **provenance != Provenance::Built)
            .map(|(index, (layer, _))| (index, layer.clone()))
            .collect();
        let searching = Arc::clone(&inspector);
        failures::blocking(move || {
            for (index, layer) in known {
                if !searching.accepts(index, layer.path()) {
                    return;
                }
            }
        })
        .await?;
        inspector.verdict()?;
        let count = layers.len();
        let stored = own().filter(|(_, (_, provenance))| **provenance == Provenance::Built);
        let stored: Vec<Event> = stored
            .map(|(index, (layer, _))| {
                Event::CacheStored(CacheStored {
                    entry: CacheSubject {
                        kind: CacheKind::Layer,
                        subject: format!("layer {} of {count}", index + 1),
                        step_index: None,
                        key: *layer.key(),
                    },
                    bytes: layer.content_bytes(),
                })
            })
            .collect();
        if !stored.is_empty() {
            self.reporter.events(stored).await?;
        }
        Ok(layers)
    }
}

/// How many layers at the bottom are those of the image that the Dockerfile starts from: they were there
/// before any secret was.
fn shared_layers(image: &LayoutImage, prepared: &Prepared) -> usize {
    let base = prepared.base().into_iter().flat_map(|base| &base.layers);
    let both = image.layers.iter().zip(base);
    both.take_while(|(own, base)| own.diff_id == base.diff_id)
        .count()
}

/// Searches layers before they are kept, and remembers what it found.
struct Inspector {
    search: Search,
    stop: CancellationToken,
    /// How many at the bottom need no search.
    base_layers: usize,
    verdict: Mutex<Option<Verdict>>,
}

/// Why a layer is not to be kept.
#[derive(Debug)]
enum Verdict {
    Leak(Leak),
    Unknown(SearchError),
}

impl Inspector {
    /// Whether the layer may be kept. Blocking.
    fn accepts(&self, index: usize, folder: &Path) -> bool {
        if index < self.base_layers {
            return true;
        }
        let verdict = match self.search.folder(folder, &self.stop) {
            Ok(None) => return true,
            Ok(Some(leak)) => Verdict::Leak(leak),
            Err(error) => Verdict::Unknown(error),
        };
        let mut first = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(verdict);
        false
    }

    /// What has been found so far.
    fn verdict(&self) -> Result<(), Interruption> {
        let verdict = self
            .verdict
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match verdict {
            None => Ok(()),
            Some(Verdict::Leak(leak)) => Err(leaked(&leak).into()),
            Some(Verdict::Unknown(SearchError::Stopped)) => Err(Interruption::Stopped {
                killed: vec!["the search for secret values".to_owned()],
            }),
            Some(Verdict::Unknown(error)) => Err(failures::internal(&error).into()),
        }
    }
}

fn leaked(leak: &Leak) -> Failure {
    let Leak { secret, part, path } = leak;
    let place = match part {
        Part::Content => format!("in the file `{path}`"),
        Part::Name => format!("in a name in the folder `{path}`"),
        Part::LinkTarget => format!("in the target of the link `{path}`"),
        Part::Attributes => format!("in the extended attributes of `{path}`"),
        Part::Configuration => format!("in the image's configuration, at `{path}`"),
    };
    let message = format!(
        "The value of the secret `{secret}` is {place}: everybody who uses the template could read it. \
         A file that a later step removes still is in the layer of the step that wrote it."
    );
    Failure::new(FailureReason::SecretLeaked, message)
        .with_detail("secret", secret.as_str())
        .with_detail("path", path.as_str())
}

fn unusable(error: &ImageError) -> Failure {
    let reason = match error.reason() {
        ImageFailure::DiskFull => FailureReason::DiskFull,
        ImageFailure::Unsafe | ImageFailure::UnsupportedPlatform => FailureReason::StepFailed,
        ImageFailure::Pull
        | ImageFailure::BadReference
        | ImageFailure::Unauthorized
        | ImageFailure::NotFound
        | ImageFailure::ForbiddenAddress => return failures::internal(error),
    };
    Failure::new(reason, domain::causes::chain(error)).in_phase(FailurePhase::BuildStep)
}
