//! What `buildctl` is asked for: its command line and environment, the files that it reads.
