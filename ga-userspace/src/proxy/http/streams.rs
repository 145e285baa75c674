//! The streams of a connection of HTTP/2: each is a task, and ends when the client takes nothing of its answer for too long.
//!
//! The library asks for more of an answer only when the client has room for it. So a stream whose answer gave something, and was not
//! asked for more since, waits for its client: the window is closed, or opened by so little that nothing is gained.

use std::{future::poll_fn, pin::pin, rc::Rc, task::Poll};

use hyper::rt::Executor;

use super::{client::Client, timer::Timer};

/// Whom a stream waits for, as its answer saw it when it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// It was not asked.
    #[default]
    Unknown,
    /// The client: it is to take what it was given.
    Client,
    /// The endpoint: there is nothing to give.
    Endpoint,
}

/// Runs the streams of a connection, on its own thread.
#[derive(Clone, Debug)]
pub(super) struct Streams(pub(super) Rc<Client>);

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(run(Rc::clone(&self.0), future));
    }
}

/// A stream's task. Dropping it before its end resets the stream.
async fn run(client: Rc<Client>, stream: impl Future) {
    let timer = Timer::default();
    {
        let mut stream = pin!(stream);
        poll_fn(|cx| {
            // One thread polls one stream after the other: what is noted meanwhile is this one's.
            client.turn.set(Turn::Unknown);
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            match client.turn.get() {
                Turn::Unknown => {}
                Turn::Client => {
                    timer.move_on();
                    timer.stall(client.timeouts().write);
                }
                Turn::Endpoint => timer.move_on(),
            }
            let is_late = timer.poll(cx).is_ready();
            client.is_late.set(is_late);
            if is_late { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    client.is_late.set(false);
}
