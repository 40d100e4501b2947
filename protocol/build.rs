//! Generates the messages of `proto/` and, from the same descriptors, the tables that the scan of bodies reads.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const FILES: [&str; 2] = ["rialto/v1/event.proto", "rialto/v1/wire.proto"];
/// Package of every message, as it stands before type names in descriptors.
const PACKAGE: &str = ".rialto.v1.";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let tables = tables(&descriptors)?;
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(descriptors)?;
    fs::write(
        PathBuf::from(env::var("OUT_DIR")?).join("schema.rs"),
        tables,
    )?;
    Ok(())
}

/// One static `Message` for each message, and the `Body` that leads to it.
fn tables(descriptors: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let mut out = String::new();
    let messages = descriptors.file.iter().flat_map(|file| &file.message_type);
    let mut fields_max = 0;
    for message in messages {
        if !message.nested_type.is_empty() {
            return Err(format!(
                "{}: nested types and maps are not used on the wire",
                message.name()
            )
            .into());
        }
        fields_max = fields_max.max(message.field.len());
        table(&mut out, message)?;
    }
    writeln!(
        out,
        "/// Most fields that a message has.\nconst FIELDS_MAX: usize = {fields_max};"
    )?;
    Ok(out)
}

fn table(out: &mut String, message: &DescriptorProto) -> Result<(), Box<dyn Error>> {
    let name = message.name();
    let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
    fields.sort_by_key(|field| field.number());
    writeln!(
        out,
        "static {}: Message = Message {{\n    name: \"{name}\",\n    fields: &[",
        static_name(name)
    )?;
    for field in fields {
        let shape = shape(field)
            .ok_or_else(|| format!("{name}.{}: type not used on the wire", field.name()))?;
        let cap = match (field.label(), field.r#type()) {
            (Label::Repeated, _) => format!(
                "Cap::Repeated(limits::repeated_max(\"{name}.{}\"))",
                field.name()
            ),
            (_, Type::Message) => "Cap::Once".to_owned(),
            _ => "Cap::LastWins".to_owned(),
        };
        writeln!(
            out,
            "        Field {{ number: {}, name: \"{}\", shape: {shape}, cap: {cap} }},",
            field.number(),
            field.name()
        )?;
    }
    writeln!(out, "    ],\n}};")?;
    writeln!(
        out,
        "impl Body for crate::v1::{name} {{\n    fn schema() -> &'static Message {{\n        &{}\n    }}\n}}",
        static_name(name)
    )?;
    Ok(())
}

fn shape(field: &FieldDescriptorProto) -> Option<String> {
    let shape = match field.r#type() {
        Type::Double | Type::Fixed64 | Type::Sfixed64 => "Shape::Fixed64".to_owned(),
        Type::Float | Type::Fixed32 | Type::Sfixed32 => "Shape::Fixed32".to_owned(),
        Type::String | Type::Bytes => "Shape::Bytes".to_owned(),
        Type::Message => format!(
            "Shape::Message(&{})",
            static_name(field.type_name().strip_prefix(PACKAGE)?)
        ),
        Type::Group => return None,
        _ => "Shape::Varint".to_owned(),
    };
    Some(shape)
}

/// `MembersPage` → `MEMBERS_PAGE`.
fn static_name(message: &str) -> String {
    let mut name = String::new();
    for (index, letter) in message.char_indices() {
        if index > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
