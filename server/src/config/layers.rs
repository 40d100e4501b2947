//! The layers that settings come from: defaults, then the file, then the environment, then flags. Every problem of every
//! layer is found in one go.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
};

use super::{
    nearest::nearest,
    problem::Problem,
    table::{self, Key, TABLE, VARIABLE_PREFIX},
    value::Value,
};

/// Environment variable that names the configuration file, as `--config` does.
pub const FILE_VARIABLE: &str = "RIALTO_CONFIG";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of keys.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File(path) => write!(out, "{}", path.display()),
            Self::Environment(variable) => write!(out, "environment variable {variable}"),
            Self::Flag(flag) => write!(out, "flag {flag}"),
        }
    }
}

/// What was said beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Variables of the environment; those that are not Rialto's are passed over.
    pub environment: Vec<(String, OsString)>,
    /// Flags, each with the key that it sets and the value.
    pub flags: Vec<Flag>,
}

/// A flag that was given.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As it was written.
    pub flag: String,
    /// Name of the key.
    pub key: String,
    /// The text.
    pub value: String,
}

/// A value with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The value in force.
    pub value: Value,
    /// Which layer said so.
    pub origin: Origin,
}

/// The settings of all keys, in the order of the table. Where a value was not allowed, the layer below stays in force.
pub(super) fn resolve(layers: &Layers, problems: &mut Vec<Problem>) -> Vec<Setting> {
    let mut settings: Vec<Setting> = TABLE.iter().map(default_of).collect();
    if let Some(path) = file_of(layers) {
        apply_file(&path, &mut settings, problems);
    }
    for (variable, text) in &layers.environment {
        apply_variable(variable, text, &mut settings, problems);
    }
    for flag in &layers.flags {
        let origin = Origin::Flag(flag.flag.clone());
        match table::find(&flag.key) {
            Some(key) => set(
                key,
                key.kind.parse(&flag.value),
                &flag.value,
                origin,
                &mut settings,
                problems,
            ),
            None => problems.push(unknown(&flag.key, origin)),
        }
    }
    settings
}

fn default_of(key: &Key) -> Setting {
    // A test parses every default.
    let value = key
        .kind
        .parse(key.default)
        .unwrap_or(Value::Text(String::new()));
    Setting {
        key: key.name,
        value,
        origin: Origin::Default,
    }
}

fn file_of(layers: &Layers) -> Option<PathBuf> {
    let named = || {
        layers
            .environment
            .iter()
            .find(|(variable, _)| variable == FILE_VARIABLE)
            .map(|(_, path)| PathBuf::from(path))
    };
    layers.file.clone().or_else(named)
}

fn apply_file(path: &Path, settings: &mut [Setting], problems: &mut Vec<Problem>) {
    let document = match std::fs::read_to_string(path) {
        Ok(text) => text
            .parse::<toml::Table>()
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let document = match document {
        Ok(document) => document,
        Err(cause) => {
            problems.push(Problem::File {
                path: path.to_owned(),
                cause: cause.trim_end().to_owned(),
            });
            return;
        }
    };
    for (section, content) in document {
        let toml::Value::Table(keys) = content else {
            problems.push(unknown(&section, Origin::File(path.to_owned())));
            continue;
        };
        for (short, value) in keys {
            let name = format!("{section}.{short}");
            let origin = Origin::File(path.to_owned());
            match table::find(&name) {
                Some(key) => set(
                    key,
                    key.kind.of_toml(&value),
                    &value.to_string(),
                    origin,
                    settings,
                    problems,
                ),
                None => problems.push(unknown(&name, origin)),
            }
        }
    }
}

/// A variable that begins like one of ours and is none is a mistake when its section is known or a name is near;
/// others belong to other programs.
fn apply_variable(
    variable: &str,
    value: &OsStr,
    settings: &mut [Setting],
    problems: &mut Vec<Problem>,
) {
    let origin = Origin::Environment(variable.to_owned());
    let text = value.to_string_lossy();
    let Some(rest) = variable.strip_prefix(VARIABLE_PREFIX) else {
        return;
    };
    if variable == FILE_VARIABLE {
        return;
    }
    if let Some(key) = TABLE.iter().find(|key| key.variable() == variable) {
        let parsed = match value.to_str() {
            Some(text) => key.kind.parse(text),
            None => Err(format!("{}, in UTF-8", key.kind.allowed())),
        };
        set(key, parsed, &text, origin, settings, problems);
        return;
    }
    if is_of_a_service(rest, &text) {
        return;
    }
    let names: Vec<String> = TABLE
        .iter()
        .map(Key::variable)
        .chain([FILE_VARIABLE.to_owned()])
        .collect();
    let meant = nearest(variable, names.iter().map(String::as_str)).map(str::to_owned);
    let in_section = TABLE
        .iter()
        .any(|key| rest.starts_with(&format!("{}_", key.section().to_ascii_uppercase())));
    if in_section || meant.is_some() {
        problems.push(Problem::Unknown {
            name: variable.to_owned(),
            origin,
            meant,
        });
    }
}

/// Whether it is one of the variables that Kubernetes sets for each service of a namespace, here one whose name begins with
/// `rialto` ("Environment variables" of its page "Service"): `X_SERVICE_HOST`, `X_SERVICE_PORT`, `X_SERVICE_PORT_NAME`,
/// `X_PORT=tcp://…` and `X_PORT_4401_TCP…`.
fn is_of_a_service(rest: &str, text: &str) -> bool {
    let numbered = |(_, after): (&str, &str)| {
        let port = after.split('_').next().unwrap_or_default();
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    rest.ends_with("SERVICE_HOST")
        || rest.ends_with("SERVICE_PORT")
        || rest.contains("SERVICE_PORT_")
        || (rest.ends_with("PORT") && text.contains("://"))
        || rest.split_once("PORT_").is_some_and(numbered)
}

fn unknown(name: &str, origin: Origin) -> Problem {
    let meant = nearest(name, TABLE.iter().map(|key| key.name)).map(str::to_owned);
    Problem::Unknown {
        name: name.to_owned(),
        origin,
        meant,
    }
}

fn set(
    key: &'static Key,
    value: Result<Value, String>,
    text: &str,
    origin: Origin,
    settings: &mut [Setting],
    problems: &mut Vec<Problem>,
) {
    match value {
        Err(allowed) => problems.push(Problem::Value {
            key: key.name,
            text: text.to_owned(),
            origin,
            allowed,
        }),
        Ok(value) => {
            if let Some(setting) = settings.iter_mut().find(|setting| setting.key == key.name) {
                setting.value = value;
                setting.origin = origin;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(layers: &Layers) -> (Vec<Setting>, Vec<String>) {
        let mut problems = Vec::new();
        let settings = resolve(layers, &mut problems);
        (settings, problems.iter().map(ToString::to_string).collect())
    }

    fn of(settings: &[Setting], key: &str) -> Setting {
        settings
            .iter()
            .find(|setting| setting.key == key)
            .unwrap()
            .clone()
    }

    fn variable(name: &str, value: &str) -> (String, OsString) {
        (name.to_owned(), value.into())
    }

    #[test]
    fn flags_overrule_the_environment_and_the_environment_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rialto.toml");
        std::fs::write(
            &file,
            "[listen]\ntcp = \"127.0.0.1:1\"\ntls = \"127.0.0.1:1\"\nops = \"127.0.0.1:1\"",
        )
        .unwrap();
        let layers = Layers {
            file: Some(file.clone()),
            environment: vec![
                variable("RIALTO_LISTEN_TLS", "127.0.0.1:2"),
                variable("RIALTO_LISTEN_OPS", "127.0.0.1:2"),
            ],
            flags: vec![Flag {
                flag: "--ops".to_owned(),
                key: "listen.ops".to_owned(),
                value: "127.0.0.1:3".to_owned(),
            }],
        };
        let (settings, problems) = resolved(&layers);
        assert_eq!(problems, [""; 0]);
        assert_eq!(of(&settings, "listen.tcp").origin, Origin::File(file));
        assert_eq!(
            of(&settings, "listen.tls").origin,
            Origin::Environment("RIALTO_LISTEN_TLS".to_owned())
        );
        assert_eq!(
            of(&settings, "listen.ops").value,
            Value::Address(Some("127.0.0.1:3".parse().unwrap()))
        );
        assert_eq!(of(&settings, "listen.quic").origin, Origin::Default);
    }

    #[test]
    fn all_problems_are_found_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rialto.toml");
        std::fs::write(&file, "stray = 1\n[listen]\ntpc = \"127.0.0.1:1\"\n[limits]\npublish_per_s = \"10\"\nframe_bytes_max = 1").unwrap();
        let layers = Layers {
            file: Some(file),
            environment: vec![
                variable("RIALTO_LIMITS_COLOUR", "1"),
                variable("RIALTO_LISTEN_QUIC", "everywhere"),
                variable("RIALTO_SOAK_HOURS", "1"),
            ],
            flags: vec![Flag {
                flag: "--set".to_owned(),
                key: "log.formt".to_owned(),
                value: "json".to_owned(),
            }],
        };
        let (_, problems) = resolved(&layers);
        let expected = [
            "unknown key \"stray\"",
            "unknown key \"listen.tpc\"",
            "listen.tcp",
            "limits.publish_per_s",
            "a whole number of bytes from 196608 to 1048576",
            "RIALTO_LIMITS_COLOUR",
            "everywhere",
            "did you mean \"log.format\"?",
        ];
        for part in expected {
            assert!(
                problems.iter().any(|problem| problem.contains(part)),
                "{part}: {problems:#?}"
            );
        }
        assert_eq!(problems.len(), 7, "{problems:#?}");
    }

    /// Else the data would lie where it lies by default, and nobody would know.
    #[test]
    fn a_value_that_is_no_text_is_not_passed_over() {
        use std::os::unix::ffi::OsStringExt as _;

        let layers = Layers {
            environment: vec![(
                "RIALTO_DATA_DIR".to_owned(),
                OsString::from_vec(vec![b'/', 0xff]),
            )],
            ..Layers::default()
        };
        let (_, problems) = resolved(&layers);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("RIALTO_DATA_DIR"), "{problems:?}");
        assert!(problems[0].contains("UTF-8"), "{problems:?}");
    }

    /// Of services called `rialto`, `rialto-tls` and `rialto-broker`.
    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_passed_over() {
        let ours = |name: &str, value: &str| {
            let layers = Layers {
                environment: vec![variable(name, value)],
                ..Layers::default()
            };
            resolved(&layers).1.len()
        };
        for (name, value) in [
            ("RIALTO_SERVICE_HOST", "10.0.0.1"),
            ("RIALTO_PORT", "tcp://10.0.0.1:4401"),
            ("RIALTO_TLS_SERVICE_HOST", "10.0.0.1"),
            ("RIALTO_TLS_SERVICE_PORT", "4401"),
            ("RIALTO_TLS_SERVICE_PORT_CHAT", "4401"),
            ("RIALTO_TLS_PORT", "tcp://10.0.0.1:4401"),
            ("RIALTO_TLS_PORT_4401_TCP", "tcp://10.0.0.1:4401"),
            ("RIALTO_BROKER_PORT_4400_UDP_ADDR", "10.0.0.1"),
            ("RIALTO_BROKER_PORT_4400_UDP_PROTO", "udp"),
        ] {
            assert_eq!(ours(name, value), 0, "{name}");
        }
        assert_eq!(
            ours("RIALTO_TLS_PORT", "4401"),
            1,
            "that is somebody's mistake"
        );
        assert_eq!(ours("RIALTO_TLS_PORT_KEY", "a"), 1);
    }

    #[test]
    fn a_file_that_is_missing_or_no_toml_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rialto.toml");
        let layers = Layers {
            file: Some(file.clone()),
            ..Layers::default()
        };
        assert!(resolved(&layers).1[0].contains("rialto.toml"));
        std::fs::write(&file, "[listen\n").unwrap();
        assert!(
            resolved(&layers).1[0].contains("line 1"),
            "{:?}",
            resolved(&layers).1
        );
    }
}
