//! Reads a Dockerfile without building it: what it needs and what of it means nothing here.
