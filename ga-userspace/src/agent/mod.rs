//! The agent: the only place where the rooms are wired. One task owns all state; everybody else asks it.

mod attachments;
mod certificates;
mod clock;
mod data_path;
mod error;
mod flows;
mod gate;
mod handover;
mod health;
mod mappings;
mod names;
mod next_hops;
mod overrides;
mod passive;
mod ports;
mod proxy;
mod report;
mod reset;
mod run;
mod trace;
mod trace_http;
mod watch;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aya::Ebpf;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::{
    net::UnixStream,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

pub use error::Error;
pub use run::run;
pub use trace_http::explain;

use self::{
    data_path::DataPath,
    handover::Predecessor,
    health::{Begun, Health},
    overrides::OverrideFile,
    passive::Failures,
    ports::Ports,
    reset::Resets,
    trace::{Asked, Tracer},
    watch::{Ending, Order, Watching},
};
use crate::{
    config,
    handover::{Kept, Sockets},
    health::Beliefs,
    model::{EndpointName, Intent},
    net::Net,
    plan::{self, Changes, Overrides, Plan, State},
    program,
    proxy::{Proxy, Unbound, tls::Store},
    resolve::{Addresses, KeptFile, Resolver, Wanted},
    status::{self, Action, Code, EndpointChange, EndpointPath, EndpointState, LastReload, Planned, Refusal, Reloaded, Request},
};

/// How `ga run` was called.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration.
    pub config: PathBuf,
    /// Where to answer the other verbs.
    pub admin_socket: PathBuf,
    /// Where program and maps are pinned.
    pub pin_dir: PathBuf,
    /// Where what operators set by hand is kept.
    pub state_dir: PathBuf,
    /// Take over from the agent that runs, if one does.
    pub take_over: bool,
}

/// How long the start waits for neighbours to be resolved.
const RESOLVE: Duration = Duration::from_secs(1);
/// Everything that the agent knows.
struct Agent {
    options: Options,
    started: Instant,
    started_at: u64,
    intent: Intent,
    config_hash: String,
    overrides: Overrides,
    override_file: OverrideFile,
    /// Finds out what names stand for.
    resolver: Resolver,
    /// What the plan took them to stand for.
    addresses: Addresses,
    ports: Ports,
    beliefs: Beliefs,
    health: Health,
    failures: Failures,
    plan: Plan,
    data_path: DataPath,
    proxy: Proxy,
    /// What the service manager keeps of its sockets.
    kept: Kept,
    /// What is scraped at, once more: for the agent that takes over.
    metrics: Option<std::net::TcpListener>,
    /// Where the proxy should listen and cannot.
    unbound: Vec<Unbound>,
    net: Net,
    resets: Resets,
    last_reload: LastReload,
    /// Answers that take their time.
    tasks: JoinSet<()>,
    /// The right to walk over flow memory.
    walks: Arc<Semaphore>,
    /// How they tell that something is to be done about them.
    notify: mpsc::Sender<Notice>,
    watching: Option<Watching>,
    /// The plan is new: flows that it does not let in are looked for once more.
    is_gate_new: bool,
    tracer: Option<Tracer>,
    /// Who asked to take over.
    successor: Option<UnixStream>,
}

/// What work aside has to say to the task that owns all state.
enum Notice {
    /// The watching program was loaded, or not.
    WatchLoaded(Box<Result<Ebpf, Refusal>>, Order),
    /// The tracing program was loaded, or not.
    TraceLoaded(Box<Result<Ebpf, Refusal>>, Asked),
    /// Enough was watched.
    WatchEnded(Ending),
}

/// A file that was read and found right.
struct Read {
    loaded: config::Loaded,
    text: String,
    hash: String,
}

fn read(path: &Path) -> Result<Read, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&path.display().to_string(), text)
}

fn parse(file: &str, text: String) -> Result<Read, Error> {
    let hash = format!("{:016x}", plan::fingerprint(&text));
    match config::parse(file, &text) {
        Ok(loaded) => Ok(Read { loaded, text, hash }),
        Err(report) => Err(Error::Config { report: Box::new(report), text }),
    }
}

impl Agent {
    /// Starts; what the proxy takes of `sockets` is taken out.
    async fn start(
        options: Options,
        notify: mpsc::Sender<Notice>,
        sockets: &mut Sockets,
        kept: Kept,
    ) -> Result<(Self, Option<Predecessor>), Error> {
        program::check_capabilities()?;
        let Read { mut loaded, hash, text } = read(&options.config)?;
        for warning in &loaded.warnings {
            tracing::warn!("{}: {}", options.config.display(), warning.message);
        }
        certificates::check(&Store::default(), &loaded, &text)?;
        let predecessor = handover::take_over(&options, sockets).await?;
        let lock = program::preflight(&options.pin_dir)?;
        let override_file = OverrideFile::open(&options.state_dir)?;
        let overrides = override_file.read()?;
        let mut ports = Ports::open(&options.state_dir)?;
        let given = ports.settle(&mut loaded, &text)?;
        ports.keep(given)?;
        let intent = loaded.intent;
        let mut resolver = Resolver::start(KeptFile::in_dir(&options.state_dir));
        resolver.want(Wanted::of(&intent), names::PATIENCE).await;
        let addresses = resolver.known().addresses.clone();
        let begun = Begun::read(&options.state_dir, names::roster(&intent, &addresses), intent.node.panic_threshold)?;
        let beliefs = begun.beliefs();
        let resets = Resets::open().map_err(|source| Error::System { what: "raw socket (CAP_NET_RAW)", source })?;
        let mut net = Net::connect()?;

        let mut data_path = DataPath::open(lock, &options.pin_dir, &intent.node, &net).await?;
        let plan = names::plan(&intent, &overrides, &addresses, &beliefs, data_path.running());
        let plan = data_path.keep_or_undo(plan)?;
        let applied = data_path.apply(&plan, None).await;
        data_path.keep_or_undo(applied)?;
        let resolved = data_path.resolve(&mut net, RESOLVE).await;
        data_path.keep_or_undo(resolved)?;
        let attached = data_path.attach(&intent.node, &net).await;
        data_path.keep_or_undo(attached)?;
        let health = data_path.keep_or_undo(begun.start(&mut net, proxy::addresses(&intent)).await)?;
        let failures = data_path.keep_or_undo(Failures::new(data_path.counters(), &plan))?;

        let mut proxy = data_path.keep_or_undo(proxy::start(&intent.node))?;
        // What it does not listen at is closed, but for the one of the metrics.
        let metrics = intent.node.metrics.and_then(|address| sockets.remove_entry(&address));
        proxy.inherit(std::mem::take(sockets));
        sockets.extend(metrics);
        let last_reload = LastReload { successful: true, success_at: Some(clock::unix()), failures: 0, error: None };
        let agent = Self {
            options,
            started: Instant::now(),
            started_at: clock::unix(),
            intent,
            config_hash: hash,
            overrides,
            override_file,
            resolver,
            addresses,
            ports,
            beliefs,
            health,
            failures,
            plan,
            data_path,
            proxy,
            kept,
            metrics: None,
            unbound: Vec::new(),
            net,
            resets,
            last_reload,
            tasks: JoinSet::new(),
            walks: Arc::new(Semaphore::new(1)),
            notify,
            watching: None,
            is_gate_new: true,
            tracer: None,
            successor: None,
        };
        Ok((agent, predecessor))
    }

    /// Ends everything but what it serves.
    fn into_proxy(self) -> Proxy {
        self.proxy
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Status(reply) => reply.send(self.status().map_err(|error| refusal(&error))),
            Request::Reload(reply) => {
                let answer = self.reload().await;
                reply.send(answer.map_err(|error| refusal(&error)));
            }
            Request::Plan { file, text, reply } => reply.send(self.preview(&file, text).map_err(|error| refusal(&error))),
            Request::Endpoint { endpoint, action, reply } => {
                let answer = self.change_endpoint(endpoint, action).await;
                reply.send(answer);
            }
            Request::Flows { query, reply } => self.list_flows(query, reply),
            Request::Mappings { query, reply } => reply.send(mappings::list(&self.plan, &query)),
            Request::Trace { order, reply } => self.order_trace(order, reply),
            Request::TraceHttp { order, reply } => reply.send(self.trace_http(&order)),
            Request::Watch { order, reply } => self.order_watch(order, reply),
            Request::TakeOver(stream) => self.successor = Some(stream),
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::WatchLoaded(loaded, order) => self.begin_watch(*loaded, order),
            Notice::TraceLoaded(loaded, asked) => self.begin_trace(*loaded, asked),
            Notice::WatchEnded(ending) => self.end_watch(&ending),
        }
    }

    /// Reads the configuration again and applies it; on any error what ran before runs on.
    async fn reload(&mut self) -> Result<Reloaded, Error> {
        let result = self.try_reload().await;
        match &result {
            Ok(_) => {
                self.last_reload = LastReload {
                    successful: true,
                    success_at: Some(clock::unix()),
                    failures: self.last_reload.failures,
                    error: None,
                };
            }
            Err(error) => {
                self.last_reload.successful = false;
                self.last_reload.failures += 1;
                self.last_reload.error = Some(error.to_string());
            }
        }
        result
    }

    async fn try_reload(&mut self) -> Result<Reloaded, Error> {
        let Read { mut loaded, text, hash } = read(&self.options.config)?;
        let given = self.ports.settle(&mut loaded, &text)?;
        certificates::check(&self.proxy.shared().tls, &loaded, &text)?;
        self.check_change(&loaded, text)?;
        let overrides = self.overrides.clone();
        self.resolver.want(Wanted::of(&loaded.intent), names::PATIENCE).await;
        // Kept first: a restart must give away the same.
        let before = self.ports.keep(given)?;
        let changes = match self.apply(loaded.intent, overrides).await {
            Ok(changes) => changes,
            Err(error) => {
                self.resolver.want(Wanted::of(&self.intent), Duration::ZERO).await;
                self.ports.keep(before)?;
                return Err(error);
            }
        };
        self.config_hash = hash;
        Ok(Reloaded {
            schema_version: status::SCHEMA_VERSION,
            generation: self.plan.generation.0,
            changed: !changes.noop,
            summary: summary(&changes),
            report: serde_json::to_value(&changes).unwrap_or_default(),
        })
    }

    /// What a file may not change while the agent runs.
    fn check_change(&self, loaded: &config::Loaded, text: String) -> Result<(), Error> {
        let problems = config::check_change(&self.intent, loaded);
        if !problems.is_empty() {
            let report = config::problem::Report { problems, omitted: 0, warnings: Vec::new() };
            return Err(Error::Config { report: Box::new(report), text });
        }
        let (old, new) = (&self.intent.node, &loaded.intent.node);
        let fixed = [
            ("node.interfaces", old.interfaces == new.interfaces),
            ("node.xdp_mode", old.xdp_mode == new.xdp_mode),
            ("node.flows", old.flows == new.flows),
            ("node.metrics", old.metrics == new.metrics),
            ("node.proxy_threads", old.proxy_threads == new.proxy_threads),
            ("node.hash_seed", new.hash_seed.is_none_or(|seed| seed.0 == self.data_path.running().seed)),
        ];
        match fixed.into_iter().find(|(_, same)| !same) {
            Some((key, _)) => Err(Error::NeedsRestart { key }),
            None => Ok(()),
        }
    }

    async fn apply(&mut self, intent: Intent, overrides: Overrides) -> Result<Changes, Error> {
        let addresses = self.resolver.known().addresses.clone();
        let roster = names::roster(&intent, &addresses);
        let beliefs = self.believed(&roster);
        let plan = names::plan(&intent, &overrides, &addresses, &beliefs, self.data_path.running())?;
        self.data_path.set_nat_ports(&intent.node)?;
        // New endpoints get their next hops before the first packet can choose them.
        self.data_path.follow(&mut self.net, Some(&plan)).await?;
        if let Err(error) = self.data_path.apply(&plan, Some(&self.plan)).await {
            self.data_path.set_nat_ports(&self.intent.node)?;
            return Err(error);
        }
        let changes = plan::compare(Some(&self.plan), &plan).with_served(&self.intent, &intent);
        tracing::info!(generation = plan.generation.0, moved = changes.moved_total, "applied");
        (self.intent, self.overrides, self.addresses) = (intent, overrides, addresses);
        (self.beliefs, self.plan) = (beliefs, plan);
        self.serve();
        self.end_denied();
        self.is_gate_new = true;
        self.probe(roster).await;
        Ok(changes)
    }

    fn preview(&self, file: &str, text: String) -> Result<Planned, Error> {
        let Read { mut loaded, text, .. } = parse(file, text)?;
        self.ports.settle(&mut loaded, &text)?;
        self.check_change(&loaded, text)?;
        let known = self.resolver.known();
        let beliefs = self.believed(&names::roster(&loaded.intent, &known.addresses));
        let plan = names::plan(&loaded.intent, &self.overrides, &known.addresses, &beliefs, self.data_path.running())?;
        let changes = plan::compare(Some(&self.plan), &plan).with_served(&self.intent, &loaded.intent);
        Ok(Planned {
            schema_version: status::SCHEMA_VERSION,
            changes: !changes.noop,
            summary: summary(&changes),
            report: serde_json::to_value(&changes).unwrap_or_default(),
        })
    }

    async fn change_endpoint(&mut self, path: EndpointPath, action: Action) -> Result<EndpointChange, Refusal> {
        let gone = || Refusal::new(Code::NotFound, format!("there is no endpoint {path} any more"));
        let before = self.endpoint(&path).ok_or_else(gone)?;
        let (name, weight_before) = (before.name.clone(), before.weight.0);
        let mut overrides = self.overrides.clone();
        let entry = overrides.endpoints.entry(name.clone()).or_default();
        match action {
            Action::Drain => entry.drained = true,
            Action::Undrain => entry.drained = false,
            Action::Weight(weight) => entry.weight = Some(crate::model::Weight(weight)),
        }
        if matches!(action, Action::Undrain) {
            overrides.endpoints.remove(&name);
        }
        // Kept first: a restart must not forget what was done.
        self.override_file.write(&overrides).map_err(|error| refusal(&error))?;
        if let Err(error) = self.apply(self.intent.clone(), overrides).await {
            self.override_file.write(&self.overrides).map_err(|error| refusal(&error))?;
            return Err(refusal(&error));
        }
        let after = self.endpoint(&path).ok_or_else(gone)?;
        Ok(EndpointChange {
            schema_version: status::SCHEMA_VERSION,
            endpoint: path.clone(),
            configured_weight: after.configured.0,
            weight_before,
            weight: after.weight.0,
            state: state(after),
            generation: self.plan.generation.0,
        })
    }

    fn endpoint(&self, path: &EndpointPath) -> Option<&plan::EndpointView> {
        let is_it = |name: &EndpointName| {
            name.instance.as_str() == path.instance
                && name.listener.as_str() == path.listener
                && name.group.as_str() == path.group
                && name.at() == path.address
        };
        self.plan.listeners.iter().flat_map(|listener| &listener.endpoints).find(|endpoint| is_it(&endpoint.name))
    }

    /// Attaches again what was detached and brings next hops up to date; what cannot be done now is tried again in a second.
    async fn heal(&mut self) {
        self.data_path.keep_attached(&self.intent.node, &self.net).await;
        if let Err(error) = self.data_path.follow_news(&mut self.net).await {
            tracing::error!("next hops: {error}");
        }
    }

    /// Whether any listener is one of custom routing.
    fn is_custom(&self) -> bool {
        self.plan.listeners.iter().any(|listener| listener.custom.is_some())
    }

    /// Finds ways to hosts behind custom routing that packets wait for.
    async fn look_for_hosts(&mut self) {
        match self.data_path.is_asked_for_hosts() {
            Ok(true) => {
                if let Err(error) = self.data_path.follow(&mut self.net, None).await {
                    tracing::error!("next hops: {error}");
                }
            }
            Ok(false) => {}
            Err(error) => tracing::error!("hosts behind custom routing: {error}"),
        }
    }

    /// Compares everything with what is known of it.
    async fn repair(&mut self) {
        self.data_path.end_transitions().await;
        self.data_path.repair(&self.plan);
        if let Err(error) = self.net.review().await {
            tracing::error!("netlink: {error}");
        }
    }

    /// Releases what was idle for too long, and tells both sides.
    fn sweep(&mut self) {
        if std::mem::take(&mut self.is_gate_new) {
            self.end_denied();
        }
        for idle in self.data_path.sweep() {
            if let Err(error) = self.resets.send(&idle) {
                tracing::debug!(client = %idle.client.0, "reset of an idle flow: {error}");
            }
        }
    }
}

/// Why an endpoint has the weight it has.
fn state(endpoint: &plan::EndpointView) -> EndpointState {
    if endpoint.drained {
        EndpointState::Drained
    } else if endpoint.weight.0 == 0 {
        EndpointState::Zero
    } else if !endpoint.belief.up {
        EndpointState::Unhealthy
    } else if endpoint.belief.paused {
        EndpointState::Paused
    } else {
        EndpointState::Active
    }
}

fn summary(changes: &Changes) -> Vec<String> {
    changes.render(false).lines().map(str::to_owned).collect()
}

/// The key of the hash: the file's, the one that runs, or a new one.
fn seed(intent: &Intent, running: &State) -> Result<[u64; 2], Error> {
    if let Some(seed) = intent.node.hash_seed {
        return Ok(seed.0);
    }
    if running.seed != [0, 0] {
        return Ok(running.seed);
    }
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| Error::System { what: "random numbers", source: errno.into() })?;
    let word = |half: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[half * 8 + i]));
    Ok([word(0), word(1)])
}

fn refusal(error: &Error) -> Refusal {
    let code = match error {
        Error::Config { .. } | Error::Plan(_) | Error::NeedsRestart { .. } | Error::Read { .. } => Code::Invalid,
        Error::Program(_) | Error::Maps(_) | Error::Net(_) => Code::Kernel,
        Error::Admin(_) | Error::Metrics { .. } | Error::TakeOver(_) => Code::Conflict,
        Error::State { .. } | Error::System { .. } => Code::Internal,
    };
    let refusal = Refusal::new(code, error.to_string());
    if let Error::Config { report, .. } = error {
        return refusal.with_problems(report.problems.iter().filter_map(|problem| serde_json::to_value(problem).ok()));
    }
    refusal
}
