//! A request to an endpoint that is spoken to with HTTP/2.

use std::{future::poll_fn, pin::pin, task::Poll};

use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header};
use hyper::body::Incoming;

use super::{
    super::{
        counts::Reason,
        upstream::{Head, Place, strip},
    },
    body::{FromClient, Progress},
    served::Served,
};

/// Why there is no answer, and the body when the request did not leave.
pub(super) struct Unanswered {
    pub(super) reason: Reason,
    pub(super) body: Option<FromClient>,
}

/// Sends a request and waits for its answer's head.
pub(super) async fn ask(
    place: &mut Place,
    head: Head<'_>,
    body: FromClient,
    progress: &Progress,
    served: &Served,
) -> Result<Response<Incoming>, Unanswered> {
    let request = match request(head, body) {
        Ok(request) => request,
        Err(body) => return Err(Unanswered { reason: Reason::BadRequest, body: Some(body) }),
    };
    let mut sent = pin!(place.sender().try_send_request(request));
    poll_fn(|cx| {
        if let Poll::Ready(answered) = sent.as_mut().poll(cx) {
            return Poll::Ready(answered.map_err(|mut error| {
                let body = error.take_message().map(Request::into_body);
                // A body that ends too early is the client's fault.
                let reason = if progress.failed.get() { Reason::ClientClosed } else { Reason::Reset };
                Unanswered { reason, body }
            }));
        }
        progress.poll_late(progress.ended.get(), served, cx).map(|reason| Err(Unanswered { reason, body: None }))
    })
    .await
    .map(|mut response| {
        strip(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        response
    })
}

/// The request as HTTP/2 has it (RFC 9113 §8.3.1). The body comes back when its target is none.
fn request(head: Head<'_>, body: FromClient) -> Result<Request<FromClient>, FromClient> {
    let uri = Uri::builder().scheme("https").authority(head.host).path_and_query(head.target).build();
    let Ok(uri) = uri else { return Err(body) };
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
    Ok(request)
}
