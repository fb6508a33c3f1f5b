//! What `buildctl` is asked for: its command line and environment, the files that it reads.

mod credentials;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretSlice};

pub use credentials::RegistryLogin;
pub use policy::ImagePolicy;

use crate::limits::BuildkitLimits;
use policy::Policy;

/// One build, as BuildKit is to do it.
#[derive(Debug)]
pub struct Invocation {
    /// The folder with the context's files.
    pub context: PathBuf,
    /// The folder that the Dockerfile's name starts from.
    pub dockerfile_dir: PathBuf,
    /// The Dockerfile's name: a path in that folder, like `docker/My.Dockerfile`.
    pub dockerfile_name: String,
    /// Build arguments. Names that begin with `BUILDKIT_` are refused: they steer the frontend.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; the last one if there is none.
    pub target: Option<String>,
    /// Whether what earlier builds left is not to be used.
    pub no_cache: bool,
    /// The stages of the Dockerfile in order, with their names, for the numbers of the steps.
    pub stages: Vec<Option<String>>,
    /// What the steps reach.
    pub network: Network,
    /// The images that may be used.
    pub images: ImagePolicy,
    /// Whose caches these are: no cache mount and no result of a step is shared with another namespace.
    /// 1 to 63 letters, digits and hyphens, none at the ends. Steps see it as the name of their host.
    pub cache_namespace: String,
    /// Values of secrets, by their ids. Wiped once they are handed over.
    pub secrets: Vec<(String, SecretSlice<u8>)>,
    /// Logins for registries. Wiped once they are handed over.
    pub registries: Vec<RegistryLogin>,
    /// Where the OCI layout is put: a folder that does not exist yet, in one that does.
    pub output: PathBuf,
}

/// What the steps of a build reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// What the daemon's configuration gives them.
    Default,
    /// Nothing.
    None,
}

/// An invocation cannot be handed to `buildctl`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInvocation {
    /// A build argument's name is empty, or would be cut at another place.
    #[error("`{name}` cannot be the name of a build argument")]
    BuildArgName {
        /// The name.
        name: String,
    },
    /// A build argument steers the frontend.
    #[error("the build argument `{name}` is reserved: names must not begin with BUILDKIT_")]
    ReservedBuildArg {
        /// The name.
        name: String,
    },
    /// The Dockerfile's name leads out of its folder, or nowhere.
    #[error("`{name}` is not a path in the Dockerfile's folder")]
    DockerfileName {
        /// The name.
        name: String,
    },
    /// A secret's id is empty or has control characters.
    #[error("`{id}` cannot be the id of a secret")]
    SecretId {
        /// The id.
        id: String,
    },
    /// Two secrets have one id.
    #[error("there are two secrets with the id `{id}`")]
    SecretTwice {
        /// The id.
        id: String,
    },
    /// A secret is larger than BuildKit takes.
    #[error("the secret `{id}` has more than {bytes_max} bytes")]
    SecretTooLarge {
        /// Its id.
        id: String,
        /// The bound.
        bytes_max: usize,
    },
    /// A registry has no name, two logins, or a user that a login cannot have.
    #[error("the login for the registry `{host}` cannot be used")]
    Registry {
        /// The registry.
        host: String,
    },
    /// Caches belong to nobody, or to one whose name cannot be that of a host.
    #[error("`{name}` cannot be a namespace of caches")]
    CacheNamespace {
        /// The namespace.
        name: String,
    },
    /// The kernel takes no such argument.
    #[error("{what} has a zero byte or more than {TEXT_BYTES_MAX} bytes")]
    Text {
        /// What it is.
        what: String,
    },
}

/// The longest text that fits into an argument of a program, in bytes: the kernel's bound for one, less
/// its final zero and what we put before the text.
const TEXT_BYTES_MAX: usize = 128 * 1024 - 64;

/// The longest part of a host's name, in bytes.
const HOST_LABEL_BYTES_MAX: usize = 63;

/// The prefix of build arguments that the frontend takes for itself.
const RESERVED_PREFIX: &str = "BUILDKIT_";

/// The frontend. It is the one that is built into the daemon, whatever `# syntax=` says: that line only
/// counts where no command line is given.
const FRONTEND: &str = "dockerfile.v0";

/// The option by which a build is found again among the daemon's records. The frontend passes over
/// options that it does not know, and they are no part of any cache key.
pub(crate) const MARK: &str = "nullspace.invocation";

/// The file with the source policy.
const POLICY: &str = "policy.json";
/// The file with the logins, by the name that Docker's client gives it.
const CONFIG: &str = "config.json";

impl Invocation {
    /// Whether it can be handed to `buildctl` as it is.
    pub(crate) fn check(&self, limits: &BuildkitLimits) -> Result<(), InvalidInvocation> {
        self.check_build_args()?;
        let mut components = Path::new(&self.dockerfile_name).components();
        let inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
        if self.dockerfile_name.is_empty() || !components.all(inside) {
            let name = self.dockerfile_name.clone();
            return Err(InvalidInvocation::DockerfileName { name });
        }
        if !is_host_label(&self.cache_namespace) {
            let name = self.cache_namespace.clone();
            return Err(InvalidInvocation::CacheNamespace { name });
        }
        check_text(&self.dockerfile_name, || {
            "the name of the Dockerfile".into()
        })?;
        if let Some(target) = &self.target {
            check_text(target, || "the target".into())?;
        }
        self.check_secrets(limits.secret_bytes_max)?;
        self.check_registries()
    }

    fn check_build_args(&self) -> Result<(), InvalidInvocation> {
        for (name, value) in &self.build_args {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(InvalidInvocation::BuildArgName { name: name.clone() });
            }
            if name.starts_with(RESERVED_PREFIX) {
                return Err(InvalidInvocation::ReservedBuildArg { name: name.clone() });
            }
            let what = || format!("the build argument `{name}`");
            check_text(value, what)?;
            if name.len() + value.len() > TEXT_BYTES_MAX {
                return Err(InvalidInvocation::Text { what: what() });
            }
        }
        Ok(())
    }

    fn check_secrets(&self, bytes_max: usize) -> Result<(), InvalidInvocation> {
        let mut ids = BTreeSet::new();
        for (id, value) in &self.secrets {
            let id = || id.clone();
            if id().is_empty() || id().len() > TEXT_BYTES_MAX || id().contains(char::is_control) {
                return Err(InvalidInvocation::SecretId { id: id() });
            }
            if value.expose_secret().len() > bytes_max {
                return Err(InvalidInvocation::SecretTooLarge {
                    id: id(),
                    bytes_max,
                });
            }
            if !ids.insert(id()) {
                return Err(InvalidInvocation::SecretTwice { id: id() });
            }
        }
        Ok(())
    }

    fn check_registries(&self) -> Result<(), InvalidInvocation> {
        let mut keys = BTreeSet::new();
        for login in &self.registries {
            // The user ends at the first colon.
            let usable = !login.host.is_empty() && !login.user.contains(':');
            if !usable || !keys.insert(login.key()) {
                let host = login.host.clone();
                return Err(InvalidInvocation::Registry { host });
            }
        }
        Ok(())
    }

    /// The arguments that follow those that say where the daemon is. `private` is the folder with
    /// [`Self::private_files`], `mark` the text by which the build is found again.
    ///
    /// `--allow` is not among them, and never will be: no build gets the host's network or a
    /// container without bounds.
    pub(crate) fn arguments(&self, private: &Path, mark: &str) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut pair = |flag: &str, value: OsString| args.extend([flag.into(), value]);
        pair("--local", joined("context=", &self.context));
        pair("--local", joined("dockerfile=", &self.dockerfile_dir));
        for option in self.options(mark) {
            pair("--opt", option.into());
        }
        pair("--source-policy-file", private.join(POLICY).into());
        for (index, (id, _)) in self.secrets.iter().enumerate() {
            let source = joined("src=", private.join(index.to_string()));
            pair("--secret", csv([joined("id=", id), source]));
        }
        let output = [
            "type=oci".into(),
            "tar=false".into(),
            joined("dest=", &self.output),
            "compression=uncompressed".into(),
            // Whatever another build has compressed is not taken instead.
            "force-compression=true".into(),
        ];
        pair("--output", csv(output));
        if self.no_cache {
            args.push("--no-cache".into());
        }
        let build = ["build", "--progress=rawjson", "--frontend", FRONTEND];
        build.map(OsString::from).into_iter().chain(args).collect()
    }

    fn options(&self, mark: &str) -> Vec<String> {
        let mut options = vec![
            format!("cmdline={FRONTEND}"),
            format!("filename={}", self.dockerfile_name),
            format!("build-arg:BUILDKIT_CACHE_MOUNT_NS={}", self.cache_namespace),
            // What a step made of a secret or of a cache mount is in its result, and neither is part
            // of the key that BuildKit files the result under. The name of the host is.
            format!("hostname={}", self.cache_namespace),
            format!("{MARK}={mark}"),
        ];
        // Always with `=`: a bare name would be looked up in buildctl's environment.
        let build_args = self.build_args.iter();
        options.extend(build_args.map(|(name, value)| format!("build-arg:{name}={value}")));
        options.extend(self.target.iter().map(|target| format!("target={target}")));
        match self.network {
            Network::Default => {}
            Network::None => options.push("force-network-mode=none".to_owned()),
        }
        options
    }

    /// The variables of `buildctl`'s environment. There is no program in its `PATH`, so that no helper
    /// for credentials is ever run, whatever the host has installed.
    pub(crate) fn environment(private: &Path) -> [(&'static str, &Path); 3] {
        [
            ("PATH", private),
            ("HOME", private),
            ("DOCKER_CONFIG", private),
        ]
    }

    /// How much room [`Self::write_private_files`] needs, in bytes, file by file.
    pub(crate) fn private_bytes(&self) -> impl Iterator<Item = usize> {
        self.secrets
            .iter()
            .map(|(_, value)| value.expose_secret().len())
    }

    /// Writes what only `buildctl` is to read: the policy, the logins, and each secret in a file that
    /// is named by its place, because an id can be any text. `create` makes an empty file.
    pub(crate) fn write_private_files<F: Write>(
        &self,
        mut create: impl FnMut(&str) -> io::Result<F>,
    ) -> io::Result<()> {
        let policy = Policy::new(&self.images, self.network);
        serde_json::to_writer(create(POLICY)?, &policy)?;
        credentials::write_config(&self.registries, &mut create(CONFIG)?)?;
        for (index, (_, value)) in self.secrets.iter().enumerate() {
            create(&index.to_string())?.write_all(value.expose_secret())?;
        }
        Ok(())
    }
}

/// Whether it can be the name of a host, without a domain.
fn is_host_label(text: &str) -> bool {
    (1..=HOST_LABEL_BYTES_MAX).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn check_text(text: &str, what: impl Fn() -> String) -> Result<(), InvalidInvocation> {
    if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        return Err(InvalidInvocation::Text { what: what() });
    }
    Ok(())
}

fn joined(prefix: &str, rest: impl AsRef<OsStr>) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(rest);
    text
}

/// One line of comma-separated values, each in quotes: no comma or quote in a path or an id ends it.
fn csv<const N: usize>(fields: [OsString; N]) -> OsString {
    let mut line = Vec::new();
    for field in fields {
        if !line.is_empty() {
            line.push(b',');
        }
        line.push(b'"');
        for &byte in field.as_bytes() {
            if byte == b'"' {
                line.push(b'"');
            }
            line.push(byte);
        }
        line.push(b'"');
    }
    OsString::from_vec(line)
}

#[cfg(test)]
mod tests;
