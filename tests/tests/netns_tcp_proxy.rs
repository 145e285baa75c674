//! TCP listeners that the agent serves: nginx is told of clients by the PROXY protocol, and names in TLS lead to servers.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ga_tests::{
    lab::{Agent, EGRESS4, EGRESS6, Lab, Nginx, VIP4, VIP6, client4, client6, curl, server4, server6},
    traffic::until,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// One server of `kind`, of both families, that is told by `preserve` and probed over HTTP.
fn told(name: &str, port: &str, kind: &str, preserve: &str) -> String {
    let endpoints = [(kind, server4(1).into(), 255), (kind, server6(1).into(), 255)];
    let group = format!(
        "backend_ip_version = \"affinity\"\npreserve_client_ip = \"{preserve}\"\n\
         health_check = {{ protocol = \"http\", path = \"/health-{name}\", interval = 1, threshold = 2, initial = \"unhealthy\" }}"
    );
    Lab::listener_to(name, "tcp", port, &endpoints, "", &group)
}

// proves: C14, F04
#[test]
fn nginx_is_told_who_the_client_is_by_both_versions_and_probes_are_understood() -> Result<()> {
    let lab = Lab::new(1)?;
    lab.own_vips()?;
    let server = |port: u16| {
        format!("server {{ listen {port} proxy_protocol; listen [::]:{port} proxy_protocol; location / {{ return 200 seen; }} }}")
    };
    let nginx = Nginx::start(&lab, 1, &(server(81) + &server(82)), &[81, 82], &[])?;
    lab.configure(&(lab.head() + &told("one", "81", "nlb", "proxy_v1") + &told("two", "82", "ip", "proxy_v2")))?;
    let agent = Agent::start(&lab)?;
    // Nobody is healthy before probes are answered, which they are only with a header.
    until("probes of both families and versions", PATIENCE, || {
        let log = nginx.log("access.log");
        let answered = |port, name, egress: IpAddr| log.contains(&format!("{port} - - - {egress} 200 /health-{name}\n"));
        let both = |port, name| answered(port, name, EGRESS4.into()) && answered(port, name, EGRESS6.into());
        Ok((both("81", "one") && both("82", "two")).then_some(()))
    })
    .with_context(|| format!("{}{}", nginx.log("access.log"), nginx.log("error.log")))?;
    for port in [81, 82] {
        for (vip, client, egress) in [
            (IpAddr::from(VIP4), IpAddr::from(client4(1)), IpAddr::from(EGRESS4)),
            (VIP6.into(), client6(1).into(), EGRESS6.into()),
        ] {
            let host = if vip.is_ipv6() { format!("[{vip}]") } else { vip.to_string() };
            until("a healthy endpoint", PATIENCE, || Ok(curl(&lab.clients[0], &[], &format!("http://{host}:{port}/hi")).ok()))?;
            let line = format!("{port} {client} {vip} {port} {egress} 200 /hi\n");
            until("the line in the log", PATIENCE, || Ok(nginx.log("access.log").contains(&line).then_some(())))
                .with_context(|| format!("no {line:?} in {}", nginx.log("access.log")))?;
        }
    }
    ensure!(!nginx.log("error.log").contains("broken header"), "{}", nginx.log("error.log"));
    drop(agent);
    Ok(())
}

// proves: B05, G15
#[test]
fn names_in_tls_lead_clients_to_servers_that_end_it() -> Result<()> {
    let lab = Lab::new(2)?;
    lab.own_vips()?;
    let start = |number: usize| {
        let text = format!(
            "server {{ listen 443 ssl; listen [::]:443 ssl; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; \
             location / {{ return 200 \"server {number}\"; }} }}"
        );
        Nginx::start(&lab, number, &text, &[443], &["lab.example"])
    };
    let (_first, _second) = (start(1)?, start(2)?);
    let endpoint = |address: IpAddr| {
        format!("[[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"{address}\"\n")
    };
    let rules = "[[instance.listener.endpoint_group]]\nname = \"api\"\nkind = \"virtual\"\nregion = \"lab\"\nbackend_ip_version = \"affinity\"\n";
    let rule = |name: &str, host: &str, act: &str| {
        format!("[[instance.listener.rule]]\nname = \"{name}\"\nwhen = [{{ host = [\"{host}\"] }}]\ndo = [{act}]\n")
    };
    let text = [
        lab.head(),
        Lab::listener("web", "tcp", "443", &[255], ""),
        rules.to_owned(),
        endpoint(server4(2).into()),
        endpoint(server6(2).into()),
        rule("api", "*.api.example", "{ forward = \"api\" }"),
        rule("closed", "closed.example", "{ drop = true }"),
    ]
    .concat();
    lab.configure(&text)?;
    let agent = Agent::start(&lab)?;
    let ask = |vip: IpAddr, name: &str| {
        let at = if vip.is_ipv6() { format!("[{vip}]") } else { vip.to_string() };
        curl(&lab.clients[0], &["-k", "--resolve", &format!("{name}:443:{at}")], &format!("https://{name}/"))
    };
    for vip in [VIP4.into(), VIP6.into()] {
        for (name, server) in [("v1.api.example", "server 2"), ("api.example", "server 1"), ("www.example", "server 1")] {
            let answer = ask(vip, name)?;
            ensure!(answer == server, "{name} at {vip}: {answer}");
        }
        let refused = ask(vip, "closed.example").err().context("a connection to nowhere")?;
        ensure!(format!("{refused:#}").contains("reset"), "{refused:#}");
    }
    drop(agent);
    Ok(())
}
