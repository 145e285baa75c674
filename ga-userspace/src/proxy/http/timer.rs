//! One timer for everything that a connection or a request may wait for, so that each wait costs a comparison and not a timer.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The first byte of a connection, or of the next request on it.
    Idle,
    /// The same, for so long only that it is not worth letting go of everything.
    Park,
    /// The rest of a request's head.
    Head,
    /// More of a request's body.
    Body,
    /// That the endpoint takes more of the request.
    Send,
    /// The first byte of the answer.
    Answer,
    /// More of the answer.
    Rest,
    /// That the client takes more of the answer.
    Write,
    /// That a connection which was told to end does.
    End,
}

/// Tells when a wait has been too long.
#[derive(Debug, Default)]
pub(super) struct Timer {
    until: Cell<Option<(Instant, Wait)>>,
    /// When the client must have taken something.
    stalled: Cell<Option<Instant>>,
    sleep: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Timer {
    /// From now on `wait` is waited for, and nothing else.
    pub(super) fn arm(&self, wait: Wait, patience: Duration) {
        self.until.set(Some((Instant::now() + patience, wait)));
    }

    /// Nothing is waited for.
    pub(super) fn disarm(&self) {
        self.until.set(None);
    }

    /// What is waited for.
    pub(super) fn waits_for(&self) -> Option<Wait> {
        self.until.get().map(|(_, wait)| wait)
    }

    /// Whether the client took nothing when it was asked last.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.get().is_some()
    }

    /// The client takes nothing.
    pub(super) fn stall(&self, patience: Duration) {
        if self.stalled.get().is_none() {
            self.stalled.set(Some(Instant::now() + patience));
        }
    }

    /// The client took something.
    pub(super) fn move_on(&self) {
        self.stalled.set(None);
    }

    /// Ready with what was waited for too long.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Wait> {
        let stalled = self.stalled.get().map(|at| (at, Wait::Write));
        let earliest = [self.until.get(), stalled].into_iter().flatten().min_by_key(|(at, _)| *at);
        let Some((at, wait)) = earliest else { return Poll::Pending };
        let mut sleep = self.sleep.borrow_mut();
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        // One that wakes too early is set again then: what was armed since is later nearly always.
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(wait);
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn the_earliest_wait_ends_first_and_what_was_armed_anew_ends_when_it_says() {
        let timer = Timer::default();
        timer.arm(Wait::Idle, Duration::from_millis(5));
        timer.arm(Wait::Answer, Duration::from_millis(60));
        let begun = Instant::now();
        assert_eq!(poll_fn(|cx| timer.poll(cx)).await, Wait::Answer);
        assert!(begun.elapsed() >= Duration::from_millis(60));
        timer.arm(Wait::Answer, Duration::from_secs(60));
        timer.stall(Duration::from_millis(5));
        assert_eq!(poll_fn(|cx| timer.poll(cx)).await, Wait::Write);
    }
}
