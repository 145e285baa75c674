//! The machine as a whole: the requests of `tests/http/requests.toml`, what can be made of them, and chance.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde::Deserialize;

use super::{Fed, Limits, Machine, Refusal};

/// A request of the table.
#[derive(Deserialize)]
struct Case {
    number: u32,
    name: String,
    raw: String,
    answers: Vec<u16>,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        self.raw.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect()
    }
}

fn cases() -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        request: Vec<Case>,
    }
    toml::from_str::<File>(include_str!("../../../../tests/http/requests.toml")).unwrap().request
}

/// What became of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    heads: usize,
    passed: usize,
    /// Of it, before the last head.
    before: usize,
    refused: Option<Refusal>,
    held: bool,
}

/// Gives `pieces` one after the other, as a connection would.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut machine = Machine::new(Limits::default());
    let mut outcome = Outcome::default();
    let mut kept: Vec<u8> = Vec::new();
    for piece in pieces {
        kept.extend_from_slice(piece);
        while !kept.is_empty() {
            let passed = match machine.feed(&kept) {
                Fed::Head(len) => {
                    outcome.heads += 1;
                    outcome.before = outcome.passed;
                    len
                }
                Fed::Body(len) => len,
                Fed::More => break,
                Fed::Held => {
                    outcome.held = true;
                    break;
                }
                Fed::Refused(refusal) => {
                    outcome.refused = Some(refusal);
                    return outcome;
                }
            };
            assert!(passed > 0 && passed <= kept.len());
            outcome.passed += passed;
            drop(kept.drain(..passed));
        }
    }
    outcome
}

fn at_once(bytes: &[u8]) -> Outcome {
    run([bytes])
}

fn byte_by_byte(bytes: &[u8]) -> Outcome {
    run(bytes.chunks(1))
}

fn refusal(bytes: &[u8]) -> Option<Refusal> {
    let outcome = at_once(bytes);
    assert_eq!(outcome, byte_by_byte(bytes), "{}", bytes.escape_ascii());
    outcome.refused
}

#[test]
fn every_request_of_the_table_is_refused_as_it_must_be_or_passes() {
    for case in cases() {
        let refused = refusal(&case.bytes());
        // Paths are judged where rules are matched.
        let expected = case.answers.first().filter(|status| **status != 200 && case.number != 60);
        assert_eq!(refused.map(|refusal| refusal.status().as_u16()).as_ref(), expected, "{} {}", case.number, case.name);
    }
}

#[test]
fn whole_requests_pass_whole() {
    for case in cases().iter().filter(|case| case.answers[0] == 200) {
        let bytes = case.bytes();
        let outcome = at_once(&bytes);
        assert_eq!((outcome.heads, outcome.passed), (case.answers.len(), bytes.len()), "{} {}", case.number, case.name);
    }
}

/// Every byte that could hide a field from one of two servers, in the five places around the name of `Transfer-Encoding`.
#[test]
fn nothing_hides_a_transfer_encoding_beside_a_length() {
    for byte in (0..=b' ').chain(0x7f..=0xff) {
        let byte_alone = [byte];
        let one = &byte_alone[..];
        let hidden: [Vec<&[u8]>; 5] = [
            vec![one, b"Transfer-Encoding", b":", b" chunked"],
            vec![b"Transfer-Encoding", one, b":", b" chunked"],
            vec![b"Transfer-Encoding", b":", one, b"chunked"],
            vec![b"Transfer-Encoding", b":", b" chunked", one],
            vec![b"Transfer-Encoding", b":", b" chunked", b" ", one],
        ];
        for (place, field) in hidden.iter().enumerate() {
            for length_first in [true, false] {
                let field = field.concat();
                let (first, second): (&[u8], &[u8]) =
                    if length_first { (b"Content-Length: 5", &field) } else { (&field, b"Content-Length: 5") };
                let request = [b"POST / HTTP/1.1\r\nHost: a.example\r\n", first, b"\r\n", second, b"\r\n\r\n0\r\n\r\n"].concat();
                let refused = refusal(&request).map(|refusal| refusal.status().as_u16());
                assert!(matches!(refused, Some(400 | 501)), "byte {byte:#x} at place {place}: {refused:?}");
            }
        }
    }
}

/// The same without a length: what is not plainly `chunked` is refused, and what is passes.
#[test]
fn only_a_plain_transfer_encoding_passes() {
    for byte in 0..=0xff_u8 {
        for value in [vec![byte, b'c', b'h'], [b"chunked", &[byte][..]].concat(), [&[byte], &b"chunked"[..]].concat()] {
            let request = [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ", &*value, b"\r\n\r\n0\r\n\r\n"].concat();
            let is_plain = value.trim_ascii() == b"chunked" && matches!(byte, b' ' | b'\t');
            assert_eq!(refusal(&request).is_none(), is_plain, "{}", value.escape_ascii());
        }
    }
    for spelled in ["Chunked", "CHUNKED", "\tchunked \t"] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-encoding: {spelled}\r\n\r\n0\r\n\r\n");
        assert_eq!(refusal(request.as_bytes()), None);
    }
}

#[test]
fn a_body_is_never_the_next_request() {
    let smuggled = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    let request =
        [format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", smuggled.len()).as_bytes(), smuggled].concat();
    assert_eq!(at_once(&request).heads, 1);
    let chunk = [format!("{:x}\r\n", smuggled.len()).as_bytes(), smuggled, b"\r\n0\r\n\r\n"].concat();
    let request = [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", &*chunk].concat();
    assert_eq!(at_once(&request).heads, 1);
    assert_eq!(at_once(&[request.clone(), request].concat()).heads, 2);
}

#[test]
fn limits_are_kept() {
    let get = |target: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(target - 1));
    assert_eq!(refusal(get(8192).as_bytes()), None);
    assert_eq!(refusal(get(8193).as_bytes()), Some(Refusal::TargetTooLong));
    assert_eq!(refusal("G".repeat(9000).as_bytes()), Some(Refusal::TargetTooLong));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(refusal(fields(100).as_bytes()), None);
    assert_eq!(refusal(fields(101).as_bytes()), Some(Refusal::HeadTooLarge));
    let begin = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let large = |head: usize| format!("{begin}{}\r\n\r\n", "a".repeat(head - begin.len() - 4));
    assert_eq!(refusal(large(32 * 1024).as_bytes()), None);
    assert_eq!(refusal(large(32 * 1024 + 1).as_bytes()), Some(Refusal::HeadTooLarge));
    assert_eq!(refusal(format!("{begin}{}", "a".repeat(40_000)).as_bytes()), Some(Refusal::HeadTooLarge));
}

#[test]
fn what_is_not_http_is_refused_with_its_first_bytes() {
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"\0", b" GET", b"\xffSMB", b"\n", b"\r\n\r\n"] {
        assert!(refusal(bytes).is_some(), "{}", bytes.escape_ascii());
    }
    assert_eq!(refusal(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some(Refusal::Version));
    assert_eq!(refusal(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
}

#[test]
fn targets_and_hosts_agree_or_are_refused() {
    let with = |line: &str, host: &str| refusal(format!("{line}\r\n{host}\r\n").as_bytes());
    for (line, host, refused) in [
        ("GET http://a.example/x HTTP/1.1", "Host: A.example:80\r\n", None),
        ("GET https://a.example?x HTTP/1.1", "Host: a.example:443\r\n", None),
        ("GET HTTP://a.example HTTP/1.1", "Host: a.example\r\n", None),
        ("GET http://a.example/ HTTP/1.0", "", None),
        ("GET http://a.example:81/ HTTP/1.1", "Host: a.example\r\n", Some(Refusal::Host)),
        ("GET http://a.example/ HTTP/1.1", "", Some(Refusal::Host)),
        ("GET http://u@a.example/ HTTP/1.1", "Host: a.example\r\n", Some(Refusal::Target)),
        ("GET http:///x HTTP/1.1", "Host: a.example\r\n", Some(Refusal::Target)),
        ("GET ftp://a.example/ HTTP/1.1", "Host: a.example\r\n", Some(Refusal::Target)),
        ("GET a.example HTTP/1.1", "Host: a.example\r\n", Some(Refusal::Target)),
        ("GET * HTTP/1.1", "Host: a.example\r\n", Some(Refusal::Target)),
        ("OPTIONS * HTTP/1.1", "Host: a.example\r\n", None),
        ("GET / HTTP/1.0", "", None),
        ("GET / HTTP/1.1", "Host:\r\n", Some(Refusal::Host)),
        ("connect a:443 HTTP/1.1", "Host: a:443\r\n", Some(Refusal::Method)),
        ("get / HTTP/1.1", "Host: a\r\n", None),
        ("GET / http/1.1", "Host: a\r\n", Some(Refusal::RequestLine)),
        ("GET / HTTP/1.10", "Host: a\r\n", Some(Refusal::RequestLine)),
        ("GET  / HTTP/1.1", "Host: a\r\n", Some(Refusal::Target)),
        ("GET /  HTTP/1.1", "Host: a\r\n", Some(Refusal::Target)),
        ("GET / HTTP/1.1 ", "Host: a\r\n", Some(Refusal::RequestLine)),
    ] {
        assert_eq!(with(line, host), refused, "{line} | {host}");
    }
}

#[test]
fn chunks_are_read_to_the_letter() {
    let body = |body: &str| {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let outcome = at_once(request.as_bytes());
        assert_eq!(outcome, byte_by_byte(request.as_bytes()), "{body:?}");
        (outcome.refused, outcome.passed == request.len())
    };
    for good in ["0\r\n\r\n", "00a\r\n0123456789\r\n0\r\n\r\n", "1;a=\"b\";c\r\nZ\r\n0;x\r\n\r\n", "0\r\nX-Sum: 1\r\nY:\r\n\r\n"]
    {
        assert_eq!(body(good), (None, true), "{good:?}");
    }
    for bad in [
        "\r\n",
        ";a\r\n",
        " 1\r\nZ",
        "1 \r\nZ",
        "1\rZ",
        "-1\r\n",
        "+1\r\n",
        "g\r\n",
        "1\n",
        "1\r\nZ\n",
        "1\r\nZ\r\r",
        "1\r\nZZ\r\n",
        "0000000000000001\r\n",
        "1;\x01\r\n",
        "1;a\rb",
        "1;a\n",
    ] {
        assert_eq!(body(bad).0, Some(Refusal::Chunk), "{bad:?}");
    }
    for bad in [
        "0\r\n\n",
        "0\r\n\r\r",
        "0\r\nX\r\n",
        "0\r\n X: 1\r\n",
        "0\r\nX : 1\r\n",
        "0\r\nX: 1\n",
        "0\r\nX: \x01\r\n",
        "0\r\n: 1\r\n",
    ] {
        assert_eq!(body(bad).0, Some(Refusal::Trailer), "{bad:?}");
    }
    let endless = |piece: &str| format!("1{}", piece.repeat(5000));
    assert_eq!(body(&endless(";a")).0, Some(Refusal::Chunk));
    assert_eq!(body(&"1;aaaaaaa\r\nZ\r\n".repeat(1000)).0, Some(Refusal::Chunk));
    assert_eq!(body(&format!("0\r\n{}", "X: 1\r\n".repeat(5000))).0, Some(Refusal::Trailer));
}

#[test]
fn bytes_behind_a_request_for_another_protocol_wait_for_the_answer() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let outcome = at_once(&[&request[..], b"\x81\x00 anything"].concat());
    assert_eq!((outcome.heads, outcome.held, outcome.refused), (1, true, None));
    let mut machine = Machine::new(Limits::default());
    assert_eq!(machine.feed(request), Fed::Head(request.len()));
    assert_eq!(machine.feed(request), Fed::Held);
    machine.decline();
    assert_eq!(machine.feed(request), Fed::Head(request.len()));
    let plain = [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ];
    for request in plain {
        assert_eq!(at_once(request.repeat(2).as_bytes()).heads, 2, "{request}");
    }
}

/// Requests of the table and pieces of them, strung together.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let cases: Vec<Vec<u8>> = cases().iter().map(Case::bytes).collect();
    let piece = prop_oneof![
        6 => any::<Index>().prop_map({
            let cases = cases.clone();
            move |index| index.get(&cases).clone()
        }),
        3 => (any::<Index>(), any::<Index>(), any::<u8>()).prop_map(move |(case, place, byte)| {
            let mut bytes = case.get(&cases).clone();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            bytes
        }),
        1 => vec(any::<u8>(), 0..20),
    ];
    vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn where_a_stream_is_split_makes_no_difference(stream in streams(), cuts in vec(any::<Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len().max(1))).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]);
        let whole = at_once(&stream);
        prop_assert_eq!(&run(pieces), &whole);
        prop_assert_eq!(&byte_by_byte(&stream), &whole);
    }

    #[test]
    fn chance_neither_passes_nor_makes_it_panic(stream in vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(at_once(&stream).passed, 0);
        prop_assert_eq!(byte_by_byte(&stream), at_once(&stream));
    }

    /// Whatever passes is read by httparse, which is what hyper reads heads with, as the same number of bytes.
    #[test]
    fn what_passes_is_what_hyper_reads(stream in streams()) {
        let outcome = at_once(&stream);
        if let (1, None) = (outcome.heads, outcome.refused) {
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let mut request = httparse::Request::new(&mut fields);
            let parsed = request.parse(&stream);
            prop_assert!(matches!(parsed, Ok(httparse::Status::Complete(len)) if len <= outcome.passed), "{:?}", parsed);
        }
    }
}
