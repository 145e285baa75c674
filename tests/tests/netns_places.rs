//! Endpoints that are named, not numbered: server groups and hosts of the inventory, with real clients and servers.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use ga_tests::{
    lab::{Agent, Lab, VIP4, client4, server4},
    traffic::{Server, spread},
};

/// Servers with ports of their own, of the weights 100, 50 and 0.
fn pool() -> String {
    let [a, b, c] = [1, 2, 3].map(server4);
    format!(
        "\n[[vserver_group]]\nname = \"pool\"\nservers = [{{ address = \"{a}\", port = 8080 }}, {{ address = \"{b}\", port = 9090, \
         weight = 50 }}, {{ address = \"{c}\", port = 7070, weight = 0 }}]\n\n[inventory.hosts]\nweb = \"{c}\"\n"
    )
}

fn listener(port: u16, what: &str) -> String {
    format!("\n[[instance.listener]]\nname = \"port{port}\"\nprotocol = \"tcp\"\nports = \"{port}\"\n{what}\n")
}

/// How many of 3,000 connections to the port each server answered.
fn answers(lab: &Lab, port: u16) -> Result<[usize; 3]> {
    let to = SocketAddr::new(IpAddr::V4(VIP4), port);
    let by_server = spread(&lab.clients[0], client4(1).into(), 10_000, to, 3_000)?;
    println!("port {port}: {by_server:?}");
    Ok([1, 2, 3].map(|server| by_server.get(&server).copied().unwrap_or_default()))
}

fn about(seen: [usize; 3], wanted: [usize; 3]) -> Result<()> {
    let is_near = seen.iter().zip(wanted).all(|(seen, wanted)| seen.abs_diff(wanted) <= wanted / 10);
    ensure!(is_near, "the servers answered {seen:?} of 3000 connections, not about {wanted:?}");
    Ok(())
}

// proves: C11, C12, K01, K02, K04, K05, K08
#[test]
fn pools_and_names_answer_by_their_weights_on_ports_of_their_own() -> Result<()> {
    let lab = Lab::new(3)?;
    let _pool = [Server::start(&lab.servers[0], 1, &[8080])?, Server::start(&lab.servers[1], 2, &[9090, 8080])?];
    let _named = Server::start(&lab.servers[2], 3, &[7070, 83])?;
    let group = "[[instance.listener.endpoint_group]]\nname = \"near\"\nregion = \"lab\"\n";
    let endpoint = "[[instance.listener.endpoint_group.endpoint]]\n";
    let of_both = format!(
        "{group}\n{endpoint}type = \"clb\"\nvserver_group = \"pool\"\nweight = 100\n\n{endpoint}type = \"ecs\"\naddress = \"web\"\n\
         weight = 100\n"
    );
    let head = lab.head();
    let head: String = head.lines().filter(|line| !line.starts_with("vips")).map(|line| format!("{line}\n")).collect();
    let text = format!("{head}vips = [\"{VIP4}\"]\n")
        + &listener(80, "vserver_group = \"pool\"")
        + &listener(81, "vserver_group = \"pool\"")
        + &listener(83, &of_both);
    lab.configure(&(text.clone() + &pool()))?;
    let agent = Agent::start(&lab)?;
    about(answers(&lab, 80)?, [2_000, 1_000, 0])?;
    about(answers(&lab, 81)?, [2_000, 1_000, 0])?;
    about(answers(&lab, 83)?, [1_000, 500, 1_500])?;

    // One change, and all who name the pool follow; a port may belong to many servers.
    lab.configure(&(text + &pool().replace("port = 9090", "port = 8080").replace("weight = 50", "weight = 100")))?;
    agent.ok(&["reload"])?;
    about(answers(&lab, 80)?, [1_500, 1_500, 0])?;
    about(answers(&lab, 81)?, [1_500, 1_500, 0])?;
    about(answers(&lab, 83)?, [750, 750, 1_500])
}
