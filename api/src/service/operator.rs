//! What operators do: keys, and finding the artifact of a template. The same whether it is asked
//! through the running service or done on its data while it does not run.

use commands::ids::IdSource;
use commands::{DispatchError, Dispatcher, Meta};
use domain::ids::{ArtifactId, InvalidId, KeyId};
use domain::keys::{Command, Key, Rejection};
use domain::name::{Owner, TemplateRef};
use domain::recorded::Actor;
use projections::Views;
use projections::store::StoreError;

use super::keys::{KeyText, NoEntropy};
use crate::wire::admin::{CreatedKey, KeyLine, NewKey, ResolvedTemplate};

/// The longest label of a key.
const LABEL_BYTES_MAX: usize = 200;

/// Why an operator's command was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The owner, key or reference is none.
    #[error(transparent)]
    Invalid(#[from] InvalidId),
    /// The label is too long, or would break lines.
    #[error("a label has at most {LABEL_BYTES_MAX} bytes and no control characters")]
    Label,
    /// There is no such key.
    #[error("there is no key `{0}`")]
    UnknownKey(KeyId),
    /// The reference means nothing that is ready.
    #[error("`{reference}` means no finished template of the owner `{owner}`{hint}")]
    UnknownTemplate {
        /// As it was given.
        reference: String,
        /// For whom it was looked up.
        owner: Owner,
        /// What there is instead.
        hint: String,
    },
    /// No random bytes.
    #[error("cannot make a key")]
    Entropy(#[from] NoEntropy),
    /// The keys cannot be read.
    #[error("cannot read the keys")]
    Load(#[source] DispatchError<std::convert::Infallible>),
    /// The change cannot be recorded.
    #[error("cannot record the change")]
    Record(#[source] DispatchError<Rejection>),
    /// The views cannot be read.
    #[error("cannot read the views")]
    Views(#[from] StoreError),
}

/// The keys, without their texts.
///
/// # Errors
/// [`OperatorError::Load`].
pub async fn list_keys(dispatcher: &Dispatcher) -> Result<Vec<KeyLine>, OperatorError> {
    let (keys, _) = dispatcher.load_keys().await.map_err(OperatorError::Load)?;
    Ok(keys.iter().map(line).collect())
}

/// Makes a key.
///
/// # Errors
/// [`OperatorError`].
pub async fn create_key(
    dispatcher: &Dispatcher,
    ids: &IdSource,
    new: NewKey,
) -> Result<CreatedKey, OperatorError> {
    let owner: Owner = new.owner.parse()?;
    if new.label.len() > LABEL_BYTES_MAX || new.label.contains(char::is_control) {
        return Err(OperatorError::Label);
    }
    let text = KeyText::generate()?;
    let key = Key {
        id: ids.new_key_id(),
        owner,
        label: new.label,
        hash: text.hash(),
    };
    let line = line(&key);
    dispatcher
        .keys(meta(ids), Command::Create(key))
        .await
        .map_err(OperatorError::Record)?;
    Ok(CreatedKey {
        line,
        key: text.reveal().to_owned(),
    })
}

/// Makes a key worthless.
///
/// # Errors
/// [`OperatorError::UnknownKey`] or [`OperatorError::Record`].
pub async fn revoke_key(
    dispatcher: &Dispatcher,
    ids: &IdSource,
    id: &str,
) -> Result<(), OperatorError> {
    let id: KeyId = id.parse()?;
    let done = dispatcher.keys(meta(ids), Command::Revoke(id)).await;
    match done {
        Ok(_) => Ok(()),
        Err(DispatchError::Rejected(Rejection::Unknown(id))) => Err(OperatorError::UnknownKey(id)),
        Err(err) => Err(OperatorError::Record(err)),
    }
}

/// What `reference` means to `owner`.
///
/// # Errors
/// [`OperatorError::UnknownTemplate`], with the tags that there are.
pub fn resolve(
    views: &Views,
    owner: &str,
    reference: &str,
) -> Result<ResolvedTemplate, OperatorError> {
    let owner: Owner = owner.parse()?;
    let parsed: TemplateRef = reference.parse()?;
    let found = views.resolve(&owner, &parsed)?;
    let artifact =
        |build: &projections::builds::BuildRow| -> Option<ArtifactId> { build.artifact.clone() };
    if let Some(found) = &found
        && let Some(artifact) = artifact(&found.build)
    {
        let (template, build) = (&found.template, &found.build);
        return Ok(ResolvedTemplate {
            template_id: template.id.to_string(),
            build_id: build.build_id.to_string(),
            canonical_ref: format!("{}/{}", template.namespace, template.name),
            artifact_id: artifact.to_string(),
        });
    }
    let tags: Vec<String> = views
        .find(&owner, &parsed)?
        .map(|row| row.tags.keys().map(ToString::to_string).collect())
        .unwrap_or_default();
    let hint = if tags.is_empty() {
        String::new()
    } else {
        format!("; the template has the tags {}", tags.join(", "))
    };
    Err(OperatorError::UnknownTemplate {
        reference: reference.to_owned(),
        owner,
        hint,
    })
}

fn line(key: &Key) -> KeyLine {
    KeyLine {
        id: key.id.to_string(),
        owner: key.owner.to_string(),
        label: key.label.clone(),
    }
}

fn meta(ids: &IdSource) -> Meta {
    Meta {
        command_id: ids.new_command_id(),
        actor: Actor::Operator,
    }
}
