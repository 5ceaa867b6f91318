//! What can be wrong with a configuration.

use std::{io, path::PathBuf};

use super::text::BadText;

/// Why there is no configuration to run with. Says what is wrong, where, and what to write instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file `{}` cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration file `{}` is not understood", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where in it, and what is wrong.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// An environment variable holds bytes that are no text.
    #[error("the environment variable `{name}` is no UTF-8: set it anew")]
    NoText {
        /// Which one.
        name: &'static str,
    },
    /// An environment variable holds what it should not.
    #[error("the environment variable `{name}` has `{value}`")]
    Variable {
        /// Which one.
        name: &'static str,
        /// What it holds, or the item of its list that is wrong.
        value: String,
        /// What is wrong with it.
        #[source]
        source: BadText,
    },
    /// Something that has no default was not said.
    #[error(
        "{what} was not said: give `{flag}`, set `{variable}`, or write `{field}` into the file of `--config`"
    )]
    Missing {
        /// What.
        what: &'static str,
        /// The flag.
        flag: &'static str,
        /// The environment variable.
        variable: &'static str,
        /// The line in the file.
        field: &'static str,
    },
    /// It was not said where a file of the identity is.
    #[error(
        "it was not said where `{file}` is: give `--certs DIR` (or `--{what} FILE`), set `GRAFT_KV_CERTS`, or write `certs` \
         into the file of `--config`; `graft certs` makes such a directory"
    )]
    NoFile {
        /// Its flag.
        what: &'static str,
        /// What it is called in a directory of certificates.
        file: String,
    },
    /// The server is none of the members.
    #[error(
        "`{name}` is none of the members ({members}): name all founders of the cluster, this server among them"
    )]
    NotAMember {
        /// The server.
        name: String,
        /// The members that were given.
        members: String,
    },
    /// A name stands twice among the members.
    #[error(
        "the member `{name}` stands twice, at `{one}` and at `{other}`: give each its own name"
    )]
    Twice {
        /// Its name.
        name: String,
        /// Its first address.
        one: String,
        /// Its second.
        other: String,
    },
}
