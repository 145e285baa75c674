//! A request to an endpoint that is spoken to with HTTP/2.

use std::{error::Error, future::poll_fn, pin::pin, task::Poll};

use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header};
use hyper::body::Incoming;

use super::{
    super::{
        counts::Reason,
        upstream::{Head, Place, strip},
    },
    body::{FromClient, Progress},
    lent::{Lender, Lent, lend},
    served::Served,
};

/// Why there is no answer, and what is left to try it again with.
pub(super) struct Unanswered {
    pub(super) reason: Reason,
    pub(super) lost: Lost,
    /// The body when nothing of it was sent.
    pub(super) body: Option<FromClient>,
}

/// What became of a request that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It never left.
    Unsent,
    /// The endpoint ends the connection and says that it did not process the request (RFC 9113 §6.8), or did so before it was sent.
    Left,
    /// The endpoint says that it did not process it (RFC 9113 §8.7).
    Declined,
    /// The connection broke: nobody knows.
    Broken,
    /// The endpoint has it.
    Processed,
}

impl Lost {
    /// Nobody has acted on it.
    pub(super) fn is_harmless(self) -> bool {
        matches!(self, Self::Unsent | Self::Left | Self::Declined)
    }

    /// The endpoint is there, and did not want it.
    pub(super) fn is_declined(self) -> bool {
        matches!(self, Self::Left | Self::Declined)
    }
}

/// Sends a request and waits for its answer's head.
pub(super) async fn ask(
    place: &mut Place,
    head: Head<'_>,
    body: FromClient,
    progress: &Progress,
    served: &Served,
) -> Result<(Response<Incoming>, Lender), Unanswered> {
    let (body, lender, empty) = lend(body);
    let failed =
        |reason, lost, empty: Option<FromClient>| Unanswered { reason, lost, body: empty.or_else(|| lender.take_back()) };
    let Some(request) = request(head, body) else { return Err(failed(Reason::BadRequest, Lost::Unsent, empty)) };
    let answered = {
        let mut sent = pin!(place.sender().try_send_request(request));
        poll_fn(|cx| match sent.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(answered.map_err(|mut error| {
                let lost = if error.take_message().is_some() { Lost::Left } else { lost(error.error()) };
                // A body that ends too early is the client's fault.
                (if progress.failed.get() { Reason::ClientClosed } else { Reason::Reset }, lost)
            })),
            Poll::Pending => progress.poll_late(progress.ended.get(), served, cx).map(|reason| Err((reason, Lost::Processed))),
        })
        .await
    };
    let mut response = answered.map_err(|(reason, lost)| {
        if matches!(lost, Lost::Left | Lost::Broken) {
            place.end();
        }
        failed(reason, lost, empty)
    })?;
    strip(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    Ok((response, lender))
}

fn lost(error: &hyper::Error) -> Lost {
    match error.source().and_then(|source| source.downcast_ref::<h2::Error>()) {
        // Of those that were sent, only what is above the last that is named gets this.
        Some(error) if error.is_go_away() && error.is_remote() => Lost::Left,
        Some(error) if error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM) => Lost::Declined,
        Some(_) => Lost::Processed,
        None => Lost::Broken,
    }
}

/// The request as HTTP/2 has it (RFC 9113 §8.3.1); none when its target is none.
fn request(head: Head<'_>, body: Lent) -> Option<Request<Lent>> {
    let uri = Uri::builder().scheme("https").authority(head.host).path_and_query(head.target).build().ok()?;
    let mut headers: HeaderMap = head.headers.clone();
    let has_trailers = headers.get(header::TE).is_some_and(|value| value.as_bytes() == b"trailers");
    strip(&mut headers);
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    if has_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    for (name, value) in head.forwarded {
        headers.insert(name.clone(), value.clone());
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Some(request)
}
