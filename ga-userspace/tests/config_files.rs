//! Whole files: the shipped examples are good, the hostile ones are refused quickly, and no text makes the parser panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use ga::config::{
    self,
    problem::{MAX_PROBLEMS, Report},
    render::{self, Style},
};
use proptest::prelude::*;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");
const SCHEMA_LINE: &str = "#:schema ./ga.schema.json";

fn example(name: &str) -> String {
    fs::read_to_string(format!("{EXAMPLES}/{name}")).unwrap()
}

// proves: L01
#[test]
fn every_example_checks_clean_and_names_the_schema() {
    for name in ["minimal.toml", "demo.toml", "https.toml", "tcp-names.toml", "reference.toml"] {
        let text = example(name);
        let loaded = config::parse(name, &text).unwrap_or_else(|report| panic!("{name}: {report:#?}"));
        assert_eq!(loaded.warnings, [], "{name}");
        assert_eq!(text.lines().next(), Some(SCHEMA_LINE), "{name}");
    }
}

#[test]
fn the_reference_has_every_key_there_is() {
    let schema = serde_json::to_value(config::schema::generate()).unwrap();
    let tables = schema["definitions"].as_object().unwrap().values().chain([&schema]);
    let keys: BTreeSet<&str> = tables
        .filter_map(|table| table["properties"].as_object())
        .flat_map(|properties| properties.keys())
        .map(String::as_str)
        .collect();
    let reference: toml::Table = example("reference.toml").parse().unwrap();
    let mut written = BTreeSet::new();
    collect_keys(&toml::Value::Table(reference), &mut written);
    let written: BTreeSet<&str> = written.iter().map(String::as_str).collect();
    assert_eq!(written, keys);
}

fn collect_keys(value: &toml::Value, keys: &mut BTreeSet<String>) {
    if let Some(table) = value.as_table() {
        for (key, value) in table {
            keys.insert(key.clone());
            // The keys below are names that operators choose.
            if key != "hosts" {
                collect_keys(value, keys);
            }
        }
    }
    for element in value.as_array().into_iter().flatten() {
        collect_keys(element, keys);
    }
}

/// The promise is 2 seconds; code that is not optimised may take longer.
const DEADLINE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 8 } else { 2 });

/// What the reader of a report would have to bear, found in time.
fn refused_quickly(text: &str) -> Report {
    let start = Instant::now();
    let report = config::parse("big.toml", text).unwrap_err();
    let mut out = String::new();
    render::report(&mut out, &report, text, Style::Plain).unwrap();
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    assert!(report.problems.len() <= MAX_PROBLEMS);
    assert!(out.len() < 100_000, "{} bytes", out.len());
    report
}

#[test]
fn a_document_of_50_megabytes_is_refused_at_once() {
    let report = refused_quickly(&"# nothing to see here\n".repeat(50_000_000 / 22 + 1));
    assert_eq!(report.problems[0].kind.word(), "capacity");
}

#[test]
fn a_hundred_thousand_equal_keys_are_refused_and_counted() {
    let report = refused_quickly(&"a = 1\n".repeat(100_000));
    assert!(report.omitted > 90_000);
}

#[test]
fn a_hundred_thousand_equal_instances_are_refused_and_counted() {
    refused_quickly(&"[[instance]]\nid = \"ga-demo\"\nvips = [\"198.51.100.10\"]\n".repeat(100_000));
}

#[test]
fn a_hundred_thousand_equal_endpoints_are_refused_and_counted() {
    let text = example("minimal.toml");
    let (before, _) = text.split_once("region").unwrap();
    let endpoint = "{ type = \"ip\", address = \"10.0.0.11\" },";
    let report = refused_quickly(&format!("{before}region = \"here\"\nendpoint = [{}]\n", endpoint.repeat(100_000)));
    assert!(report.omitted > 90_000);
}

#[test]
fn a_hundred_thousand_listeners_with_all_ports_are_refused() {
    let mut text = example("minimal.toml");
    text += &"[[instance.listener]]\nports=\"1~65499\"\n".repeat(100_000);
    refused_quickly(&text);
}

#[test]
fn a_port_list_with_a_hundred_thousand_items_is_refused() {
    let text = example("minimal.toml").replace("\"80,443\"", &format!("\"{}80\"", "1~65499,".repeat(100_000)));
    refused_quickly(&text);
}

#[test]
fn a_key_of_a_megabyte_is_refused() {
    let key = "k".repeat(1_000_000);
    refused_quickly(&format!("{key} = 1\n[node]\nap = \"{key}\"\n{key} = 2\n"));
}

#[test]
fn deep_nesting_is_refused() {
    refused_quickly(&format!("a = {}", "[".repeat(100_000)));
    refused_quickly(&format!("{} = 1", vec!["a"; 100_000].join(".")));
}

#[test]
fn the_capacity_of_the_data_path_is_named() {
    let mut text = String::from(
        "[node]\ninterfaces = [\"eth0\"]\n[limits]\nlisteners_per_instance = 2048\nports_per_l4_listener = 2000\n\
         [[instance]]\nid = \"ga-demo\"\nvips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\"]\n",
    );
    // 66 listeners of 2,000 ports are 132,000 services; TCP and UDP port spaces hold 65,499 each, so two instances are needed.
    let listeners = |out: &mut String, protocol: &str| {
        for index in 0..32 {
            let first = index * 2_000 + 1;
            write!(
                out,
                "[[instance.listener]]\nname = \"{protocol}{index}\"\nprotocol = \"{protocol}\"\nports = \"{first}~{}\"\n\
                 [[instance.listener.endpoint_group]]\nregion = \"eu\"\n[[instance.listener.endpoint_group.endpoint]]\n\
                 type = \"ip\"\naddress = \"192.0.2.1\"\n",
                first + 1_999
            )
            .unwrap();
        }
    };
    listeners(&mut text, "tcp");
    listeners(&mut text, "udp");
    assert!(config::parse("big.toml", &text).is_ok());
    text += "[[instance]]\nid = \"ga-two\"\nvips = [\"198.51.100.20\"]\negress_ips = [\"203.0.113.20\"]\n";
    listeners(&mut text, "tcp");
    let report = config::parse("big.toml", &text).unwrap_err();
    let [problem] = report.problems.as_slice() else { panic!("{report}") };
    assert_eq!(problem.kind.word(), "capacity");
    assert!(problem.message.contains("131072"), "{}", problem.message);
}

#[test]
fn windows_line_ends_and_a_missing_last_newline_are_fine() {
    let text = example("demo.toml");
    assert!(config::parse("demo.toml", &text.replace('\n', "\r\n")).is_ok());
    assert!(config::parse("demo.toml", text.trim_end()).is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        shown(&text);
    }

    #[test]
    fn no_mutilation_of_a_good_file_makes_the_parser_panic(
        cuts in proptest::collection::vec((0usize..4_000, 0usize..40, "[\\[\\]{}=\",.~#\n a-z0-9é]{0,6}"), 1..6),
    ) {
        let mut text = example("demo.toml");
        for (at, len, insert) in cuts {
            let floor = |mut at: usize| {
                at = at.min(text.len());
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let (start, end) = (floor(at), floor(at + len));
            text.replace_range(start..end, &insert);
        }
        shown(&text);
    }
}

fn shown(text: &str) {
    if let Err(report) = config::parse("x.toml", text) {
        assert!(!report.problems.is_empty());
        let mut out = String::new();
        render::report(&mut out, &report, text, Style::Plain).unwrap();
    }
}
