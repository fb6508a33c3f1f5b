//! From the lines of `buildctl --progress=rawjson` to events.
