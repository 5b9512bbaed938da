//! The client commands, which a running gateway answers, and their arguments.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// A command that a running gateway answers.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Client {
    /// List the functions of a gateway
    #[command(visible_alias = "list")]
    Ls {
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Show one function: settings, endpoints, replicas and what is wrong with them
    Describe {
        /// The function's name
        name: String,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Create or update functions, and wait until all replicas of the new version are ready
    Deploy(Box<Deploy>),
    /// Remove functions
    #[command(visible_alias = "remove")]
    Rm {
        /// The functions' names
        #[arg(required = true)]
        names: Vec<String>,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Set the number of replicas of a function
    Scale {
        /// The function's name
        name: String,
        /// The number of replicas; 0 stops all of them
        #[arg(allow_negative_numbers = true)]
        replicas: u64,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Call a function; the body comes from stdin or --data
    Invoke(Invoke),
    /// Show what the replicas of a function write, in order of time
    Logs(Logs),
    /// Create, update, list and remove secrets
    #[command(subcommand)]
    Secret(Secret),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Keys(Keys),
    /// Save the login or the API key of a gateway for later commands
    Login(Login),
    /// Forget the saved login of a gateway
    Logout {
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Check gateway, engine, network and functions, and say what to do where something is wrong
    Doctor {
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
}

/// Which gateway, and how its answers are shown.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// The gateway's address: host:port, http://host:port or https://user:password@host [env: skep_gateway, OPENFAAS_URL] [default: http://127.0.0.1:8080]
    #[arg(long, short, value_name = "URL")]
    pub gateway: Option<String>,
    /// An API key for this gateway [env: skep_key] [default: what `skep login` saved]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// A PEM file with the CA of an https gateway, or with its self-signed certificate [env: skep_ca] [default: the CAs of this machine]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// A function to create or update.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Deploy {
    /// The function's name; without --image, only this function of the stack file
    pub name: Option<String>,
    /// The function's image
    #[arg(long, conflicts_with = "file", requires = "name")]
    pub image: Option<String>,
    /// A stack file with functions, or a folder with stack.yml or stack.yaml; this folder without FILE and --image
    #[arg(long, short, num_args = 0..=1, default_missing_value = ".")]
    pub file: Option<PathBuf>,
    /// The command that the watchdog runs for each call
    #[arg(long, conflicts_with = "file", requires = "image")]
    pub fprocess: Option<String>,
    /// An environment variable; repeat for more
    #[arg(
        long,
        short,
        value_name = "NAME=VALUE",
        conflicts_with = "file",
        requires = "image"
    )]
    pub env: Vec<String>,
    /// A label; repeat for more
    #[arg(
        long,
        short,
        value_name = "NAME=VALUE",
        conflicts_with = "file",
        requires = "image"
    )]
    pub label: Vec<String>,
    /// A secret that the function may read; repeat for more
    #[arg(long, conflicts_with = "file", requires = "image")]
    pub secret: Vec<String>,
    /// A placement constraint such as node.role==worker; repeat for more
    #[arg(long, conflicts_with = "file", requires = "image")]
    pub constraint: Vec<String>,
    /// The memory limit, such as 40Mi
    #[arg(
        long,
        value_name = "AMOUNT",
        conflicts_with = "file",
        requires = "image"
    )]
    pub memory: Option<String>,
    /// The CPU limit, such as 100m
    #[arg(
        long,
        value_name = "AMOUNT",
        conflicts_with = "file",
        requires = "image"
    )]
    pub cpu: Option<String>,
    /// Mount the container's root file system read-only
    #[arg(long, conflicts_with = "file", requires = "image")]
    pub read_only: bool,
    /// Return at once, without waiting for the replicas
    #[arg(long)]
    pub no_wait: bool,
    /// Which gateway.
    #[command(flatten)]
    pub at: At,
}

/// A call.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Invoke {
    /// The function, optionally with a path and a query: NAME/path?query
    pub name: String,
    /// The body, instead of stdin; @FILE reads it from a file, @- from stdin
    #[arg(long, short)]
    pub data: Option<String>,
    /// The HTTP method
    #[arg(long, short = 'X', default_value = "POST")]
    pub method: String,
    /// A request header; repeat for more
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Which gateway.
    #[command(flatten)]
    pub at: At,
}

/// Which logs to show.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Logs {
    /// The function's name
    pub name: String,
    /// Keep showing new lines
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last lines of each replica; -1 means all
    #[arg(
        long,
        short = 'n',
        alias = "lines",
        value_name = "LINES",
        allow_negative_numbers = true
    )]
    pub tail: Option<i64>,
    /// Only lines younger than this, such as 5m
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// Only lines of this replica
    #[arg(long, value_name = "REPLICA")]
    pub instance: Option<String>,
    /// Which gateway.
    #[command(flatten)]
    pub at: At,
}

/// Commands on secrets. Values come from stdin, because other users of the machine can see command lines.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Secret {
    /// List the names of all secrets
    #[command(visible_alias = "list")]
    Ls {
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Create a secret; its value comes from stdin
    Create {
        /// The secret's name
        name: String,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Update a secret; its new value comes from stdin
    Update {
        /// The secret's name
        name: String,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Remove a secret
    #[command(visible_alias = "remove")]
    Rm {
        /// The secret's name
        name: String,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
}

/// Commands on API keys.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Keys {
    /// Create a key and print it; it cannot be shown again
    Create(NewKey),
    /// List all keys, without their secrets
    #[command(visible_alias = "list")]
    Ls {
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
    /// Revoke keys, at once
    #[command(visible_alias = "remove")]
    Rm {
        /// The keys' ids
        #[arg(required = true)]
        ids: Vec<String>,
        /// Which gateway.
        #[command(flatten)]
        at: At,
    },
}

/// An API key to create.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// A name for people, such as the program that uses the key
    pub name: Option<String>,
    /// What the key allows: read, invoke, deploy (includes read) or admin (everything); repeat for more
    #[arg(long, required = true, value_delimiter = ',')]
    pub scope: Vec<String>,
    /// A function that the key may call, by its full name; repeat for more [default: all]
    #[arg(long)]
    pub function: Vec<String>,
    /// When the key expires, such as 720h [default: never]
    #[arg(long, value_name = "DURATION")]
    pub expires: Option<String>,
    /// Which gateway.
    #[command(flatten)]
    pub at: At,
}

/// The credentials to save.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user's name
    #[arg(long, short, default_value = "admin")]
    pub username: String,
    /// Read the password or the API key from stdin instead of asking for it
    #[arg(long)]
    pub password_stdin: bool,
    /// Which gateway.
    #[command(flatten)]
    pub at: At,
}
