//! Programs that take turns, for tests of what may happen when several do something at once: each
//! goes on to its next [`pause`] when it is picked, and stops for good there if it crashes.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Turns that a program may take: one that takes more waits for something that never comes.
const TURNS_MAX: usize = 10_000;

/// A program under way.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Lets somebody else go first.
pub(crate) async fn pause() {
    let paused = Cell::new(false);
    poll_fn(|_| {
        if paused.replace(true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Lets a program take a turn; whether it is at its end.
pub(crate) fn goes_to_its_end(program: &mut Running<'_>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    program.as_mut().poll(&mut context).is_ready()
}

/// Lets a program go to its end alone.
pub(crate) fn finish<'a>(program: impl Future<Output = ()> + 'a) {
    let mut program: Running<'a> = Box::pin(program);
    let is_done = (0..TURNS_MAX).any(|_| goes_to_its_end(&mut program));
    assert!(is_done, "it waits for something that never comes");
}

/// Lets programs go to their ends in turns, and looks at the world after each round.
pub(crate) fn finish_all<E>(
    mut running: Vec<Running<'_>>,
    mut look: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    for _ in 0..TURNS_MAX {
        if running.is_empty() {
            return Ok(());
        }
        running.retain_mut(|program| !goes_to_its_end(program));
        look()?;
    }
    panic!("{} programs wait for each other", running.len());
}
