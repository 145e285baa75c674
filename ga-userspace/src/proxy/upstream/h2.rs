//! HTTP/2 to an endpoint: a connection carries many requests at a time, so it has a task of its own.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::TokioIo;

use super::{
    super::{circuit::Held, counts::Reason, http::Lent},
    stream::Stream,
};

/// Requests at a time on one connection; the endpoint may allow fewer.
const STREAMS: usize = 100;

/// Connections to one endpoint.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Shared(RefCell<Vec<Connection>>);

#[derive(Debug)]
struct Connection {
    sender: http2::SendRequest<Lent>,
    name: String,
    state: Rc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Places that are taken.
    open: Cell<usize>,
    /// The endpoint takes nothing more on it.
    ended: Cell<bool>,
}

/// A place for one request on a connection, taken until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Place {
    sender: http2::SendRequest<Lent>,
    state: Rc<State>,
}

impl Shared {
    /// A place on a connection of that server name, if one is left.
    pub(in crate::proxy) fn place(&self, name: &str) -> Option<Place> {
        let mut connections = self.0.borrow_mut();
        connections.retain(Connection::is_open);
        let free = connections.iter().filter(|connection| connection.name == name && connection.state.open.get() < STREAMS);
        free.min_by_key(|connection| connection.state.open.get()).map(Connection::place)
    }

    /// Makes `stream` one of the connections, for which the group holds `held`, and takes a place on it.
    ///
    /// # Errors
    ///
    /// When the endpoint does not speak HTTP/2.
    pub(in crate::proxy) async fn add(&self, stream: Stream, name: &str, held: Held) -> Result<Place, Reason> {
        let mut builder = http2::Builder::new(Local);
        builder.initial_stream_window_size(256 * 1024).initial_connection_window_size(4 * 1024 * 1024);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| Reason::BadAnswer)?;
        // It ends when nobody can send on it any more, or when the endpoint ends it; what requests have of it says why.
        tokio::task::spawn_local(async move {
            let _held = held;
            drop(connection.await);
        });
        let connection = Connection { sender, name: name.to_owned(), state: Rc::default() };
        let place = connection.place();
        self.0.borrow_mut().push(connection);
        Ok(place)
    }

    /// Forgets connections that have ended, and all but one that nobody uses.
    pub(super) fn sweep(&self) {
        let mut idle = 0;
        self.0.borrow_mut().retain(|connection| {
            let is_idle = connection.state.open.get() == 0;
            idle += usize::from(is_idle);
            connection.is_open() && (!is_idle || idle == 1)
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.state.ended.get() && !self.sender.is_closed()
    }

    fn place(&self) -> Place {
        self.state.open.set(self.state.open.get() + 1);
        Place { sender: self.sender.clone(), state: Rc::clone(&self.state) }
    }
}

impl Place {
    /// What the request is sent with.
    pub(in crate::proxy) fn sender(&mut self) -> &mut http2::SendRequest<Lent> {
        &mut self.sender
    }

    /// Nobody takes another place on its connection. Those who have one keep it.
    pub(in crate::proxy) fn end(&self) {
        self.state.ended.set(true);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.open.set(self.state.open.get().saturating_sub(1));
    }
}

/// Streams of HTTP/2 stay on the connection's thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
