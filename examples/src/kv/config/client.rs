//! The configuration of a client.

use std::{path::PathBuf, time::Duration};

use super::{Address, ConfigError, Environment, File, Files, Span, Where, first_list};

/// What can be said of a client on the command line.
#[derive(Clone, Default, PartialEq, Eq, Debug, clap::Args)]
pub struct ClientFlags {
    /// A TOML file with what is not said here, the servers' own will do [environment: GRAFT_KV_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A server to ask, any of them; may be given several times [environment: GRAFT_KV_SERVERS, with commas
    /// between them]
    #[arg(long = "server", global = true, value_name = "HOST:PORT")]
    pub servers: Vec<Address>,
    /// The name in the client's certificate; `client` by default [environment: GRAFT_KV_CLIENT]
    #[arg(long = "client", global = true, value_name = "NAME")]
    pub name: Option<String>,
    /// How long the command may take, like `500ms` or `5s`; 5s by default [environment: GRAFT_KV_DEADLINE]
    #[arg(long, global = true, value_name = "TIME")]
    pub deadline: Option<Span>,
    /// A directory with ca.pem, NAME.pem and NAME-key.pem, as `graft certs` makes it [environment: GRAFT_KV_CERTS]
    #[arg(long, global = true, value_name = "DIR")]
    pub certs: Option<PathBuf>,
    /// The authority's certificate, if it is elsewhere [environment: GRAFT_KV_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The client's certificate, if it is elsewhere [environment: GRAFT_KV_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The client's private key, if it is elsewhere [environment: GRAFT_KV_KEY]
    // A command may have an argument `key` of its own.
    #[arg(id = "key_file", long = "key", global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// All that a client needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ClientSettings {
    /// Servers to ask first. They say where the others are.
    pub servers: Vec<Address>,
    /// How long a command may take.
    pub deadline: Duration,
    /// Who it is.
    pub files: Files,
}

impl ClientSettings {
    /// How long a command may take where nothing is said.
    pub const DEADLINE: Duration = Duration::from_secs(5);

    /// Puts together what flags, the environment of the process, and the file say.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load(flags: ClientFlags) -> Result<Self, ConfigError> {
        Environment::of_process(|environment| Self::load_from(flags, environment))
    }

    pub(super) fn load_from(
        flags: ClientFlags,
        environment: &Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let file = File::load(flags.config.as_deref(), environment)?;
        let table = file.client;
        let members = file.members.into_iter().map(|member| member.address).collect();
        let servers =
            [flags.servers, environment.list("GRAFT_KV_SERVERS")?, table.servers, members];
        let servers = first_list(servers);
        if servers.is_empty() {
            return Err(ConfigError::Missing {
                what: "which server to ask",
                flag: "--server HOST:PORT",
                variable: "GRAFT_KV_SERVERS",
                field: "[members]",
            });
        }
        let deadline = flags.deadline.or(environment.parsed("GRAFT_KV_DEADLINE")?);
        let name = flags.name.or(environment.text("GRAFT_KV_CLIENT")?).or(table.name);
        let name = name.unwrap_or_else(|| "client".to_owned());
        // Of what the file says of a server, only what all share is a client's, too.
        let places = [
            Where { directory: flags.certs, ca: flags.ca, cert: flags.cert, key: flags.key },
            environment.files(),
            Where { directory: table.certs, ca: table.ca, cert: table.cert, key: table.key },
            Where { directory: file.certs, ca: file.ca, ..Where::default() },
        ];
        Ok(Self {
            servers,
            deadline: deadline.or(table.deadline).map_or(Self::DEADLINE, |span| span.0),
            files: Files::find(&name, &places)?,
        })
    }
}
