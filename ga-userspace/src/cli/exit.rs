//! Exit codes: the contract with scripts.

use std::{io, process::ExitCode};

use super::client::ClientError;
use crate::status::Code;

/// What `ga` ends with. Every code is listed by `ga --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or yes.
    Ok,
    /// 1: no. The check failed, the plan has differences, there is no such endpoint.
    Negative,
    /// 2: the command line is wrong. The parser ends with it by itself.
    Usage,
    /// 3: the agent cannot be reached, or does not answer.
    Unreachable,
    /// 4: the kernel or a permission stands in the way.
    Kernel,
    /// 5: somebody else holds what is needed: a foreign XDP program, a port.
    Conflict,
    /// 6: another agent holds the lock.
    Locked,
    /// 70: a fault of ours.
    Internal,
}

/// For `ga --help`; a test holds it to the enum.
pub(super) const EXIT_CODES: &str = "Exit codes:
   0  done, or yes
   1  no: the check failed, the plan has differences, there is no such endpoint
   2  the command line is wrong
   3  the agent cannot be reached, or does not answer
   4  the kernel or a permission stands in the way
   5  somebody else holds what is needed: a foreign XDP program, a port
   6  another agent holds the lock
  70  a fault in ga itself";

/// An error that chooses its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What to end with.
    pub exit: Exit,
    /// One sentence, lower case, no full stop.
    pub message: String,
}

impl Failure {
    /// An error that ends the command with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Ok, Self::Negative, Self::Usage, Self::Unreachable, Self::Kernel, Self::Conflict, Self::Locked, Self::Internal];

    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Negative => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Kernel => 4,
            Self::Conflict => 5,
            Self::Locked => 6,
            Self::Internal => 70,
        }
    }

    /// What an error ends with: what the first of its causes that knows says, otherwise [`Exit::Internal`].
    pub fn of(error: &anyhow::Error) -> Self {
        let known = error.chain().find_map(|cause| {
            let failure = cause.downcast_ref::<Failure>().map(|failure| failure.exit);
            failure.or_else(|| cause.downcast_ref::<ClientError>().map(Self::of_client))
        });
        // `ga status | head -1`: whoever read has seen enough.
        let seen_enough = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        known.unwrap_or(if seen_enough { Self::Ok } else { Self::Internal })
    }

    fn of_client(error: &ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } | ClientError::Deadline { .. } => Self::Unreachable,
            ClientError::Permission { .. } => Self::Kernel,
            ClientError::Refused(refusal) => match refusal.code {
                Code::Invalid | Code::NotFound | Code::Ambiguous => Self::Negative,
                Code::Conflict => Self::Conflict,
                Code::Forbidden | Code::Kernel => Self::Kernel,
                Code::Unavailable => Self::Unreachable,
                Code::Internal => Self::Internal,
            },
            ClientError::Protocol(_) | ClientError::Answer { .. } => Self::Internal,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::status::Refusal;

    #[test]
    fn help_lists_every_code() {
        let listed: Vec<u8> =
            EXIT_CODES.lines().skip(1).filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
        assert_eq!(listed, Exit::ALL.map(Exit::code));
    }

    #[test]
    fn an_error_keeps_its_code_through_context() {
        let refused = ClientError::Refused(Refusal::new(Code::Conflict, "eth0 has a foreign program"));
        let wrapped = Err::<(), _>(refused).context("while reloading").expect_err("an error");
        assert_eq!(Exit::of(&wrapped), Exit::Conflict);
        assert_eq!(Exit::of(&Failure::new(Exit::Locked, "the lock is held").into()), Exit::Locked);
        assert_eq!(Exit::of(&anyhow::anyhow!("surprise")), Exit::Internal);
        assert_eq!(Exit::of(&io::Error::from(io::ErrorKind::BrokenPipe).into()), Exit::Ok);
    }
}
