//! How a server or a client of the kv example is configured: by flags, the environment and a TOML file.
//!
//! A flag wins over the environment, and that over the file. One file can serve all servers and clients: what is
//! each one's own is then said by flags or the environment.
//!
//! ```toml
//! cluster = "graft"
//! certs = "certs"                 # ca.pem, NAME.pem and NAME-key.pem, as `graft certs` writes them
//!
//! [members]
//! server1 = "10.0.0.1:4400"
//! server2 = "10.0.0.2:4400"
//! server3 = "10.0.0.3:4400"
//!
//! [client]
//! deadline = "5s"
//! ```
//!
//! Relative paths in a file begin at the file's own directory, others at the current one.

mod client;
mod error;
mod server;
mod text;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;

pub use client::{ClientFlags, ClientSettings};
pub use error::ConfigError;
pub use server::{ServerFlags, ServerSettings};
pub use text::{Address, Member, Span};

/// The environment variable that names the file.
const CONFIG: &str = "GRAFT_KV_CONFIG";

/// The files by which a server or client proves who it is, and knows the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// One's own certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where to find them, as said in one place.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Where {
    directory: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Files {
    /// The files of `name`, from the first place that says where each is: by itself, or by its directory.
    fn find(name: &str, places: &[Where]) -> Result<Self, ConfigError> {
        let find = |what: &'static str, of: fn(&Where) -> &Option<PathBuf>, file: &str| {
            let mut found = places.iter().filter_map(|place| {
                let in_directory = || place.directory.as_ref().map(|path| path.join(file));
                of(place).clone().or_else(in_directory)
            });
            found.next().ok_or(ConfigError::NoFile { what, file: file.to_owned() })
        };
        Ok(Self {
            ca: find("ca", |place| &place.ca, "ca.pem")?,
            cert: find("cert", |place| &place.cert, &format!("{name}.pem"))?,
            key: find("key", |place| &place.key, &format!("{name}-key.pem"))?,
        })
    }
}

/// What the file may say.
#[derive(Clone, Default, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    name: Option<String>,
    cluster: Option<String>,
    listen: Option<Address>,
    #[serde(deserialize_with = "text::members_of_table")]
    members: Vec<Member>,
    data: Option<PathBuf>,
    certs: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    client: ClientTable,
}

/// What the file may say of clients.
#[derive(Clone, Default, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClientTable {
    name: Option<String>,
    servers: Vec<Address>,
    deadline: Option<Span>,
    certs: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl File {
    /// Reads the file that the flag or the environment names, if one does.
    fn load(flag: Option<&Path>, environment: &Environment<'_>) -> Result<Self, ConfigError> {
        let path = flag.map(Path::to_owned).or_else(|| environment.path(CONFIG));
        path.map_or_else(|| Ok(Self::default()), |path| Self::read(&path))
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut file: Self = toml::from_str(&text).map_err(|source| ConfigError::Malformed {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let home = path.parent().unwrap_or_else(|| Path::new(""));
        for path in file.paths() {
            *path = home.join(&*path);
        }
        Ok(file)
    }

    /// All paths in it.
    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let client = &mut self.client;
        let paths = [
            &mut self.data,
            &mut self.certs,
            &mut self.ca,
            &mut self.cert,
            &mut self.key,
            &mut client.certs,
            &mut client.ca,
            &mut client.cert,
            &mut client.key,
        ];
        paths.into_iter().flatten()
    }
}

/// Where variables are looked up; a test has its own.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// Runs `with` on the environment of this process.
    fn of_process<T>(with: impl FnOnce(&Environment<'_>) -> T) -> T {
        with(&Environment(&|name| env::var_os(name)))
    }

    /// An empty variable is one that is not set: that is how it is taken back in a shell or a unit file.
    fn raw(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let text = self
            .raw(name)
            .map(|value| value.into_string().map_err(|_| ConfigError::NoText { name }));
        text.transpose()
    }

    fn parsed<T: FromStr<Err = text::BadText>>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        let parse = |text: String| {
            text.parse().map_err(|source| ConfigError::Variable { name, value: text, source })
        };
        self.text(name)?.map(parse).transpose()
    }

    /// Several, with commas between them.
    fn list<T: FromStr<Err = text::BadText>>(
        &self,
        name: &'static str,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(Vec::new()) };
        let parse = |item: &str| {
            let item = item.trim();
            let value = || item.to_owned();
            item.parse().map_err(|source| ConfigError::Variable { name, value: value(), source })
        };
        text.split(',').map(parse).collect()
    }

    fn files(&self) -> Where {
        Where {
            directory: self.path("GRAFT_KV_CERTS"),
            ca: self.path("GRAFT_KV_CA"),
            cert: self.path("GRAFT_KV_CERT"),
            key: self.path("GRAFT_KV_KEY"),
        }
    }
}

/// The first list that says anything.
fn first_list<T>(lists: impl IntoIterator<Item = Vec<T>>) -> Vec<T> {
    lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
