//! The configuration of a server.

use std::path::PathBuf;

use super::{Address, ConfigError, Environment, File, Files, Member, Where, first_list};

/// What can be said of a server on the command line.
#[derive(Clone, Default, PartialEq, Eq, Debug, clap::Args)]
pub struct ServerFlags {
    /// A TOML file with what is not said here [environment: GRAFT_KV_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The server's name, one of the members [environment: GRAFT_KV_NAME]
    #[arg(long)]
    pub name: Option<String>,
    /// The cluster's name, as in its certificates; `graft` by default [environment: GRAFT_KV_CLUSTER]
    #[arg(long)]
    pub cluster: Option<String>,
    /// Where it listens; at its own address among the members by default [environment: GRAFT_KV_LISTEN]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<Address>,
    /// A founder of the cluster and where it is reached; once for each [environment: GRAFT_KV_MEMBERS, with
    /// commas between them]
    #[arg(long = "member", value_name = "NAME=HOST:PORT")]
    pub members: Vec<Member>,
    /// The directory of its log [environment: GRAFT_KV_DATA]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A directory with ca.pem, NAME.pem and NAME-key.pem, as `graft certs` makes it [environment: GRAFT_KV_CERTS]
    #[arg(long, value_name = "DIR")]
    pub certs: Option<PathBuf>,
    /// The authority's certificate, if it is elsewhere [environment: GRAFT_KV_CA]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The server's certificate, if it is elsewhere [environment: GRAFT_KV_CERT]
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The server's private key, if it is elsewhere [environment: GRAFT_KV_KEY]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// All that a server needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ServerSettings {
    /// Its name.
    pub name: String,
    /// Its cluster's.
    pub cluster: String,
    /// Where it listens.
    pub listen: Address,
    /// The founders, itself included.
    pub members: Vec<Member>,
    /// The directory of its log.
    pub data: PathBuf,
    /// Who it is.
    pub files: Files,
}

impl ServerSettings {
    /// Puts together what flags, the environment of the process, and the file say.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load(flags: ServerFlags) -> Result<Self, ConfigError> {
        Environment::of_process(|environment| Self::load_from(flags, environment))
    }

    pub(super) fn load_from(
        flags: ServerFlags,
        environment: &Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let file = File::load(flags.config.as_deref(), environment)?;
        let name = flags.name.or(environment.text("GRAFT_KV_NAME")?).or(file.name);
        let name = name.ok_or(ConfigError::Missing {
            what: "the server's name",
            flag: "--name NAME",
            variable: "GRAFT_KV_NAME",
            field: "name = \"NAME\"",
        })?;
        let data = flags.data.or(environment.path("GRAFT_KV_DATA")).or(file.data);
        let data = data.ok_or(ConfigError::Missing {
            what: "the directory of the server's log",
            flag: "--data DIR",
            variable: "GRAFT_KV_DATA",
            field: "data = \"DIR\"",
        })?;
        let members = [flags.members, environment.list("GRAFT_KV_MEMBERS")?, file.members];
        let members = first_list(members);
        let own = own_address(&name, &members)?;
        let listen = flags.listen.or(environment.parsed("GRAFT_KV_LISTEN")?).or(file.listen);
        let cluster = flags.cluster.or(environment.text("GRAFT_KV_CLUSTER")?).or(file.cluster);
        let places = [
            Where { directory: flags.certs, ca: flags.ca, cert: flags.cert, key: flags.key },
            environment.files(),
            Where { directory: file.certs, ca: file.ca, cert: file.cert, key: file.key },
        ];
        Ok(Self {
            files: Files::find(&name, &places)?,
            cluster: cluster.unwrap_or_else(|| "graft".to_owned()),
            listen: listen.unwrap_or(own),
            members,
            data,
            name,
        })
    }
}

/// The address of `name` among the members, each of which stands there once.
fn own_address(name: &str, members: &[Member]) -> Result<Address, ConfigError> {
    if members.is_empty() {
        return Err(ConfigError::Missing {
            what: "who founds the cluster",
            flag: "--member NAME=HOST:PORT",
            variable: "GRAFT_KV_MEMBERS",
            field: "[members]",
        });
    }
    for (at, member) in members.iter().enumerate() {
        if let Some(other) = members.iter().skip(at + 1).find(|other| other.name == member.name) {
            return Err(ConfigError::Twice {
                name: member.name.clone(),
                one: member.address.to_string(),
                other: other.address.to_string(),
            });
        }
    }
    let own = members.iter().find(|member| member.name == name);
    own.map(|member| member.address.clone()).ok_or_else(|| {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        ConfigError::NotAMember { name: name.to_owned(), members: names.join(", ") }
    })
}
