//! Every bound of the worker, with its unit; all of them can be configured.
