//! What a reference means to a caller: contract/behaviour.md section 9.

use std::collections::BTreeSet;

use domain::ids::{BuildId, TemplateId};
use domain::name::{Namespace, Owner, Qualifier, Tag, TemplateRef};
use domain::template::Visibility;

use super::{TemplateRow, name_key, owned_key, public_in_key, public_key, row_key};
use crate::builds::BuildRow;
use crate::store::{Scan, StoreError};
use crate::views::Views;

/// What a reference means: a template, and one of its builds that is ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The template.
    pub template: TemplateRow,
    /// The build.
    pub build: BuildRow,
}

impl TemplateRow {
    /// Whether `caller` may know of the template: its owner always, others once it is public and
    /// there is something to use; nobody after it was deleted.
    pub fn visible_to(&self, caller: &Owner) -> bool {
        self.deleted_at.is_none()
            && (self.owner == *caller
                || (self.visibility == Visibility::Public && self.ready.is_some()))
    }
}

impl Views {
    /// The template with this id, also one that is gone or not ready. Who may see it, the caller
    /// must check.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn template(&self, id: &TemplateId) -> Result<Option<TemplateRow>, StoreError> {
        self.get(&row_key(id))
    }

    /// The template that `reference` names to `caller`, whatever its tags, and ready or not: for
    /// what is done to a template as a whole. A bare name is one in the caller's namespace; a name
    /// that the template had before still means it.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn find(
        &self,
        caller: &Owner,
        reference: &TemplateRef,
    ) -> Result<Option<TemplateRow>, StoreError> {
        let id = match reference {
            TemplateRef::Id(id) => Some(id.clone()),
            TemplateRef::Named {
                namespace, name, ..
            } => {
                let namespace = namespace.clone().unwrap_or_else(|| Namespace::of(caller));
                self.get(&name_key(&namespace, name))?
            }
        };
        let Some(id) = id else { return Ok(None) };
        let row = self.template(&id)?;
        Ok(row.filter(|row| row.visible_to(caller)))
    }

    /// The template and the ready build that `reference` means to `caller`.
    ///
    /// Without a tag, `default` is meant, and `latest` means `default` if nothing has that tag. An
    /// id has no place for a tag: it means `default` too, or else the latest build that is ready.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn resolve(
        &self,
        caller: &Owner,
        reference: &TemplateRef,
    ) -> Result<Option<Resolved>, StoreError> {
        let Some(template) = self.find(caller, reference)? else {
            return Ok(None);
        };
        let Some(build_id) = build_meant(&template, reference) else {
            return Ok(None);
        };
        let build = self.build(&build_id)?;
        Ok(build
            .filter(|build| build.template_id == template.id && build.is_usable())
            .map(|build| Resolved { template, build }))
    }

    /// What `reference` means as a base of another template. The client writes a caller's own
    /// `name:tag` as `nullspace/name:tag` (contract/behaviour.md section 7), so what the system's
    /// namespace does not have is looked for in the caller's.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn resolve_base(
        &self,
        caller: &Owner,
        reference: &TemplateRef,
    ) -> Result<Option<Resolved>, StoreError> {
        if let Some(found) = self.resolve(caller, reference)? {
            return Ok(Some(found));
        }
        match in_own_namespace(reference) {
            Some(own) => self.resolve(caller, &own),
            None => Ok(None),
        }
    }

    /// The template that `reference` names as a base, whatever its tags, and ready or not: what an
    /// answer can tell about when [`Views::resolve_base`] finds nothing.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn find_base(
        &self,
        caller: &Owner,
        reference: &TemplateRef,
    ) -> Result<Option<TemplateRow>, StoreError> {
        if let Some(found) = self.find(caller, reference)? {
            return Ok(Some(found));
        }
        match in_own_namespace(reference) {
            Some(own) => self.find(caller, &own),
            None => Ok(None),
        }
    }

    /// The templates that `caller` sees, its own and public ones, by namespace and name. Only those
    /// with a build that is ready.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn list(&self, caller: &Owner) -> Result<Vec<TemplateRow>, StoreError> {
        let mut ids: BTreeSet<TemplateId> = BTreeSet::new();
        for index in [owned_key(caller), public_key()] {
            ids.extend(self.values::<TemplateId>(&Scan::below(&index, usize::MAX))?);
        }
        let mut rows = Vec::with_capacity(ids.len());
        for id in &ids {
            // It may have been deleted, or made private, between two reads.
            rows.extend(
                self.template(id)?
                    .filter(|row| row.visible_to(caller) && row.ready.is_some()),
            );
        }
        rows.sort_by(|one, other| {
            (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
        });
        Ok(rows)
    }

    /// Whether a template that everybody sees lives in `namespace`.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn has_public(&self, namespace: &Namespace) -> Result<bool, StoreError> {
        let found = self.scan(&Scan::below(&public_in_key(namespace), 1))?;
        Ok(!found.is_empty())
    }
}

/// What a reference into the system's namespace means in the caller's own.
fn in_own_namespace(reference: &TemplateRef) -> Option<TemplateRef> {
    match reference {
        TemplateRef::Named {
            namespace: Some(namespace),
            name,
            qualifier,
        } if *namespace == Namespace::system() => Some(TemplateRef::Named {
            namespace: None,
            name: name.clone(),
            qualifier: qualifier.clone(),
        }),
        TemplateRef::Named { .. } | TemplateRef::Id(_) => None,
    }
}

fn build_meant(template: &TemplateRow, reference: &TemplateRef) -> Option<BuildId> {
    let tagged = |tag: &Tag| template.tags.get(tag).map(|row| row.build_id.clone());
    match reference {
        TemplateRef::Id(_) => tagged(&Tag::default_tag())
            .or_else(|| template.ready.as_ref().map(|ready| ready.build_id.clone())),
        TemplateRef::Named { qualifier, .. } => match qualifier {
            None => tagged(&Tag::default_tag()),
            Some(Qualifier::Tag(tag)) => tagged(tag).or_else(|| {
                (tag.as_str() == "latest")
                    .then(|| tagged(&Tag::default_tag()))
                    .flatten()
            }),
            Some(Qualifier::Build(build)) => Some(build.clone()),
        },
    }
}
