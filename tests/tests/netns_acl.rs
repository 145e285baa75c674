//! Access lists with real clients of both families: who is not let in hears nothing, whoever is connected stays.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use ga_tests::{
    lab::{Agent, Lab, VIP4, VIP6, client4, client6},
    traffic::{Flows, Server},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

/// One listener whose lists hold these addresses.
fn text(lab: &Lab, mode: &str, entries4: &[IpAddr], entries6: &[IpAddr], more: &str) -> String {
    let quoted = |entries: &[IpAddr]| entries.iter().map(|entry| format!("\"{entry}\"")).collect::<Vec<_>>().join(", ");
    let acl = format!("acl = {{ mode = \"{mode}\", lists = [\"four\", \"six\"]{more} }}");
    let list = |name: &str, entries: &[IpAddr]| format!("\n[[acl]]\nname = \"{name}\"\nentries = [{}]\n", quoted(entries));
    lab.head() + &Lab::listener("web", "tcp", "80", &[255], &acl) + &list("four", entries4) + &list("six", entries6)
}

/// Whether a client reaches the VIP of each family.
fn reach(lab: &Lab, client: usize) -> Result<[bool; 2]> {
    let reaches = |vip: IpAddr| {
        let to = SocketAddr::new(vip, 80);
        // One SYN that is sent again: a neighbour that is not known yet costs the first.
        lab.clients[client].within(move || TcpStream::connect_timeout(&to, Duration::from_millis(1_500)).is_ok())
    };
    let [v4, v6] = VIPS.map(reaches);
    Ok([v4?, v6?])
}

// proves: I01, I02, I03, I04
#[test]
fn lists_let_in_whom_they_should_and_leave_connections_alone() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80])?;
    let (first, both) = ([client4(1).into(), client6(1).into()], [true, true]);
    let [first4, first6]: [IpAddr; 2] = first;
    lab.configure(&text(&lab, "white", &[], &[], ""))?;
    let agent = Agent::start(&lab)?;
    ensure!(reach(&lab, 0)? == both && reach(&lab, 1)? == both, "empty white lists let everybody in");
    for (mode, entries4, entries6, expected) in [
        ("white", vec![first4], vec![first6], [both, [false, false]]),
        ("black", vec![first4], vec![first6], [[false, false], both]),
        ("white", vec![first4], vec![], [[true, false], [false, false]]),
        ("black", vec![first4], vec![], [[false, true], both]),
        ("black", vec![], vec![], [both, both]),
    ] {
        lab.configure(&text(&lab, mode, &entries4, &entries6, ""))?;
        agent.ok(&["reload"])?;
        let seen = [reach(&lab, 0)?, reach(&lab, 1)?];
        ensure!(seen == expected, "{mode} {entries4:?} {entries6:?}: {seen:?}, not {expected:?}");
    }
    ensure!(agent.drops("web")?.get("acl").is_some_and(|drops| *drops > 0), "{:?}", agent.drops("web")?);

    let flows = Flows::open(&lab.clients[0], SocketAddr::new(VIP4.into(), 80), 4, Duration::from_millis(20))?;
    lab.configure(&text(&lab, "black", &[first4], &[first6], ""))?;
    agent.ok(&["reload"])?;
    ensure!(reach(&lab, 0)? == [false, false], "new connections are kept out");
    flows.wait_for(40)?;
    flows.all_well()?;
    Ok(())
}
