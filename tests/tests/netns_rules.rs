//! Forwarding rules with real clients (curl) and nginx behind the edge, and `ga trace http` of the agent that serves them.

use anyhow::{Context as _, Result, ensure};
use ga_tests::lab::{Agent, Lab, Nginx, VIP4, client4, server4};

/// nginx on a server: it says the server's number and what it was asked.
fn nginx(lab: &Lab, number: usize) -> Result<Nginx> {
    let servers =
        format!("server {{ listen 80; location / {{ return 200 \"{number} $http_host $request_uri $http_x_src\"; }} }}");
    Nginx::start(lab, number, &servers, &[80], &[])
}

fn group(name: &str, kind: &str, number: usize) -> String {
    format!(
        "[[instance.listener.endpoint_group]]\nname = \"{name}\"\nkind = \"{kind}\"\nregion = \"lab\"\n\
         [[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"{}\"\n",
        server4(number)
    )
}

const RULES: &str = r#"
[[instance.listener.rule]]
name = "wide"
priority = 50
when = [{ path = "/a/*" }]
do = [{ forward = "third" }]
[[instance.listener.rule]]
name = "api"
priority = 5
when = [{ host = "*.example.com" }, { path = "~^/a/(.*)$" }]
do = [
  { rewrite = { domain = "inside.example", path = "/v1/${1}" } },
  { add_header = { name = "x-src", system = "ClientSrcIp" } },
  { forward = "second" },
]
[[instance.listener.rule]]
name = "moved"
when = [{ path = "/old" }]
do = [{ redirect = { protocol = "HTTPS", port = 443, code = 308 } }]
[[instance.listener.rule]]
name = "closed"
when = [{ path = "/closed" }]
do = [{ fixed_response = { code = 503, content = "closed" } }]
[[instance.listener.rule]]
name = "scanners"
when = [{ path = "/scan" }]
do = [{ drop = true }]
"#;

// proves: B03, G01, G02, G03, G05, G07, G08, G10, G11, G12, G13, G14
#[test]
fn curl_gets_what_the_rules_say_and_the_trace_says_the_same() -> Result<()> {
    let lab = Lab::new(3)?;
    let _servers: Vec<_> = (1..=3).map(|number| nginx(&lab, number)).collect::<Result<_>>()?;
    let listener = "\n[[instance.listener]]\nname = \"site\"\nprotocol = \"http\"\nports = \"80\"\n";
    let groups = group("first", "default", 1) + &group("second", "virtual", 2) + &group("third", "virtual", 3);
    lab.configure(&(lab.head() + listener + &groups + RULES))?;
    let agent = Agent::start(&lab)?;
    let curl = |host: &str, path: &str| {
        let (field, url) = (format!("Host: {host}"), format!("http://{VIP4}{path}"));
        let out = "%{http_code} %{redirect_url}";
        let words = ["curl", "-sg", "--max-time", "10", "-H", &field, "-w", out, &url];
        let output = lab.clients[0].command(&words).output().context("curl")?;
        anyhow::Ok((output.status.code(), String::from_utf8(output.stdout)?))
    };
    let trace = |host: &str, path: &str| agent.ok(&["trace", "http", "--host", host, "--path", path]);
    let client = client4(1);
    for (host, path, answer, told) in [
        ("www.example.com", "/a/b?c=d", format!("2 inside.example /v1/b?c=d {client}200 "), "rule      api (priority 5) applies"),
        ("www.example.org", "/a/b", "3 www.example.org /a/b 200 ".to_owned(), "rule      wide (priority 50) applies"),
        ("www.example.com", "/b", "1 www.example.com /b 200 ".to_owned(), "none applies: the default endpoint groups"),
        ("x.example", "/old", "308 https://x.example/old".to_owned(), "redirect: 308 to https://x.example/old"),
        ("x.example", "/closed", "closed503 ".to_owned(), "fixed_response: 503, 6 bytes of text/plain"),
    ] {
        let (code, got) = curl(host, path)?;
        ensure!(code == Some(0) && got == answer, "{host}{path}: {code:?} {got:?}, not {answer:?}");
        let said = trace(host, path)?;
        ensure!(said.contains(told), "{host}{path}: {said}");
    }
    // An empty answer is 52 to curl.
    let (code, got) = curl("x.example", "/scan")?;
    ensure!(code == Some(52) && got.starts_with("000"), "{code:?} {got:?}");
    ensure!(trace("x.example", "/scan")?.ends_with("\ndrop\n"), "{}", trace("x.example", "/scan")?);
    let said = trace("www.example.org", "/a/b")?;
    ensure!(said.contains("api (priority 5) does not apply: the host \"www.example.org\" is not *.example.com"), "{said}");
    ensure!(said.contains(&format!("endpoint  {}:80 of group third, 100.0 %", server4(3))), "{said}");
    Ok(())
}
