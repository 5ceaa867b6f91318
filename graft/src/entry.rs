//! What a user's requests look like: the typed content of the log.

use std::fmt;

use crate::wire::{self, Wire};

/// A request as your type: what a client asks for, what the log holds, what the machine gets.
///
/// Entry and response need the two lines that let them travel, and `Debug`, so that
/// [`data`](crate::data()) can show the log:
///
/// ```
/// #[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
/// #[rkyv(crate = graft::rkyv)]
/// enum CounterEntry { Add(u64), Read }
///
/// impl graft::Entry for CounterEntry {
///     type Response = u64;
/// }
/// ```
///
/// Where they are forgotten the compiler says "`CounterEntry` cannot travel through graft's log" and names the
/// two lines to add above the type: `#[derive(graft::Archive, graft::Serialize, graft::Deserialize)]` and
/// `#[rkyv(crate = graft::rkyv)]`.
///
/// ```compile_fail,E0277
/// #[derive(Debug)]
/// enum CounterEntry { Add(u64), Read }
///
/// impl graft::Entry for CounterEntry {
///     type Response = u64;
/// }
/// ```
///
/// # Versions
///
/// The log outlives a build. **Whenever the type changes in any way, raise
/// [`VERSION`](Self::VERSION)**: an archive carries no description of itself, and a changed enum can read old bytes
/// as another value without noticing. Keep the old type as it was, under another name, and
/// translate it in [`upgrade`](Self::upgrade):
///
/// ```
/// mod old {
///     #[derive(graft::Archive, graft::Serialize, graft::Deserialize)]
///     #[rkyv(crate = graft::rkyv)]
///     pub enum CounterEntry { Add(u32) }
/// }
///
/// #[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
/// #[rkyv(crate = graft::rkyv)]
/// enum CounterEntry { Add(u64), Read }
///
/// impl graft::Entry for CounterEntry {
///     type Response = u64;
///     const VERSION: u16 = 1;
///     fn upgrade(version: u16, bytes: &[u8]) -> Result<Self, graft::EntryError> {
///         match version {
///             0 => Ok(match graft::decode(bytes)? {
///                 old::CounterEntry::Add(amount) => Self::Add(amount.into()),
///             }),
///             _ => Err(graft::EntryError::unknown::<Self>(version)),
///         }
///     }
/// }
/// ```
///
/// A server that meets an entry of a *newer* version stops before it applies it, with
/// `entry 123 has version 2, this build knows 1: upgrade this server first`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a graft entry",
    label = "write `impl graft::Entry for {Self} {{ type Response = ..; }}`"
)]
pub trait Entry: Wire + fmt::Debug {
    /// What the machine answers.
    type Response: Wire + fmt::Debug;

    /// The version of this type. Raise it with every change of the type; see above.
    const VERSION: u16 = 0;

    /// Makes an entry of this type from the bytes of an older version of it. [`decode`](crate::decode) reads the old type.
    ///
    /// It must give the same entry for the same bytes everywhere and for ever, as
    /// [`Machine::handle_entry`](crate::Machine::handle_entry) must: it is part of replaying the log.
    ///
    /// # Errors
    ///
    /// [`EntryError`] stops the server that replays this entry: skipping it would let the replicas
    /// drift apart. As provided it knows no older version.
    fn upgrade(version: u16, bytes: &[u8]) -> Result<Self, EntryError> {
        let _ = bytes;
        Err(EntryError::unknown::<Self>(version))
    }

    /// The name by which stores know this type: a store that was written by another one is refused.
    ///
    /// As provided it is the type's own name without its modules, so that moving it changes nothing. Say the old
    /// name here when you rename the type.
    #[must_use]
    fn name() -> String {
        short_type_name(std::any::type_name::<Self>())
    }
}

/// Why bytes are not an entry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// This build cannot read that version.
    #[error(
        "entry has version {found}, this build knows {known}: {}",
        if .found > .known { "upgrade this server first" } else { "implement `Entry::upgrade` for it" }
    )]
    UnknownVersion {
        /// The version it was written with.
        found: u16,
        /// The version of this build's type.
        known: u16,
    },
    /// The bytes are not an archive of the type.
    #[error("entry does not decode as `{entry}`: {reason}")]
    Malformed {
        /// The type that was expected.
        entry: &'static str,
        /// What is wrong with the bytes.
        reason: String,
    },
}

impl EntryError {
    /// That `version` is none that `E` reads.
    #[must_use]
    pub fn unknown<E: Entry>(version: u16) -> Self {
        Self::UnknownVersion { found: version, known: E::VERSION }
    }
}

/// Reads a value from its archive: for [`Entry::upgrade`].
///
/// # Errors
///
/// [`EntryError::Malformed`] where the bytes are not an archive of `T`.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, EntryError> {
    wire::decode(bytes).map_err(|error| EntryError::Malformed {
        entry: std::any::type_name::<T>(),
        reason: one_line(&error),
    })
}

/// Reads an entry that was written with `version`.
pub(crate) fn read<E: Entry>(version: u16, bytes: &[u8]) -> Result<E, EntryError> {
    match version.cmp(&E::VERSION) {
        std::cmp::Ordering::Equal => decode(bytes),
        std::cmp::Ordering::Less => E::upgrade(version, bytes),
        std::cmp::Ordering::Greater => Err(EntryError::unknown::<E>(version)),
    }
}

/// rkyv's errors may carry a trace of several lines; one line is what a log or a message wants.
pub(crate) fn one_line(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A type's name without the paths of modules, inside its generic arguments too.
fn short_type_name(full: &str) -> String {
    let mut short = String::with_capacity(full.len());
    let mut word = 0;
    let mut rest = full.chars().peekable();
    while let Some(character) = rest.next() {
        if character == ':' && rest.peek() == Some(&':') {
            rest.next();
            short.truncate(word);
        } else {
            short.push(character);
            // Braces are part of the path of what is declared inside a function.
            if !(character.is_alphanumeric() || "_{}#".contains(character)) {
                word = short.len();
            }
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Second {
        text: String,
        count: u64,
    }

    impl Entry for Second {
        type Response = ();
        const VERSION: u16 = 2;
        fn upgrade(version: u16, bytes: &[u8]) -> Result<Self, EntryError> {
            match version {
                1 => Ok(Self { text: decode(bytes)?, count: 0 }),
                _ => Err(EntryError::unknown::<Self>(version)),
            }
        }
    }

    fn second() -> Second {
        Second { text: "text".into(), count: 5 }
    }

    #[test]
    fn the_own_version_is_read_directly_and_an_older_one_by_upgrade() {
        let own = wire::encode(&second()).unwrap();
        assert_eq!(read::<Second>(2, &own), Ok(second()));
        let old = wire::encode(&"text".to_owned()).unwrap();
        let upgraded = read::<Second>(1, &old);
        assert_eq!(upgraded, Ok(Second { count: 0, ..second() }));
    }

    #[test]
    fn a_newer_version_says_what_to_do() {
        let own = wire::encode(&second()).unwrap();
        let error = read::<Second>(3, &own).unwrap_err();
        assert_eq!(
            error.to_string(),
            "entry has version 3, this build knows 2: upgrade this server first"
        );
        let error = read::<Second>(0, &own).unwrap_err();
        assert_eq!(
            error.to_string(),
            "entry has version 0, this build knows 2: implement `Entry::upgrade` for it"
        );
    }

    #[test]
    fn bytes_of_another_type_are_named_as_malformed() {
        let error = read::<Second>(2, &[1, 2, 3]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("entry does not decode as `graft::"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn the_name_of_a_type_leaves_its_modules_out() {
        assert_eq!(Second::name(), "Second");
        assert_eq!(short_type_name("a::b::C<d::E, (f::G, [u8; 4])>"), "C<E, (G, [u8; 4])>");
        assert_eq!(short_type_name("a::b::{{closure}}::C"), "C");
    }
}
