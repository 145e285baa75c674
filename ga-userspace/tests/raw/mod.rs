//! Endpoints that write down what they get, and HTTP/2 frame by frame.
#![allow(dead_code, unreachable_pub, reason = "not every test uses all of it")]

pub mod h2;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use super::lab::{Endpoint, Lab, field, read_chunked, read_head};

/// A request as an endpoint got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: String,
    /// Behind the head, chunks and trailers with it.
    pub rest: String,
}

/// Reads, and writes down what it read.
struct Noted<'s>(&'s mut TcpStream, Vec<u8>);

impl Read for Noted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

/// An endpoint that writes down every request, and the connections they came by.
#[derive(Clone, Default)]
pub struct Witness {
    seen: Arc<Mutex<Vec<Seen>>>,
    accepted: Arc<AtomicUsize>,
}

impl Witness {
    pub fn endpoint(&self) -> Endpoint {
        let witness = self.clone();
        Endpoint::new(2, move |stream| witness.serve(stream))
    }

    /// Answers every request with its path.
    pub fn serve(&self, mut stream: TcpStream) {
        self.accepted.fetch_add(1, SeqCst);
        while let Some(head) = read_head(&mut stream) {
            let mut noted = Noted(&mut stream, Vec::new());
            let body = if field(&head, "transfer-encoding").is_some() {
                read_chunked(&mut noted)
            } else {
                let mut body = vec![0; field(&head, "content-length").map_or(0, |length| length.parse().unwrap())];
                noted.read_exact(&mut body).unwrap();
                body
            };
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let rest = String::from_utf8(noted.1).unwrap();
            self.seen.lock().unwrap().push(Seen { head, body: String::from_utf8(body).unwrap(), rest });
            if write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).is_err() {
                return;
            }
        }
    }

    /// What came since it was asked last.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

/// Another client's request gets its own answer.
pub fn somebody_else(lab: &Lab, path: &str) {
    let (head, body) = lab.client().ask(&format!("GET {path} HTTP/1.1\r\nHost: b.example\r\n\r\n"));
    assert_eq!((&head[9..12], &*body), ("200", path));
}
