//! The settings in force as TOML that can be read back, and the table of the documentation.

use std::fmt::Write as _;

use super::{
    layers::Setting,
    table::{self, TABLE},
};

/// The settings as commented TOML: what each key does, what it allows, and where its value comes from.
#[must_use]
pub fn toml(settings: &[Setting]) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in settings {
        let Some(key) = table::find(setting.key) else {
            continue;
        };
        if key.section() != section {
            section = key.section();
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{section}]");
        }
        let _ = writeln!(text, "# {} Allowed: {}.", key.doc, key.kind.allowed());
        let _ = writeln!(
            text,
            "{} = {} # from: {}",
            key.short(),
            setting.value,
            setting.origin
        );
    }
    text
}

/// All keys as a table in Markdown, as it stands in docs/OPERATIONS.md.
#[must_use]
pub fn markdown() -> String {
    let mut text =
        String::from("| key | default | allowed | what it does |\n| --- | --- | --- | --- |\n");
    for key in TABLE {
        let default = if key.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", key.default)
        };
        let _ = writeln!(
            text,
            "| `{}` | {default} | {} | {} |",
            key.name,
            key.kind.allowed(),
            key.doc
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        layers::{Flag, Layers},
        load,
    };

    #[test]
    fn what_is_printed_gives_the_same_settings_when_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let set = |key: &str, value: &str| Flag {
            flag: "--set".to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let data = directory.path().join("a \"quoted\" name");
        let flags = vec![
            set("data.dir", data.to_str().unwrap()),
            set("listen.tcp", "off"),
            set("limits.publish_per_s", "0"),
        ];
        let before = load(&Layers {
            flags,
            ..Layers::default()
        });
        let file = directory.path().join("rialto.toml");
        std::fs::write(&file, toml(&before.settings)).unwrap();
        let after = load(&Layers {
            file: Some(file),
            ..Layers::default()
        });
        assert_eq!(after.problems, []);
        let values = |settings: &[Setting]| {
            settings
                .iter()
                .map(|setting| setting.value.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&before.settings), values(&after.settings));
        assert!(toml(&before.settings).contains("tcp = \"off\" # from: flag --set"));
    }

    #[test]
    fn the_table_has_a_row_for_each_key() {
        assert_eq!(markdown().lines().count(), TABLE.len() + 2);
    }
}
