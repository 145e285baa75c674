//! The topology, drawn with lines.

/// Fifteen lines, 77 columns.
pub(super) const PICTURE: &str = r"                          ┌─────────────────────────┐     ┌─────────────────┐
  ┌─────────────────┐     │                         │     │ server s1       │
  │ client 1        │     │ edge                    ├─────┤ 10.0.1.11       │
  │ 192.0.2.2       ├─────┤ ga: TCP, UDP in XDP,    │     │ fd00:10:1::11   │
  │ 2001:db8:c1::2  │     │ HTTPS by its proxy      │     └─────────────────┘
  └─────────────────┘     │ clients reach           │     ┌─────────────────┐
                          │   198.51.100.10         │     │ server s2       │
                          │   2001:db8:100::10      ├─────┤ 10.0.2.11       │
                          │                         │     │ fd00:10:2::11   │
  ┌─────────────────┐     │ servers see             │     └─────────────────┘
  │ client 2        │     │   203.0.113.5           │     ┌─────────────────┐
  │ 192.0.3.2       ├─────┤   2001:db8:200::5       │     │ server s3       │
  │ 2001:db8:c2::2  │     │                         ├─────┤ 10.0.3.11       │
  └─────────────────┘     │                         │     │ fd00:10:3::11   │
                          └─────────────────────────┘     └─────────────────┘";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{EGRESS4, EGRESS6, VIP4, VIP6, client4, client6, server4, server6};

    #[test]
    fn the_picture_shows_the_lab() {
        let lab = [VIP4.to_string(), VIP6.to_string(), EGRESS4.to_string(), EGRESS6.to_string()];
        let clients = (1..=2).flat_map(|number| [client4(number).to_string(), client6(number).to_string()]);
        let servers = (1..=3).flat_map(|number| [server4(number).to_string(), server6(number).to_string()]);
        for address in lab.into_iter().chain(clients).chain(servers) {
            assert!(PICTURE.contains(&address), "{address} is not in the picture");
        }
    }

    #[test]
    fn the_picture_fits() {
        assert!(PICTURE.lines().all(|line| line.chars().count() <= 80));
    }
}
