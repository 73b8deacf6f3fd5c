//! Names of the streams in which entries are numbered.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};
use uuid::Uuid;

use crate::text::is_field_name;

/// The stream of an entry: a payment, or a named stream for what concerns none.
///
/// Written as `<uuid>` or `<name>/<uuid>`, UUIDs hyphenated and in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamId {
    /// A payment's own stream.
    Payment(Uuid),
    /// A named stream; build it with [`StreamId::named`].
    Named {
        /// 1 to 64 of `a-z 0-9 _ . -`, starting with a letter (checked again on encoding).
        name: String,
        /// What tells streams of one name apart: a tenant, a replica, a run of a process.
        id: Uuid,
    },
}

/// The text or name is not a stream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream is a UUID, or a name of 1 to 64 of a-z 0-9 _ . -, a slash and a UUID")]
pub struct StreamIdError;

impl StreamId {
    /// A named stream.
    pub fn named(name: impl Into<String>, id: Uuid) -> Result<Self, StreamIdError> {
        let name = name.into();
        if is_field_name(&name) {
            Ok(Self::Named { name, id })
        } else {
            Err(StreamIdError)
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payment(id) => write!(f, "{id}"),
            Self::Named { name, id } => write!(f, "{name}/{id}"),
        }
    }
}

impl FromStr for StreamId {
    type Err = StreamIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, id) = match text.split_once('/') {
            None => (None, text),
            Some((name, id)) => (Some(name), id),
        };
        let uuid = Uuid::try_parse(id).map_err(|_| StreamIdError)?;
        // One stream, one spelling: also braces, URNs and upper case parse as UUIDs.
        if uuid.to_string() != id {
            return Err(StreamIdError);
        }
        match name {
            None => Ok(Self::Payment(uuid)),
            Some(name) => Self::named(name, uuid),
        }
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_one_spelling() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        for good in [id.to_owned(), format!("audit-reads/{id}")] {
            assert_eq!(good.parse::<StreamId>().unwrap().to_string(), good);
        }
        let bad = [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("{{{id}}}"),
            format!("/{id}"),
            format!("A/{id}"),
            format!("a/b/{id}"),
            String::new(),
        ];
        for bad in bad {
            assert_eq!(bad.parse::<StreamId>(), Err(StreamIdError), "{bad}");
        }
    }
}
