//! The service over real HTTP, without a worker: the tests report outcomes in its place.

mod bases;
mod blobs;
mod builds;
mod cache;
mod captured;
mod claims;
mod create;
mod dockerfiles;
mod history;
mod inspect;
mod keys;
mod metrics;
mod names;
mod promote;
mod public;
mod quotas;
mod races;
mod replay;
mod retention;
mod shapes;
mod streams;
mod support;
mod tags;
mod templates;
mod webhooks;
