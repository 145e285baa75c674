//! A client's connection of HTTP/3 from its handshake to its end, and each of its requests.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h3::{
    error::Code,
    server::{self, RequestResolver, RequestStream},
};
use http::{HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Body as _;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    super::{
        super::{Listener, Peer, Worker, counts::Reason},
        body::{Answer, Source},
        client::Client,
        request,
        timer::Wait,
    },
    body::Body,
    transport::{Accepted, Connection, Send, Stream, number},
};

/// How long requests that are on their way when the edge says that it ends may take to come.
const LATE: Duration = Duration::from_millis(500);

/// Serves a connection of an HTTPS listener until it ends.
pub(in crate::proxy) async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, connection: quinn::Connection, peer: Peer) {
    let limits = listener.file.http.as_ref().map(|http| http.limits).unwrap_or_default();
    let client = Client::new(worker, &listener, peer);
    drop(listener);
    client.timer.arm(Wait::Idle, client.timeouts().first_byte);
    let (transport, accepted) = Connection::new(connection.clone(), limits.head as u64);
    // Nothing of what it would send without meaning (RFC 9114 §7.2.8) is worth a packet.
    let mut builder = server::builder();
    builder.max_field_section_size(limits.head as u64).send_grease(false);
    let Ok(requests) = builder.build(transport).await else { return };
    run(&client, &connection, requests, &accepted, limits.resets).await;
    if accepted.is_flood.get() {
        count(&client, Reason::Flood);
    }
    connection.close(number(Code::H3_NO_ERROR.value()), b"");
}

/// What happens to a connection.
enum Event {
    /// The client asks.
    Asked(Box<RequestResolver<Connection, Bytes>>),
    /// The edge stops.
    Drain,
    /// Requests that were on their way have come, or nothing was asked for too long.
    Last,
    /// A request has ended.
    Ended,
    /// The client has left, or nothing more is to come of it.
    Over,
}

async fn run(
    client: &Rc<Client>,
    connection: &quinn::Connection,
    mut requests: server::Connection<Connection, Bytes>,
    accepted: &Rc<Accepted>,
    resets: usize,
) {
    let mut drain = client.worker.drain();
    let mut drained = pin!(drain.wait_for(|leaving| leaving.has(&client.path)));
    let (mut is_watching, mut is_draining) = (true, false);
    let mut late: Option<Pin<Box<tokio::time::Sleep>>> = None;
    let ended = Rc::<Notify>::default();
    loop {
        let event = {
            let mut accept = pin!(requests.accept());
            let mut request_ended = pin!(ended.notified());
            poll_fn(|cx| {
                if is_watching && drained.as_mut().poll(cx).is_ready() {
                    is_watching = false;
                }
                if !is_draining && client.worker.is_draining(&client.path) {
                    return Poll::Ready(Event::Drain);
                }
                if request_ended.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Ended);
                }
                if let Poll::Ready(asked) = accept.as_mut().poll(cx) {
                    return Poll::Ready(asked.ok().flatten().map_or(Event::Over, |asked| Event::Asked(Box::new(asked))));
                }
                if late.as_mut().is_some_and(|late| late.as_mut().poll(cx).is_ready()) {
                    return Poll::Ready(Event::Last);
                }
                client.timer.poll(cx).map(|_| Event::Last)
            })
            .await
        };
        match event {
            Event::Asked(resolver) => {
                // What an accepted stream left there.
                let Some(stream) = accepted.take() else { continue };
                let (client, ended, accepted) = (Rc::clone(client), Rc::clone(&ended), Rc::clone(accepted));
                tokio::task::spawn_local(async move {
                    // Also when it ends by a panic.
                    let _ended = Ended(ended);
                    if one(client, *resolver, stream).await.is_some() { accepted.answered() } else { accepted.wasted(resets) }
                });
            }
            Event::Drain => {
                is_draining = true;
                // All that are on their way are still welcome (RFC 9114 §5.2).
                if requests.shutdown(usize::MAX).await.is_err() {
                    return;
                }
                late = Some(Box::pin(sleep(LATE)));
            }
            Event::Last => {
                (late, is_draining) = (None, true);
                client.timer.disarm();
                accepted.refuses.set(true);
                if requests.shutdown(1).await.is_err() {
                    return;
                }
            }
            Event::Ended => {}
            Event::Over => return,
        }
        if accepted.refuses.get() && client.active.get() == 0 {
            // What was sent last, the word that nothing more is served among it, is given time to arrive.
            let rest = connection.closed();
            drop(timeout(connection.rtt().saturating_mul(2).min(LATE), rest).await);
            return;
        }
    }
}

/// Says that a request has ended.
struct Ended(Rc<Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Serves a request; none when there was no whole head, or the client took the request back.
async fn one(client: Rc<Client>, resolver: RequestResolver<Connection, Bytes>, stream: Rc<Stream>) -> Option<()> {
    let timeouts = client.timeouts();
    // Until there is a request it is safe to send it again.
    let late = async {
        sleep(timeouts.head).await;
        stream.why.set(Some(Code::H3_REQUEST_REJECTED));
    };
    let resolved = tokio::select! {
        biased;
        resolved = resolver.resolve_request() => resolved,
        () = late => {
            count(&client, Reason::ClientHeadTimeout);
            return None;
        }
    };
    let (request, both) = match resolved {
        Ok(resolved) => resolved,
        Err(h3::error::StreamError::HeaderTooBig { .. }) => {
            count(&client, Reason::TooLarge);
            return Some(());
        }
        Err(error) => {
            tracing::debug!(listener = &*client.path, client = %client.peer.client, "request: {error}");
            count(&client, Reason::BadRequest);
            return None;
        }
    };
    let (send, receive) = both.split();
    // An answer that is not sent whole is never taken for one that was.
    stream.why.set(Some(Code::H3_INTERNAL_ERROR));
    let mut reply = Reply(send);
    let Ok(mut body) = Body::new(receive, Rc::clone(&stream), request.headers()) else {
        stream.why.set(Some(Code::H3_MESSAGE_ERROR));
        count(&client, Reason::BadRequest);
        return Some(());
    };
    let work = async {
        // Whether there is a body is known by its first byte or by the stream's end only, unless the head says so.
        let is_usual = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
        let begun = timeout(timeouts.body, body.begin(!is_usual && body.is_silent())).await;
        if begun.is_err() {
            return count(&client, Reason::ClientBodyTimeout);
        }
        let is_head = request.method() == Method::HEAD;
        let request = request.map(|()| Source::Http3(body));
        if let Ok(answer) = request::serve(Rc::clone(&client), request).await {
            reply.answer(answer.into_response(), is_head, timeouts.write, &client).await;
        }
    };
    tokio::select! {
        () = work => Some(()),
        // Nobody waits for the answer.
        () = stream.stopped() => None,
    }
}

fn count(client: &Client, reason: Reason) {
    if let Some(listener) = client.worker.listener(&client.path) {
        listener.counts.reasons.add(reason);
    }
}

/// An answer.
struct Reply(RequestStream<Send, Bytes>);

impl Reply {
    async fn answer(&mut self, answer: Response<Answer>, is_head: bool, patience: Duration, client: &Client) {
        let (mut parts, mut body) = answer.into_parts();
        let has_none = is_head || parts.status == StatusCode::NO_CONTENT || parts.status == StatusCode::NOT_MODIFIED;
        if let Some(length) = body.size_hint().exact().filter(|_| !has_none)
            && !parts.headers.contains_key(header::CONTENT_LENGTH)
        {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if !parts.headers.contains_key(header::DATE) {
            let mut date = BytesMut::new();
            client.worker.date(&mut date);
            if let Ok(date) = HeaderValue::from_maybe_shared(date.freeze()) {
                parts.headers.insert(header::DATE, date);
            }
        }
        let head = self.0.send_response(Response::from_parts(parts, ()));
        match timeout(patience, head).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return late(client, body),
        }
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { return };
            let sent = match frame.into_data() {
                Ok(_) if has_none => continue,
                Ok(data) => timeout(patience, self.0.send_data(data)).await,
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => timeout(patience, self.0.send_trailers(trailers)).await,
                    Err(_) => continue,
                },
            };
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return late(client, body),
            }
        }
        // Where that fails, the client is gone.
        drop(self.0.finish().await);
    }
}

/// The client takes nothing of its answer.
fn late(client: &Client, body: Answer) {
    client.is_late.set(true);
    drop(body);
    client.is_late.set(false);
}
