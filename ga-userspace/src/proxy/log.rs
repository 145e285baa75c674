//! The access log: lines are made where a request ends, and written by a thread of their own, so that no request waits for a disk.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::counts::Count;
use crate::model::{AccessLog, LogFormat};

/// Pieces that may wait to be written; when there are more, lines are lost, and counted.
const WAITING: usize = 256;
/// As many bytes make a piece.
pub(super) const PIECE: usize = 16 * 1024;
/// How long a line waits for others at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// An access log.
#[derive(Debug)]
pub struct Log {
    file: AccessLog,
    pieces: SyncSender<Vec<u8>>,
    /// Lines that were lost because the disk is too slow, or could not be written.
    pub lost: Arc<Count>,
}

/// What is said of a request.
#[derive(Debug)]
pub(super) struct Line<'l> {
    pub(super) listener: &'l str,
    pub(super) id: u64,
    pub(super) client: std::net::SocketAddr,
    pub(super) method: &'l str,
    pub(super) host: &'l [u8],
    pub(super) target: &'l str,
    pub(super) version: &'static str,
    pub(super) agent: &'l [u8],
    pub(super) trace: &'l [u8],
    pub(super) status: u16,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) rule: Option<&'l str>,
    pub(super) group: Option<&'l str>,
    pub(super) endpoint: Option<std::net::SocketAddr>,
    pub(super) reused: bool,
    pub(super) retries: u32,
    /// Until the answer's first byte, when it came.
    pub(super) first: Option<Duration>,
    pub(super) total: Duration,
    pub(super) reason: Option<&'static str>,
}

impl Log {
    /// A log that is written to `file`, from the first line on; what is wrong with the file is said then.
    pub fn open(file: &AccessLog) -> Self {
        let (pieces, waiting) = sync_channel(WAITING);
        let lost = Arc::<Count>::default();
        let (path, count) = (file.path.clone(), Arc::clone(&lost));
        let writer = thread::Builder::new().name("ga-access-log".to_owned()).spawn(move || write(&path, &waiting, &count));
        if let Err(error) = writer {
            tracing::error!("the access log has no thread: {error}");
        }
        Self { file: file.clone(), pieces, lost }
    }

    /// What the file says of it.
    pub fn file(&self) -> &AccessLog {
        &self.file
    }

    /// Whether a request with that random number and that outcome is written.
    pub(super) fn takes(&self, random: u64, status: u16, failed: bool) -> bool {
        failed || status >= 500 || random % 100 < u64::from(self.file.sample)
    }

    /// Adds a line to `piece`.
    pub(super) fn add(&self, piece: &mut Vec<u8>, line: &Line<'_>) {
        let mut text = String::with_capacity(512);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Writing to memory does not fail.
        match self.file.format {
            LogFormat::Json => json(&mut text, now, line),
            LogFormat::Text => plain(&mut text, now, line),
        }
        .unwrap_or_default();
        text.push('\n');
        piece.extend_from_slice(text.as_bytes());
    }

    /// Gives `piece` to the writer.
    pub(super) fn send(&self, piece: Vec<u8>) {
        match self.pieces.try_send(piece) {
            Ok(()) => {}
            Err(TrySendError::Full(piece) | TrySendError::Disconnected(piece)) => self.lost.add(lines(&piece)),
        }
    }
}

/// Writes pieces until nobody has the log any more. A file that was moved away is made anew.
fn write(path: &str, waiting: &Receiver<Vec<u8>>, lost: &Count) {
    let mut file: Option<(File, u64)> = None;
    let mut failed = false;
    loop {
        let piece = match waiting.recv_timeout(PATIENCE) {
            Ok(piece) => piece,
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if piece.is_empty() && file.is_none() {
            continue;
        }
        let there = std::fs::metadata(path).map(|found| found.ino()).ok();
        if file.as_ref().map(|(_, inode)| *inode) != there || file.is_none() {
            file = None;
            match open(path) {
                Ok(opened) => {
                    file = Some(opened);
                    failed = false;
                }
                Err(error) if !failed => {
                    failed = true;
                    tracing::error!("the access log {path} cannot be written: {error}");
                }
                Err(_) => {}
            }
        }
        let wrote = file.as_mut().is_some_and(|(file, _)| file.write_all(&piece).is_ok());
        if !wrote && !piece.is_empty() {
            lost.add(lines(&piece));
        }
    }
}

fn lines(piece: &[u8]) -> u64 {
    piece.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn open(path: &str) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let inode = file.metadata()?.ino();
    Ok((file, inode))
}

fn json(out: &mut String, now: Duration, line: &Line<'_>) -> std::fmt::Result {
    out.push_str("{\"time\":\"");
    time(out, now)?;
    write!(out, "\",\"id\":\"{:016x}\",\"listener\":\"{}\",\"client\":\"{}\"", line.id, line.listener, line.client)?;
    for (key, value) in [
        ("method", line.method.as_bytes()),
        ("host", line.host),
        ("target", line.target.as_bytes()),
        ("version", line.version.as_bytes()),
        ("user_agent", line.agent),
        ("traceparent", line.trace),
    ] {
        if !value.is_empty() {
            write!(out, ",\"{key}\":\"")?;
            escape(out, value)?;
            out.push('"');
        }
    }
    write!(out, ",\"status\":{},\"bytes_in\":{},\"bytes_out\":{}", line.status, line.bytes_in, line.bytes_out)?;
    for (key, value) in [("rule", line.rule), ("group", line.group), ("reason", line.reason)] {
        if let Some(value) = value {
            write!(out, ",\"{key}\":\"{value}\"")?;
        }
    }
    if let Some(endpoint) = line.endpoint {
        write!(out, ",\"endpoint\":\"{endpoint}\",\"reused\":{}", line.reused)?;
    }
    write!(out, ",\"retries\":{}", line.retries)?;
    if let Some(first) = line.first {
        write!(out, ",\"first_byte_ms\":{:.3}", first.as_secs_f64() * 1e3)?;
    }
    write!(out, ",\"total_ms\":{:.3}}}", line.total.as_secs_f64() * 1e3)
}

/// `client [time] listener group/endpoint first/total status bytes retries reason {host|agent} "request"`.
fn plain(out: &mut String, now: Duration, line: &Line<'_>) -> std::fmt::Result {
    write!(out, "{} [", line.client)?;
    time(out, now)?;
    write!(out, "] {} {}/", line.listener, line.group.unwrap_or("-"))?;
    match line.endpoint {
        Some(endpoint) => write!(out, "{endpoint} ")?,
        None => out.push_str("- "),
    }
    match line.first {
        Some(first) => write!(out, "{}/", first.as_millis())?,
        None => out.push_str("-/"),
    }
    let reason = line.reason.unwrap_or("-");
    write!(out, "{} {} {} {} {reason} {{", line.total.as_millis(), line.status, line.bytes_out, line.retries)?;
    escape(out, line.host)?;
    out.push('|');
    escape(out, line.agent)?;
    write!(out, "}} \"{} ", line.method)?;
    escape(out, line.target.as_bytes())?;
    write!(out, " {}\"", line.version)
}

/// Printable ASCII as it is, quotes and backslashes escaped, all else as JSON writes it.
fn escape(out: &mut String, bytes: &[u8]) -> std::fmt::Result {
    for byte in bytes {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(char::from(*byte)),
            byte => write!(out, "\\u{byte:04x}")?,
        }
    }
    Ok(())
}

/// RFC 3339 in UTC, with milliseconds.
fn time(out: &mut String, now: Duration) -> std::fmt::Result {
    let (days, second) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", now.subsec_millis())
}

/// The date of a day after 1970-01-01, counted in years that begin with March, so that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            listener: "lab/web",
            id: 0x1f,
            client: ([192, 0, 2, 1], 4000).into(),
            method: "GET",
            host: b"shop.example",
            target: "/a\"b",
            version: "HTTP/1.1",
            agent: b"x\\y\x01\xff",
            trace: b"00-1-2-01",
            status: 502,
            bytes_in: 1,
            bytes_out: 2,
            rule: Some("api"),
            group: Some("here"),
            endpoint: Some(([10, 0, 0, 1], 80).into()),
            reused: true,
            retries: 1,
            first: Some(Duration::from_micros(1500)),
            total: Duration::from_millis(3),
            reason: Some("reset"),
        }
    }

    #[test]
    fn dates_are_the_calendars() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_778, (2026, 11, 21)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    #[test]
    fn a_line_is_json_whatever_clients_send() {
        let mut text = String::new();
        json(&mut text, Duration::from_millis(1_500), &line()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["time"], "1970-01-01T00:00:01.500Z");
        assert_eq!((&value["target"], &value["user_agent"]), (&"/a\"b".into(), &"x\\y\u{1}\u{ff}".into()));
        assert_eq!(
            (&value["reason"], &value["endpoint"], &value["id"]),
            (&"reset".into(), &"10.0.0.1:80".into(), &"000000000000001f".into())
        );
        let mut text = String::new();
        plain(&mut text, Duration::from_millis(1_500), &line()).unwrap();
        let expected = "192.0.2.1:4000 [1970-01-01T00:00:01.500Z] lab/web here/10.0.0.1:80 1/3 502 2 1 reset {shop.example|x\\\\y\\u0001\\u00ff} \"GET /a\\\"b HTTP/1.1\"";
        assert_eq!(text, expected);
    }

    #[test]
    fn failures_are_written_whatever_the_sample_is() {
        let file = AccessLog { path: "/dev/null".to_owned(), format: LogFormat::Json, sample: 10 };
        let log = Log::open(&file);
        assert_eq!((0..1000).filter(|number| log.takes(*number, 200, false)).count(), 100);
        assert!(log.takes(99, 200, true) && log.takes(99, 503, false));
    }
}
