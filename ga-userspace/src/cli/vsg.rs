//! `ga vsg`: the server groups of a file, and changes of them that are written back (specification §1.20, §2.6).

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Cell, CellAlignment};
use serde::Serialize;
use similar::TextDiff;

use super::{ClientError, Context, Exit, Failure, file, output::Style, units::percent};
use crate::{
    config::{
        self,
        edit::{self, Column, Replicate, Sheet},
        render,
    },
    model::{Intent, Name, Pool, Target},
    status::Reloaded,
};

pub(super) const EXAMPLES: &str =
    "Changes keep everything else in the file as it is, comments included. The file is replaced as a whole, and only by one that
`ga check` would accept; a running agent that uses it is asked first, and reloads it. --reset empties a column in all rows:
the group is saved only when the same command fills it again.

Examples:
  ga vsg list
  ga vsg show pool-a
  ga vsg set pool-a --row 2 --column weight --value 50
  ga vsg set pool-a --row 2 --column weight --replicate below
  ga vsg set pool-a --row 1 --column port --value 8080 --replicate all --dry-run
  ga vsg set pool-a --column weight --reset --values 100,50,0
  ga vsg delete pool-a";

/// Arguments of `ga vsg`.
#[derive(Clone, Debug, Args)]
pub(super) struct VsgArgs {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/ga/ga.toml")]
    config: PathBuf,
    #[command(subcommand)]
    verb: VsgVerb,
}

#[derive(Clone, Debug, Subcommand)]
enum VsgVerb {
    /// Every server group, and who uses it
    #[command(after_long_help = EXAMPLES)]
    List,
    /// The servers of a group, row by row
    #[command(after_long_help = EXAMPLES)]
    Show {
        /// Its name
        group: String,
    },
    /// Change cells of the table of servers
    #[command(after_long_help = EXAMPLES)]
    Set(SetArgs),
    /// Remove a server group that nobody uses
    #[command(after_long_help = EXAMPLES)]
    Delete {
        /// Its name
        group: String,
        /// Show what would change in the file, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Arguments of `ga vsg set`.
#[derive(Clone, Debug, Args)]
struct SetArgs {
    /// The server group
    group: String,
    /// What is changed
    #[arg(long)]
    column: ColumnWord,
    /// The current row, from 1
    #[arg(long)]
    row: Option<usize>,
    /// A new value for the current row
    #[arg(long, requires = "row", conflicts_with = "values")]
    value: Option<String>,
    /// Give the value of the current row to other rows
    #[arg(long, requires = "row", conflicts_with = "values")]
    replicate: Option<ReplicateWord>,
    /// Empty the column in all rows, before anything else
    #[arg(long)]
    reset: bool,
    /// New values for all rows, from the first
    #[arg(long, value_delimiter = ',', required_unless_present_any = ["value", "replicate", "reset"])]
    values: Vec<String>,
    /// Show what would change in the file, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ColumnWord {
    /// An address, or a name of the inventory
    Server,
    /// 1 to 65535
    Port,
    /// 0 to 100
    Weight,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReplicateWord {
    /// To the rows below
    Below,
    /// To the rows above
    Above,
    /// To all rows
    All,
}

/// Runs `ga vsg`.
pub(super) async fn run(args: &VsgArgs, context: &Context) -> anyhow::Result<Exit> {
    match &args.verb {
        VsgVerb::List => {
            let intent = file::load(&args.config, context)?.intent;
            let list = Groups::of(&intent, intent.pools.iter());
            context.output.view(&list, |style| list.overview(style))?;
        }
        VsgVerb::Show { group } => {
            let intent = file::load(&args.config, context)?.intent;
            let list = Groups::of(&intent, intent.pools.iter().filter(|pool| pool.name.as_str() == group));
            if list.groups.is_empty() {
                return Err(Failure::new(Exit::Negative, format!("there is no server group {group:?}")).into());
            }
            context.output.view(&list, |style| list.servers(style))?;
        }
        VsgVerb::Set(set) => {
            let text = file::read(&args.config)?;
            let new = set.applied(&text).map_err(|error| Failure::new(Exit::Negative, error.to_string()))?;
            save(args, &text, &new, set.dry_run, context).await?;
        }
        VsgVerb::Delete { group, dry_run } => {
            let text = file::read(&args.config)?;
            let new = deleted(&text, group, args)?;
            save(args, &text, &new, *dry_run, context).await?;
        }
    }
    Ok(Exit::Ok)
}

impl SetArgs {
    /// The text after the change.
    fn applied(&self, text: &str) -> Result<String, edit::EditError> {
        let column = match self.column {
            ColumnWord::Server => Column::Server,
            ColumnWord::Port => Column::Port,
            ColumnWord::Weight => Column::Weight,
        };
        let mut sheet = Sheet::read(text, &self.group)?;
        if self.reset {
            sheet.reset(column)?;
        }
        if !self.values.is_empty() {
            sheet.fill(column, &self.values)?;
        }
        if let (Some(row), Some(value)) = (self.row, &self.value) {
            sheet.set(row, column, value)?;
        }
        if let (Some(row), Some(to)) = (self.row, self.replicate) {
            let to = match to {
                ReplicateWord::Below => Replicate::Below,
                ReplicateWord::Above => Replicate::Above,
                ReplicateWord::All => Replicate::All,
            };
            sheet.replicate(row, column, to)?;
        }
        sheet.text()
    }
}

/// The text without the group; refused while somebody uses it.
fn deleted(text: &str, group: &str, args: &VsgArgs) -> anyhow::Result<String> {
    // A file with other problems is refused later, with all of them.
    if let Ok(loaded) = config::parse(&args.config.display().to_string(), text)
        && let Some(pool) = loaded.intent.pools.iter().find(|pool| pool.name.as_str() == group)
    {
        let users = users(&loaded.intent, &pool.name);
        if !users.is_empty() {
            let message = format!("server group {group} is in use and stays; it is used by {}", users.join(", "));
            return Err(Failure::new(Exit::Negative, message).into());
        }
    }
    edit::without(text, group).map_err(|error| Failure::new(Exit::Negative, error.to_string()).into())
}

/// Listeners that name the group, as instance/listener, and endpoint groups with an endpoint that does, as
/// instance/listener/group.
fn users(intent: &Intent, pool: &Name) -> Vec<String> {
    let mut users = Vec::new();
    for (instance, listener) in intent.listeners() {
        for group in &listener.groups {
            if group.named.iter().any(|named| named.target == Target::Pool(pool.clone())) {
                // The one group of a listener without endpoint groups has the name of its servers'.
                let is_whole = listener.groups.len() == 1 && group.name == *pool && group.endpoints.is_empty();
                let path = format!("{}/{}", instance.id, listener.name);
                users.push(if is_whole { path } else { format!("{path}/{}", group.name) });
            }
        }
    }
    users
}

/// What became of a change.
#[derive(Debug, Serialize)]
struct Saved {
    schema_version: u32,
    file: String,
    /// Whether the file is another one now.
    saved: bool,
    /// As `diff -u` shows it.
    diff: String,
    /// The agent's answer, if one runs that uses the file.
    reload: Option<Reloaded>,
}

/// Writes the file if it would be right, and has the agent read it.
async fn save(args: &VsgArgs, old: &str, new: &str, dry_run: bool, context: &Context) -> anyhow::Result<()> {
    let name = args.config.display().to_string();
    if let Err(report) = config::parse(&name, new) {
        let mut message = format!("{name} would be wrong, and stays as it is:\n");
        render::report(&mut message, &report, new, render::Style::Plain)?;
        return Err(Failure::new(Exit::Negative, message).into());
    }
    let diff = TextDiff::from_lines(old, new).unified_diff().context_radius(2).header(&name, &name).to_string();
    let mut saved = Saved { schema_version: 1, file: name.clone(), saved: false, diff, reload: None };
    if !dry_run && new != old {
        let client = context.client();
        let agent = uses(&client, args).await?;
        if agent {
            client.plan(name.clone(), new.to_owned()).await?;
        }
        file::replace(&args.config, old, new)?;
        saved.saved = true;
        if agent {
            saved.reload = Some(client.reload().await.map_err(|error| {
                let message = format!("{name} is written, but the agent does not run it: {error}; `ga reload` tries again");
                Failure::new(Exit::Negative, message)
            })?);
        }
    }
    context.output.view(&saved, |_| saved.told(dry_run))
}

/// Whether an agent runs that reads this file.
async fn uses(client: &super::Client, args: &VsgArgs) -> anyhow::Result<bool> {
    match client.status().await {
        Ok(status) => Ok(fs::canonicalize(&status.config_file).ok() == fs::canonicalize(&args.config).ok()),
        Err(ClientError::Unreachable { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Saved {
    fn told(&self, dry_run: bool) -> String {
        let file = &self.file;
        let mut out = self.diff.clone();
        out += &match (&self.reload, self.saved) {
            (Some(reloaded), _) => format!("{file} is written; generation {} is live\n", reloaded.generation),
            (None, true) => format!("{file} is written; no agent runs that uses it\n"),
            (None, false) if dry_run => format!("{file} stays as it is: --dry-run\n"),
            (None, false) => format!("{file} says so already\n"),
        };
        out
    }
}

/// The JSON document of `list` and `show`.
#[derive(Debug, Serialize)]
struct Groups {
    schema_version: u32,
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
struct Group {
    name: String,
    servers: Vec<Server>,
    /// instance/listener, or instance/listener/group.
    used_by: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Server {
    row: usize,
    address: String,
    port: u16,
    weight: u8,
    /// Of the weights of the group.
    share: f64,
    description: String,
}

impl Groups {
    fn of<'p>(intent: &Intent, pools: impl Iterator<Item = &'p Pool>) -> Self {
        let group =
            |pool: &Pool| Group { name: pool.name.to_string(), servers: servers(pool), used_by: users(intent, &pool.name) };
        Self { schema_version: 1, groups: pools.map(group).collect() }
    }

    fn overview(&self, style: &Style) -> String {
        use CellAlignment::{Left, Right};
        let mut table = style.table(&[("group", Left), ("servers", Right), ("used by", Left)]);
        for group in &self.groups {
            let used_by = if group.used_by.is_empty() { "-".to_owned() } else { group.used_by.join(", ") };
            table.add_row(vec![Cell::new(&group.name), Cell::new(group.servers.len()), Cell::new(used_by)]);
        }
        style.draw(table)
    }

    fn servers(&self, style: &Style) -> String {
        use CellAlignment::{Left, Right};
        let columns =
            [("row", Right), ("server", Left), ("port", Right), ("weight", Right), ("share", Right), ("description", Left)];
        let mut table = style.table(&columns);
        for server in self.groups.iter().flat_map(|group| &group.servers) {
            table.add_row(vec![
                Cell::new(server.row),
                Cell::new(&server.address),
                Cell::new(server.port),
                Cell::new(server.weight),
                Cell::new(percent(server.share)),
                Cell::new(if server.description.is_empty() { "-" } else { &server.description }),
            ]);
        }
        style.draw(table)
    }
}

fn servers(pool: &Pool) -> Vec<Server> {
    let sum: u32 = pool.servers.iter().map(|server| u32::from(server.weight.0)).sum();
    let server = |(row, server): (usize, &crate::model::Server)| Server {
        row,
        address: server.place.to_string(),
        port: server.port,
        weight: server.weight.0,
        share: f64::from(server.weight.0) / f64::from(sum.max(1)),
        description: server.description.clone(),
    };
    (1..).zip(&pool.servers).map(server).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, ColorChoice, Format, Output, Verb};

    const FILE: &str = "[node]\ninterfaces = [\"eth0\"]\n\n# Ours.\n[[vserver_group]]\nname = \"pool-a\"\nservers = [\n  \
                        { address = \"10.0.0.1\", port = 80, weight = 30 }, # one\n  { address = \"10.0.0.1\", port = 81, \
                        weight = 10 },\n]\n\n# Nobody's.\n[[vserver_group]]\nname = \"pool-b\"\nservers = [{ address = \
                        \"10.0.0.1\", port = 80 }]\n\n[[instance]]\nid = \"shop\"\nvips = [\"198.51.100.1\"]\n\
                        egress_ips = [\"203.0.113.1\"]\n[[instance.listener]]\nname = \"web\"\nports = \"80\"\n\
                        vserver_group = \"pool-a\"\n[[instance.listener]]\nname = \"game\"\nports = \"81\"\n\
                        [[instance.listener.endpoint_group]]\nname = \"near\"\nregion = \"eu\"\n\
                        [[instance.listener.endpoint_group.endpoint]]\ntype = \"clb\"\nvserver_group = \"pool-a\"\n";

    /// What the file is after a command, and what the command says against it.
    async fn after(words: &[&str]) -> (String, Result<(), String>) {
        let folder = tempfile::tempdir().expect("a writable /tmp");
        let (path, socket) = (folder.path().join("ga.toml"), folder.path().join("nobody.sock"));
        fs::write(&path, FILE).expect("written");
        let head = ["ga", "vsg", "--config", path.to_str().expect("text")];
        let Verb::Vsg(args) = Cli::try_parse_from(head.iter().chain(words)).expect("understood").verb else { panic!("vsg") };
        let context = Context { socket, output: Output::new(Format::Json, ColorChoice::Never) };
        let said = run(&args, &context).await.map(|_exit| ()).map_err(|error| format!("{error:#}"));
        (fs::read_to_string(&path).expect("there"), said)
    }

    #[tokio::test]
    async fn a_change_is_written_and_nothing_else_changes() {
        let (file, said) = after(&["set", "pool-a", "--row", "1", "--column", "weight", "--value", "40"]).await;
        assert_eq!((file, said), (FILE.replace("weight = 30", "weight = 40"), Ok(())));
        let words = ["set", "pool-a", "--column", "weight", "--reset", "--values", "7,8"];
        let (file, said) = after(&words).await;
        assert_eq!((file, said), (FILE.replace("weight = 30", "weight = 7").replace("weight = 10", "weight = 8"), Ok(())));
        let (file, said) = after(&["set", "pool-a", "--row", "1", "--column", "weight", "--value", "40", "--dry-run"]).await;
        assert_eq!((file.as_str(), said), (FILE, Ok(())));
    }

    // proves: K07, K10
    #[tokio::test]
    async fn what_would_be_wrong_is_refused_before_the_file_is_touched() {
        for (words, why) in [
            (&["--row", "1", "--column", "port", "--replicate", "below"][..], "is in this group already"),
            (&["--row", "2", "--column", "weight", "--value", "101"], "\"101\" is no weight of a server: 0 to 100"),
            (&["--column", "weight", "--reset"], "weight is empty in row 1, 2; fill it in the same command"),
            (&["--column", "port", "--reset"], "port is empty in row 1, 2; fill it in the same command"),
            (&["--row", "2", "--column", "port", "--reset", "--value", "8"], "port is empty in row 1; fill it"),
            (&["--row", "2", "--column", "server", "--value", "203.0.113.1"], "is an egress address of this edge"),
            (&["--row", "2", "--column", "server", "--value", "web-9"], "neither an IP address nor a name"),
        ] {
            let (file, said) = after(&[&["set", "pool-a"], words].concat()).await;
            assert_eq!(file, FILE, "{words:?}");
            let said = said.expect_err("it is refused");
            assert!(said.contains(why), "{words:?}: {said}");
        }
    }

    // proves: K09
    #[tokio::test]
    async fn a_group_in_use_stays_and_its_users_are_named() {
        let (file, said) = after(&["delete", "pool-a"]).await;
        let why = "server group pool-a is in use and stays; it is used by shop/web, shop/game/near";
        assert_eq!((file.as_str(), said), (FILE, Err(why.to_owned())));
        let (file, said) = after(&["delete", "pool-b"]).await;
        let (start, end) = FILE.split_once("# Nobody's.").expect("it is there");
        let rest = end.split_once("}]\n\n").expect("it ends").1;
        assert_eq!((file, said), (format!("{start}{rest}"), Ok(())));
        let (file, said) = after(&["delete", "pool-c"]).await;
        assert_eq!(file, FILE);
        assert!(said.expect_err("it is refused").contains("no `[[vserver_group]]` named \"pool-c\""));
    }

    #[test]
    fn groups_and_servers_are_tables() {
        let intent = config::parse("test.toml", FILE).expect("a good file").intent;
        let list = Groups::of(&intent, intent.pools.iter());
        let expected = "
  group   servers  used by
  pool-a        2  shop/web, shop/game/near
  pool-b        1  -
";
        assert_eq!(format!("\n{}", list.overview(&Style::default())), expected);
        let expected = "
  row  server    port  weight  share  description
    1  10.0.0.1    80      30  75.0%  -
    2  10.0.0.1    81      10  25.0%  -
";
        let first = Groups { schema_version: 1, groups: list.groups.into_iter().take(1).collect() };
        assert_eq!(format!("\n{}", first.servers(&Style::default())), expected);
    }
}
