//! The guest agent: the first process of every machine.
//!
//! It runs from the initial file system: it loads the drivers, mounts the disk as `/`, and then
//! serves the host over a virtio port until the machine ends. Start reading in `agent::serve`.

mod agent;

fn main() {
    let failure = agent::run();
    // The console is the only place left to tell; the host keeps its last lines.
    agent::sys::say(&format!("nullspace-guest: {failure}"));
    agent::sys::restart();
}
