//! The service over real HTTP, without a worker: the tests report outcomes in its place.

mod bases;
mod blobs;
mod builds;
mod cache;
mod captured;
mod claims;
mod dockerfiles;
mod keys;
mod metrics;
mod names;
mod public;
mod quotas;
mod races;
mod retention;
mod shapes;
mod streams;
mod support;
mod tags;
mod templates;
