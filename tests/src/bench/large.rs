//! A large configuration: many listeners with four endpoints each, all on different addresses.

use std::net::Ipv4Addr;

use crate::lab::{VIP4, server4};

/// Endpoints of every listener.
pub(super) const ENDPOINTS: usize = 4;
/// The port of the first listener; the others follow.
pub(super) const FIRST_PORT: u16 = 2_000;
/// Where endpoints are that nobody sends to; routed to the first server.
pub(super) const ELSEWHERE: &str = "10.100.0.0/16";

/// What a configuration has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Large {
    /// UDP listeners of one port each.
    pub listeners: usize,
    /// Weight of the second endpoint of the first listener: that is the second server, the first endpoint is the first server.
    pub weight: u8,
}

impl Large {
    /// The file, for an edge with these interfaces (a TOML list).
    pub(super) fn text(self, interfaces: &str) -> String {
        // Enough ports that a free one is found at once.
        let egress: Vec<_> = (5..13).map(|number| format!("\"203.0.113.{number}\"")).collect();
        let egress = egress.join(", ");
        let mut text = format!(
            "[node]\nap = \"bench\"\ninterfaces = {interfaces}\nmetrics = \"127.0.0.1:9464\"\n\n\
             [limits]\nlisteners_per_instance = 2000\n\n\
             [[instance]]\nid = \"bench\"\nvips = [\"{VIP4}\"]\negress_ips = [{egress}]\n"
        );
        for number in 0..self.listeners {
            let port = usize::from(FIRST_PORT) + number;
            let head = "[[instance.listener.endpoint_group]]\nname = \"near\"\nregion = \"lab\"\n";
            text += &format!(
                "\n[[instance.listener]]\nname = \"l{number}\"\nprotocol = \"udp\"\nports = \"{port}\"\nmax_new_flows_per_second = 100000000\n\n{head}"
            );
            for endpoint in 0..ENDPOINTS {
                let (address, weight) = self.endpoint(number, endpoint);
                text += &format!(
                    "\n[[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"{address}\"\nweight = {weight}\n"
                );
            }
        }
        text
    }

    fn endpoint(self, listener: usize, number: usize) -> (Ipv4Addr, u8) {
        match (listener, number) {
            (0, 0) => (server4(1), 255),
            (0, 1) => (server4(2), self.weight),
            (0, _) => (elsewhere(number), 0),
            _ => (elsewhere(listener * ENDPOINTS + number), [255, 200, 100, 50][number % 4]),
        }
    }
}

/// An address of [`ELSEWHERE`].
fn elsewhere(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 100, 1, 0)) + number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_right() {
        let text = Large { listeners: 300, weight: 0 }.text("[\"eth0\"]");
        let intent = ga::config::parse("large.toml", &text).unwrap().intent;
        assert_eq!(intent.instances[0].listeners.len(), 300);
        assert!(intent.instances[0].listeners.iter().all(|listener| listener.groups[0].endpoints.len() == ENDPOINTS));
    }
}
