//! Commands of other programs: where they run, how their progress is shown (on stderr, so that stdout can be redirected), how root is
//! asked for.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How often a step that is still at work says so, on a terminal and in a log.
const HEARTBEAT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];

/// How much of a failed step's output is shown.
const TAIL_LINES: usize = 30;

/// The folder of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// The cargo that runs this program, at the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Where a program lies: PATH, then the folders of the administrator, which an ordinary PATH leaves out.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(admin).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// How this process may act as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// It is root.
    Already,
    /// `sudo` lets it, without a question or with a person there to answer.
    Sudo,
    /// Not at all.
    No,
}

impl Root {
    /// Looks; asks for no password.
    pub(crate) fn look() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::Already;
        }
        let quiet = |command: &mut Command| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let free = quiet(Command::new("sudo").args(["-n", "true"])).is_ok_and(|status| status.success());
        let person = find_program("sudo").is_some() && std::io::stdin().is_terminal() && env::var_os("CI").is_none();
        if free || person { Self::Sudo } else { Self::No }
    }

    /// A command that runs as root, or None.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Option<Command> {
        match self {
            Self::Already => Some(Command::new(program)),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg("--preserve-env").arg(program);
                Some(command)
            }
            Self::No => None,
        }
    }
}

/// One step of a chore that may take a while: what it does, why, and how long to expect.
pub(crate) struct Step<'a> {
    /// What is done, and the name of its log.
    pub(crate) what: &'a str,
    /// Why it is needed.
    pub(crate) why: &'a str,
    /// About how long it takes.
    pub(crate) about_secs: u64,
}

impl Step<'_> {
    /// Runs `command` with its output in a log; shows that it is at work; on failure shows the end of the log.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        eprintln!("→ {} (about {} s)\n    {}", self.what, self.about_secs, self.why);
        let log = self.log_path();
        if let Some(dir) = log.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
        let started = Instant::now();
        let status = self.wait(command.stdin(Stdio::inherit()).stdout(file).stderr(errors), started)?;
        if !status.success() {
            bail!("{} failed ({status}); the end of {}:\n{}", self.what, log.display(), tail(&log));
        }
        eprintln!("  done in {} s", started.elapsed().as_secs());
        Ok(())
    }

    fn wait(&self, command: &mut Command, started: Instant) -> Result<ExitStatus> {
        let terminal = std::io::stderr().is_terminal();
        let every = HEARTBEAT[usize::from(!terminal)];
        let mut child = command.spawn().with_context(|| format!("{}: cannot start {:?}", self.what, command.get_program()))?;
        let mut said = started;
        loop {
            if let Some(status) = child.try_wait()? {
                if terminal {
                    eprint!("\r\x1b[K");
                }
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(50));
            if said.elapsed() >= every {
                said = Instant::now();
                let ending = if terminal { "\r" } else { "\n" };
                eprint!("    … {} s of about {}{ending}", started.elapsed().as_secs(), self.about_secs);
                // A terminal that went away is no reason to stop the work.
                drop(std::io::stderr().flush());
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        let name: String = self.what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        root().join("target/xtask").join(format!("{}.log", name.trim_matches('-')))
    }
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Runs a command whose output belongs on the screen; fails unless it succeeds.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let line = [program].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let status = command.status().with_context(|| format!("cannot start {line}"))?;
    if !status.success() {
        bail!("{line} failed ({status})");
    }
    Ok(())
}

/// What a command prints, or None when it cannot be started or fails.
pub(crate) fn read(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Step<'_> = Step { what: "a step of a test", why: "to see it run", about_secs: 0 };

    #[test]
    fn a_failed_step_shows_the_end_of_its_output() {
        let error = STEP.run(Command::new("sh").args(["-c", "echo the reason; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("the reason"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(show(&mut Command::new("ga-no-such-program")).is_err());
        assert_eq!(read(&mut Command::new("ga-no-such-program")), None);
        assert_eq!(find_program("ga-no-such-program"), None);
    }

    #[test]
    fn without_root_there_is_no_command() {
        assert!(Root::No.command("true").is_none());
    }
}
