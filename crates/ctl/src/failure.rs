//! What can go wrong, in rabbitmqctl's words and exit codes (`rabbit_common`'s `RabbitMQ.CLI.Core.ExitCodes`).

use std::io;
use std::path::PathBuf;

use warren_control::{Failure, VERSION};

/// `EX_USAGE`: the command line makes no sense.
pub(crate) const EXIT_USAGE: u8 = 64;

/// `EX_DATAERR`: what was given cannot be used.
const EXIT_DATA: u8 = 65;

/// `EX_NOUSER`: there is no such user.
const EXIT_NO_USER: u8 = 67;

/// `EX_UNAVAILABLE`: the node does not answer, or refuses.
const EXIT_UNAVAILABLE: u8 = 69;

/// `EX_SOFTWARE`.
const EXIT_SOFTWARE: u8 = 70;

/// `EX_TEMPFAIL`: it took too long.
const EXIT_TIMEOUT: u8 = 75;

/// Why a command has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    #[error("{0}")]
    Usage(String),
    #[error(
        "unable to reach a node with the data directory {}: {source}\n\nIs it running? Its data directory can be \
         given with --data-dir or in WARREN_DATA_DIR; only its own user and root may control it.",
        data_dir.display()
    )]
    Unavailable { data_dir: PathBuf, source: io::Error },
    #[error("the connection to the node has failed: {0}")]
    Broken(io::Error),
    #[error("the node did not answer in time; --timeout gives it longer")]
    Timeout,
    #[error("{}", failure_text(.0))]
    Failed(Failure),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl CtlError {
    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Timeout => EXIT_TIMEOUT,
            Self::Failed(Failure::NotFound { kind, .. }) if kind == "vhost" => EXIT_DATA,
            Self::Failed(Failure::NotFound { kind, .. }) if kind == "user" => EXIT_NO_USER,
            Self::Failed(Failure::NotFound { kind, .. }) if kind == "queue" => EXIT_USAGE,
            Self::Failed(Failure::Exists { .. }) => EXIT_SOFTWARE,
            Self::Failed(Failure::Denied(_)) => EXIT_DATA,
            Self::Failed(Failure::Invalid(_) | Failure::Refused(_) | Failure::NotFound { .. })
            | Self::Unavailable { .. }
            | Self::Broken(_) => EXIT_UNAVAILABLE,
            Self::Failed(Failure::Version(_)) | Self::Output(_) => EXIT_SOFTWARE,
        }
    }
}

fn failure_text(failure: &Failure) -> String {
    match failure {
        Failure::NotFound { kind, name } => match kind.as_str() {
            "vhost" => format!("Virtual host '{name}' does not exist"),
            "user" => format!("User \"{name}\" does not exist"),
            "queue" => "Queue not found".to_owned(),
            "policy" | "operator policy" | "parameter" => "Parameter does not exist".to_owned(),
            kind => format!("there is no {kind} '{name}'"),
        },
        Failure::Exists { kind, name } => match kind.as_str() {
            "user" => format!("User \"{name}\" already exists"),
            "vhost" => format!("Virtual host \"{name}\" already exists"),
            kind => format!("{kind} '{name}' already exists"),
        },
        Failure::Invalid(text) | Failure::Refused(text) | Failure::Denied(text) => text.clone(),
        Failure::Version(theirs) => format!(
            "the node speaks version {theirs} of the control protocol, this command version {VERSION}: use the \
             warren command of the node's own version"
        ),
    }
}
