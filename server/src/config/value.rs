//! Values of keys: from text and from TOML, and back.

use std::{fmt, net::SocketAddr, path::PathBuf};

use super::table::Kind;

/// A value that is allowed for its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Number`].
    Number(u64),
    /// Of [`Kind::Address`]; none: off.
    Address(Option<SocketAddr>),
    /// Of [`Kind::Path`] and [`Kind::OptionalPath`]; none: left out.
    Path(Option<PathBuf>),
    /// Of [`Kind::Choice`] and [`Kind::Text`].
    Text(String),
}

impl Kind {
    /// The value that a text stands for, as in a flag or an environment variable.
    ///
    /// # Errors
    /// What would be allowed, in words.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let value = match self {
            Self::Number { min, max, .. } => {
                let number = text
                    .replace('_', "")
                    .parse()
                    .ok()
                    .filter(|number| (min..=max).contains(number));
                number.map(Value::Number)
            }
            Self::Address => match text {
                "off" => Some(Value::Address(None)),
                _ => text
                    .replace("localhost:", "127.0.0.1:")
                    .parse()
                    .ok()
                    .map(|address| Value::Address(Some(address))),
            },
            // An empty one would be the folder that we happen to be in.
            Self::Path => (!text.is_empty()).then(|| Value::Path(Some(text.into()))),
            Self::OptionalPath => Some(Value::Path((!text.is_empty()).then(|| text.into()))),
            Self::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Self::Text => (!text.is_empty()).then(|| Value::Text(text.to_owned())),
        };
        value.ok_or_else(|| self.allowed())
    }

    /// The value that a TOML value stands for: numbers without quotes, everything else in quotes.
    ///
    /// # Errors
    /// What would be allowed, in words.
    pub fn of_toml(self, value: &toml::Value) -> Result<Value, String> {
        match (self, value) {
            (Self::Number { .. }, toml::Value::Integer(number)) => self.parse(&number.to_string()),
            (Self::Number { .. }, _) | (_, toml::Value::Integer(_)) => Err(self.allowed()),
            (_, toml::Value::String(text)) => self.parse(text),
            _ => Err(self.allowed()),
        }
    }

    /// What is allowed, in words: range and unit, or the words themselves.
    #[must_use]
    pub fn allowed(self) -> String {
        match self {
            Self::Number { min, max, unit } => {
                format!("a whole number of {unit} from {min} to {max}")
            }
            Self::Address => {
                "IP:PORT such as \"127.0.0.1:4400\" (port 0 picks a free one), or \"off\""
                    .to_owned()
            }
            Self::Path => "a path that is not empty".to_owned(),
            Self::OptionalPath => "a path".to_owned(),
            Self::Choice(words) => words
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(" or "),
            Self::Text => "a text that is not empty".to_owned(),
        }
    }
}

impl fmt::Display for Value {
    /// As it is written in TOML.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Number(number) => return write!(out, "{number}"),
            Self::Address(None) => "off".to_owned(),
            Self::Address(Some(address)) => address.to_string(),
            Self::Path(None) => String::new(),
            Self::Path(Some(path)) => path.display().to_string(),
            Self::Text(text) => text.clone(),
        };
        write!(out, "{}", toml::Value::String(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Kind = Kind::Number {
        min: 1,
        max: 100,
        unit: "bytes",
    };

    #[test]
    fn numbers_are_held_to_their_range() {
        assert_eq!(BYTES.parse("1_0"), Ok(Value::Number(10)));
        for text in [
            "0",
            "101",
            "-1",
            "1.5",
            "",
            "ten",
            "99999999999999999999999",
        ] {
            assert_eq!(
                BYTES.parse(text),
                Err("a whole number of bytes from 1 to 100".to_owned()),
                "{text}"
            );
        }
        assert!(
            BYTES
                .of_toml(&toml::Value::String("10".to_owned()))
                .is_err(),
            "a number in quotes is a mistake"
        );
    }

    #[test]
    fn addresses_are_numbers_with_a_port_or_off() {
        assert_eq!(Kind::Address.parse("off"), Ok(Value::Address(None)));
        assert_eq!(
            Kind::Address.parse("localhost:80"),
            Kind::Address.parse("127.0.0.1:80")
        );
        for text in ["127.0.0.1", "example.org:80", "[::1]", "0"] {
            assert!(Kind::Address.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_printed_as_toml_that_reads_back() {
        for (kind, text) in [
            (BYTES, "7"),
            (Kind::Address, "[::1]:80"),
            (Kind::Path, "a \"b\""),
            (Kind::Text, "x\\y"),
            (Kind::Address, "off"),
        ] {
            let value = kind.parse(text).unwrap();
            let document: toml::Table = format!("key = {value}").parse().unwrap();
            assert_eq!(kind.of_toml(&document["key"]), Ok(value));
        }
    }
}
