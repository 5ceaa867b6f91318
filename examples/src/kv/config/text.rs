//! Values that are written as text: addresses, members, spans of time.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// Why a text is not the value it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadText(String);

fn bad(problem: impl Into<String>) -> BadText {
    BadText(problem.into())
}

/// A host and a port: `10.0.0.1:4400`, `[::1]:4400`, `server1.example.org:4400`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address(String);

impl Address {
    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let form = "write it as `HOST:PORT`, like `10.0.0.1:4400` or `[::1]:4400`";
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(bad(format!("`{text}` has no port: {form}")));
        };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || host.contains(char::is_whitespace) || host.contains(':') != bracketed
        {
            return Err(bad(format!("`{text}` has no proper host: {form}")));
        }
        match port.parse::<u16>() {
            Ok(1..) => Ok(Self(text.to_owned())),
            // A port that is chosen at the start could be told to nobody.
            Ok(0) | Err(_) => {
                Err(bad(format!("`{port}` is no port from 1 to 65535 in `{text}`: {form}")))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A server of the cluster and where it is reached: `server1=10.0.0.1:4400`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where the others and clients reach it.
    pub address: Address,
}

impl FromStr for Member {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        match text.split_once('=') {
            Some((name, address)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), address: address.parse()? })
            }
            _ => Err(bad(format!(
                "`{text}` names no member: write it as `NAME=HOST:PORT`, like `server1=10.0.0.1:4400`"
            ))),
        }
    }
}

/// Members as a table of a file has them: `server1 = "10.0.0.1:4400"`.
pub(super) fn members_of_table<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Member>, D::Error> {
    let table = BTreeMap::<String, Address>::deserialize(deserializer)?;
    Ok(table.into_iter().map(|(name, address)| Member { name, address }).collect())
}

/// A span of time, more than none and at most an hour: `500ms`, `5s`, `2m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span(pub Duration);

const LONGEST: Duration = Duration::from_secs(3600);

impl FromStr for Span {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let form = "write a whole number and `ms`, `s` or `m`, like `500ms` or `5s`";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            _ => return Err(bad(format!("`{text}` is no span of time: {form}"))),
        };
        let span = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis));
        match span.map(Duration::from_millis) {
            Some(span) if !span.is_zero() && span <= LONGEST => Ok(Self(span)),
            _ => Err(bad(format!("`{text}` is not between 1ms and 60m: {form}"))),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: FromStr<Err = BadText> + fmt::Debug>(text: &str, word: &str) {
        let error = text.parse::<T>().unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("write"), "{text}: {error}");
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["10.0.0.1:4400", "[::1]:1", "server1.example.org:65535", "localhost:80"] {
            assert_eq!(text.parse::<Address>().unwrap().as_str(), text);
        }
        refused::<Address>("10.0.0.1", "no port");
        refused::<Address>("", "no port");
        for text in [":4400", "::1:4400", "[::1:4400", "a b:4400", "[host]:4400x:1"] {
            refused::<Address>(text, "host");
        }
        for text in ["host:", "host:0", "host:65536", "host:http", "host:-1"] {
            refused::<Address>(text, "is no port");
        }
    }

    #[test]
    fn a_member_is_a_name_and_an_address() {
        let member: Member = "server1=[::1]:4400".parse().unwrap();
        assert_eq!((member.name.as_str(), member.address.as_str()), ("server1", "[::1]:4400"));
        refused::<Member>("server1", "names no member");
        refused::<Member>("=10.0.0.1:4400", "names no member");
        refused::<Member>("server1=10.0.0.1", "no port");
    }

    #[test]
    fn a_span_has_a_unit_and_is_bounded() {
        for (text, millis) in [("1ms", 1), ("500ms", 500), ("5s", 5000), ("60m", 3_600_000)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for text in ["5", "s", "5 s", "5h", "-5s", "", "1.5s"] {
            let error = text.parse::<Span>().unwrap_err().to_string();
            assert!(error.contains("like `500ms`"), "{text}: {error}");
        }
        for text in ["0s", "61m", "99999999999999999999s", "18446744073709551615m"] {
            refused::<Span>(text, "between");
        }
    }
}
