//! A Dockerfile and what is passed to it. Its text is read by the build alone, except where
//! credentials have to find their images in it.
//!
//! The text is the Dockerfile, whatever the context lists at its path: the path says where it would
//! lie, and so which `<path>.dockerignore` belongs to it. The context stays as it is listed.

use std::collections::BTreeMap;

use domain::definition::Source;

use super::context::{ContextFile, Payload, relative_path};
use super::fields::Fields;
use crate::limits::Limits;

/// Names that change how BuildKit itself works: another frontend, another host name, caches of
/// others.
const RESERVED_PREFIX: &str = "BUILDKIT_";

pub(super) fn dockerfile(
    top: Fields<'_>,
    context: &[ContextFile],
    limits: &Limits,
) -> Option<Source> {
    let text = top.text("dockerfile", limits.dockerfile_bytes_max);
    let path = path(top, context, limits);
    let build_args = build_args(top, limits);
    let target = target(top, limits);
    Some(Source::Dockerfile {
        text: text?.to_owned(),
        path,
        build_args,
        target,
    })
}

/// Where the Dockerfile would lie in the context.
fn path(top: Fields<'_>, context: &[ContextFile], limits: &Limits) -> Option<String> {
    const KEY: &str = "dockerfile_path";
    if !top.has(KEY) {
        return None;
    }
    let path = relative_path(top, KEY, limits)?;
    for file in context {
        let is_dir = file.payload == Payload::Dir;
        let is_folder = if is_dir {
            file.path == path
        } else {
            is_below(&file.path, &path)
        };
        if is_folder {
            top.problem(KEY, "is a folder in build_context.files");
            break;
        }
        if !is_dir && is_below(&path, &file.path) {
            top.problem(KEY, "is below a file in build_context.files");
            break;
        }
    }
    Some(path)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// The values of the Dockerfile's `ARG`s: `build_args`, and `build_envs`, which the client sends
/// for Dockerfiles too. Both are seen by steps and by no machine, and that is what an `ARG` is; one
/// that the Dockerfile does not declare is ignored.
fn build_args(top: Fields<'_>, limits: &Limits) -> BTreeMap<String, String> {
    let mut args = named(top, "build_args", limits);
    let envs = named(top, "build_envs", limits);
    for (name, value) in envs {
        if args.contains_key(&name) {
            top.entry_problem("build_envs", &name, "is in build_args too");
        }
        args.insert(name, value);
    }
    args
}

fn named(top: Fields<'_>, key: &str, limits: &Limits) -> BTreeMap<String, String> {
    let values = top.env(key, limits);
    for name in values.keys() {
        if !is_arg_name(name) {
            let message = "is not a name of an ARG: a letter or `_`, then letters, digits and `_`";
            top.entry_problem(key, name, message);
        } else if name.starts_with(RESERVED_PREFIX) {
            let message = "names that begin with `BUILDKIT_` are BuildKit's own";
            top.entry_problem(key, name, message);
        }
    }
    values
}

fn is_arg_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn target(top: Fields<'_>, limits: &Limits) -> Option<String> {
    const KEY: &str = "build_target";
    let target = top.text(KEY, limits.text_bytes_max)?;
    let is_name = target.starts_with(|first: char| first.is_ascii_alphabetic())
        && target
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_name {
        top.problem(KEY, "must be the name of a stage");
    }
    Some(target.to_owned())
}
