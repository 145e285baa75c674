//! Access lists.

use std::{net::Ipv4Addr, sync::Arc};

use ga_common::abi::sheet::{Borders, Borders4};
use proptest::prelude::*;

use super::fixtures;
use crate::{
    model::{Acl, AclEntry, AclMode, ListenerAcl, Protocol},
    plan::{AclView, Family, Sheet, acl::view},
};

fn of(mode: AclMode, vips: &[&str], lists: &[&[&str]]) -> AclView {
    let mut listener = fixtures::listener("web", Protocol::Tcp, "80", &[("10.0.0.1", 1)]);
    let entry = |net: &&str| AclEntry { net: net.parse().unwrap(), description: String::new() };
    let list = |nets: &&[&str]| Arc::new(Acl { name: fixtures::name("list"), entries: nets.iter().map(entry).collect() });
    listener.acl = Some(ListenerAcl { mode, lists: lists.iter().map(list).collect(), kill_established: false });
    view(&fixtures::instance("shop", vips, &["192.0.2.9"], Vec::new()), &listener).unwrap()
}

const DUAL: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn lets_in(view: &AclView, client: &str) -> bool {
    view.lets_in(client.parse().unwrap())
}

// proves: I01
// proves: I02
#[test]
fn a_white_list_lets_in_who_is_listed_and_a_black_one_who_is_not() {
    let nets: &[&str] = &["192.0.2.0/24", "203.0.113.7/32"];
    for (client, listed) in
        [("192.0.2.0", true), ("192.0.2.255", true), ("192.0.3.0", false), ("203.0.113.7", true), ("203.0.113.8", false)]
    {
        assert_eq!(lets_in(&of(AclMode::White, &DUAL, &[nets]), client), listed, "{client}");
        assert_eq!(lets_in(&of(AclMode::Black, &DUAL, &[nets]), client), !listed, "{client}");
    }
}

// proves: I03
#[test]
fn an_empty_list_lets_everybody_in() {
    for mode in [AclMode::White, AclMode::Black] {
        let view = of(mode, &DUAL, &[&[], &[]]);
        assert!(lets_in(&view, "192.0.2.7") && lets_in(&view, "2001:db8::7"));
    }
}

// proves: I04
#[test]
fn a_white_list_of_one_family_keeps_the_other_family_out() {
    let white = of(AclMode::White, &DUAL, &[&["2001:db8::/32"]]);
    assert!(lets_in(&white, "2001:db8::7") && !lets_in(&white, "192.0.2.7"));
    let black = of(AclMode::Black, &DUAL, &[&["2001:db8::/32"]]);
    assert!(!lets_in(&black, "2001:db8::7") && lets_in(&black, "192.0.2.7"));
    // Nobody of the other family can come: then its list counts for nobody.
    assert!(lets_in(&of(AclMode::White, &DUAL[..1], &[&["2001:db8::/32"]]), "192.0.2.7"));
}

#[test]
fn networks_that_touch_or_overlap_are_one() {
    let borders = |nets: &[&str]| match of(AclMode::White, &DUAL, &[nets]).sheets.remove(&Family::V4) {
        Some(Sheet::Acl4(borders)) => borders.to_vec(),
        other => panic!("{other:?}"),
    };
    assert_eq!(borders(&["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32"]), [0x0a00_0000, 0x0a00_0100]);
    assert_eq!(borders(&["0.0.0.0/0", "10.0.0.0/8"]), [0]);
    assert_eq!(borders(&["128.0.0.0/1"]), [0x8000_0000]);
}

proptest! {
    #[test]
    fn the_data_path_and_the_plan_agree(
        nets in proptest::collection::vec((any::<u32>(), 8u8..=32), 1..50),
        clients in proptest::collection::vec(any::<u32>(), 50),
    ) {
        let nets: Vec<ipnet::Ipv4Net> =
            nets.iter().map(|(bits, len)| ipnet::Ipv4Net::new(Ipv4Addr::from_bits(*bits), *len).unwrap().trunc()).collect();
        let texts: Vec<String> = nets.iter().map(ToString::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let view = of(AclMode::White, &DUAL, &[&texts]);
        let Some(Sheet::Acl4(borders)) = view.sheets.get(&Family::V4) else { panic!("no sheet") };
        let mut table: Box<Borders4> = Box::new(Borders::NONE);
        table.fill(borders.iter().copied());
        let around = nets.iter().flat_map(|net| [net.network().to_bits().wrapping_sub(1), net.broadcast().to_bits(), net.broadcast().to_bits().wrapping_add(1)]);
        for client in clients.into_iter().chain(around).filter(|client| *client != u32::MAX) {
            let address = Ipv4Addr::from_bits(client);
            let expected = nets.iter().any(|net| net.contains(&address));
            prop_assert_eq!(view.lets_in(address.into()), expected, "{}", address);
            prop_assert_eq!(table.lists(u64::from(client)), expected, "{}", address);
        }
    }
}
