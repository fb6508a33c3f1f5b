//! Why a build failed, from what `buildctl` says.
