//! What a crate says about itself in its Cargo.toml.

use std::{collections::BTreeSet, fs, path::Path};

/// A crate of the workspace.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its folder, seen from the root.
    pub folder: String,
    /// Its name.
    pub name: String,
    /// What it is built with (`dependencies` and `build-dependencies`).
    pub dependencies: BTreeSet<String>,
    /// What only its tests are built with.
    pub dev_dependencies: BTreeSet<String>,
    /// Whether it takes the lints of the workspace.
    pub takes_lints: bool,
}

/// The members of the workspace.
///
/// # Errors
/// A text that names the file, when a manifest cannot be read or understood.
pub fn members(root: &Path) -> Result<Vec<Manifest>, String> {
    let workspace = table(&root.join("Cargo.toml"))?;
    let members = workspace
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(toml::Value::as_array);
    let folders = members
        .ok_or("Cargo.toml names no members")?
        .iter()
        .filter_map(toml::Value::as_str);
    folders.map(|folder| member(root, folder)).collect()
}

/// The dependencies that all crates share: name, and the line that declares it.
///
/// # Errors
/// A text when the workspace's Cargo.toml cannot be read or understood.
pub fn shared_dependencies(root: &Path) -> Result<Vec<(String, String)>, String> {
    let path = root.join("Cargo.toml");
    let workspace = table(&path)?;
    let names = workspace
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(toml::Value::as_table);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let line_of = |name: &String| {
        text.lines()
            .find(|line| line.starts_with(&format!("{name} = ")))
            .unwrap_or_default()
            .to_owned()
    };
    Ok(names
        .ok_or("Cargo.toml has no shared dependencies")?
        .keys()
        .map(|name| (name.clone(), line_of(name)))
        .collect())
}

fn member(root: &Path, folder: &str) -> Result<Manifest, String> {
    let manifest = table(&root.join(folder).join("Cargo.toml"))?;
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str);
    let mut dependencies = names(&manifest, "dependencies");
    dependencies.extend(names(&manifest, "build-dependencies"));
    Ok(Manifest {
        folder: folder.to_owned(),
        name: name
            .ok_or_else(|| format!("{folder} has no name"))?
            .to_owned(),
        dependencies,
        dev_dependencies: names(&manifest, "dev-dependencies"),
        takes_lints: manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool)
            == Some(true),
    })
}

fn names(manifest: &toml::Table, section: &str) -> BTreeSet<String> {
    let plain = manifest
        .get(section)
        .and_then(toml::Value::as_table)
        .into_iter()
        .flat_map(toml::Table::keys);
    let targets = manifest
        .get("target")
        .and_then(toml::Value::as_table)
        .into_iter()
        .flat_map(toml::Table::values);
    let by_target = targets
        .filter_map(|target| target.get(section)?.as_table())
        .flat_map(toml::Table::keys);
    plain.chain(by_target).cloned().collect()
}

fn table(path: &Path) -> Result<toml::Table, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.parse()
        .map_err(|error| format!("{}: {error}", path.display()))
}
