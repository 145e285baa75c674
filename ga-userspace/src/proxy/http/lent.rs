//! A request's body in the hands of a library: it can be taken back, whatever the library still has of it.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use thiserror::Error;

use super::body::FromClient;

/// A body that is lent.
#[derive(Debug)]
struct Loan {
    /// None when it was taken back.
    body: RefCell<Option<FromClient>>,
    /// Something of it was sent, or its end.
    is_begun: Cell<bool>,
    /// Who waits for more of it.
    waker: RefCell<Option<Waker>>,
}

/// What the library has of a body; none of one without bytes.
#[derive(Debug)]
pub(in crate::proxy) struct Lent(Option<Rc<Loan>>);

/// What the lender has of it. It ends the stream that is sent when it is dropped before that has ended.
#[derive(Debug)]
pub(super) struct Lender(Option<Rc<Loan>>);

/// The client's body ended too early, or nobody wants the rest of it to be sent: the stream is cancelled (RFC 9113 §7).
#[derive(Debug, Error)]
#[error("the request is not sent to its end")]
pub(in crate::proxy) struct Withdrawn(#[source] h2::Error);

/// Lends a body; one without bytes comes back at once.
pub(super) fn lend(body: FromClient) -> (Lent, Lender, Option<FromClient>) {
    if body.is_end_stream() {
        return (Lent(None), Lender(None), Some(body));
    }
    let loan = Rc::new(Loan { body: RefCell::new(Some(body)), is_begun: Cell::new(false), waker: RefCell::default() });
    (Lent(Some(Rc::clone(&loan))), Lender(Some(loan)), None)
}

impl Lender {
    /// The body, if nothing of it was sent.
    pub(super) fn take_back(&self) -> Option<FromClient> {
        let loan = self.0.as_ref()?;
        let body = loan.body.take();
        if let Some(waker) = loan.waker.take() {
            waker.wake();
        }
        body.filter(|_| !loan.is_begun.get())
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        drop(self.take_back());
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let Some(loan) = &self.0 else { return Poll::Ready(None) };
        let mut body = loan.body.borrow_mut();
        let polled = body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx).map(Some));
        match polled {
            Poll::Ready(Some(frame)) => {
                loan.is_begun.set(true);
                Poll::Ready(frame.map(|frame| frame.map_err(|_| Withdrawn(h2::Reason::CANCEL.into()))))
            }
            Poll::Ready(None) => Poll::Ready(Some(Err(Withdrawn(h2::Reason::CANCEL.into())))),
            Poll::Pending => {
                *loan.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // One that was taken back has no end.
        self.0.as_ref().is_none_or(|loan| loan.body.borrow().as_ref().is_some_and(Body::is_end_stream))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some(loan) => loan.body.borrow().as_ref().map_or_else(SizeHint::default, Body::size_hint),
        }
    }
}
