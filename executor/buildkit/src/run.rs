//! One build by `buildctl`, from the private folder to the outcome.
