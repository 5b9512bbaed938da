//! What a person can ask a running gateway for: the client commands and their arguments.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// A command that a running gateway answers.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Client {
    /// List the functions of a gateway
    Ls {
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Tell everything about one function
    Describe {
        /// Its name
        name: String,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Make a function, or change it into what is said here; waits until a replica takes calls
    Deploy(Box<Deploy>),
    /// Remove functions
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Set how many replicas a function has
    Scale {
        /// Its name
        name: String,
        /// How many; 0 is a number
        replicas: u64,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Call a function with what stdin brings, or with --data
    Invoke(Invoke),
    /// Show what a function's replicas write
    Logs(Logs),
    /// Make, change, list and remove secrets
    #[command(subcommand)]
    Secret(Secret),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(Keys),
    /// Look whether everything is in order: gateway, engine, network; says what to do where it is not
    Doctor {
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
}

/// Which gateway, and how its answers are shown.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Its address, with a login where it asks for one: https://user:password@host:port [env: skep_gateway, OPENFAAS_URL]
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
    /// The certificates, in PEM, that vouch for a gateway behind https, instead of those that this machine trusts [env: skep_ca]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

/// A function to make or change.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Deploy {
    /// Its name; with --file, only this one of the file's functions
    #[arg(required_unless_present = "file")]
    pub name: Option<String>,
    /// Its image
    #[arg(long, conflicts_with = "file", required_unless_present = "file")]
    pub image: Option<String>,
    /// A stack file with functions
    #[arg(long, short)]
    pub file: Option<PathBuf>,
    /// The command that its watchdog runs
    #[arg(long, conflicts_with = "file")]
    pub fprocess: Option<String>,
    /// A variable of its environment
    #[arg(long, short, value_name = "NAME=VALUE", conflicts_with = "file")]
    pub env: Vec<String>,
    /// A label
    #[arg(long, short, value_name = "NAME=VALUE", conflicts_with = "file")]
    pub label: Vec<String>,
    /// A secret that it may read
    #[arg(long, conflicts_with = "file")]
    pub secret: Vec<String>,
    /// Where it may run, such as node.role==worker
    #[arg(long, conflicts_with = "file")]
    pub constraint: Vec<String>,
    /// The memory that it may use, such as 40Mi
    #[arg(long, value_name = "AMOUNT", conflicts_with = "file")]
    pub memory: Option<String>,
    /// The processor time that it may use, such as 100m
    #[arg(long, value_name = "AMOUNT", conflicts_with = "file")]
    pub cpu: Option<String>,
    /// Give it a root that it cannot write to
    #[arg(long, conflicts_with = "file")]
    pub read_only: bool,
    /// Do not wait until a replica takes calls
    #[arg(long)]
    pub no_wait: bool,
    /// Which gateway.
    #[command(flatten)]
    pub at: At,
}

/// A call.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Invoke {
    /// The function, perhaps with a path behind it: NAME/path?query
    pub name: String,
    /// The body, instead of what stdin brings
    #[arg(long, short)]
    pub data: Option<String>,
    /// The verb
    #[arg(long, short = 'X', default_value = "POST")]
    pub method: String,
    /// A field of the request's head
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Which gateway.
    #[command(flatten)]
    pub at: At,
}

/// A look at logs.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Logs {
    /// The function
    pub name: String,
    /// Also show what is still to come
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last lines of each replica
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Only lines that are not older than this, such as 5m
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// Only this replica's
    #[arg(long, value_name = "REPLICA")]
    pub instance: Option<String>,
    /// Which gateway.
    #[command(flatten)]
    pub at: At,
}

/// What can be done with secrets. Values come from stdin: a command line can be seen by others.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Secret {
    /// List their names
    Ls {
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Make one of what stdin brings
    Create {
        /// Its name
        name: String,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Give one another value, which stdin brings
    Update {
        /// Its name
        name: String,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Remove one
    Rm {
        /// Its name
        name: String,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
}

/// What can be done with API keys.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Keys {
    /// Make one, and show it: this once
    Create(NewKey),
    /// List them, without their secrets
    Ls {
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Revoke some, at once
    Rm {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
}

/// An API key to make.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// What it is for, in your words
    pub name: Option<String>,
    /// What its holder may do: read, invoke, deploy (and read) or admin (everything); more than once for more
    #[arg(long, required = true, value_delimiter = ',')]
    pub scope: Vec<String>,
    /// A function that may be called with it, by its full name; none: all
    #[arg(long)]
    pub function: Vec<String>,
    /// After which time it ends, such as 720h; else never
    #[arg(long, value_name = "DURATION")]
    pub expires: Option<String>,
    /// Which gateway.
    #[command(flatten)]
    pub at: At,
}
