//! The service over real HTTP, without a worker: the tests report outcomes in its place.

mod bases;
mod blobs;
mod builds;
mod cache;
mod create;
mod history;
mod inspect;
mod keys;
mod shapes;
mod streams;
mod support;
