//! Bodies as JSON, by a second implementation of protobuf (prost-reflect): so the
//! vectors are not only what generated code makes of its own output.
//!
//! Ids are UUID text. Other bytes are text where they are printable ASCII, else `{"hex": …}`. Enums are the names of the
//! .proto files. Numbers beyond 2^53 - 1 are decimal strings. What is not set is absent.

use std::fmt::Write as _;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value as Field};
use rialto_protocol::ids::UserId;
use serde_json::{Map, Value, json};

/// Largest integer that every JSON reader keeps exactly.
const EXACT_MAX: u64 = (1 << 53) - 1;

/// Fields of type `bytes` that hold an id or a list of ids.
const IDS: [&str; 17] = [
    "after_conversation",
    "after_user",
    "client_id",
    "conversation",
    "conversations",
    "created_by",
    "device",
    "last_user",
    "members",
    "mentions",
    "on_behalf_of",
    "parent",
    "peer",
    "sender",
    "session",
    "user",
    "users",
];

/// A message's meaning.
pub(crate) fn to_json(message: &DynamicMessage) -> Value {
    let mut object = Map::new();
    for (field, value) in message.fields() {
        object.insert(field.name().to_owned(), field_to_json(&field, value));
    }
    Value::Object(object)
}

fn field_to_json(field: &FieldDescriptor, value: &Field) -> Value {
    match value {
        Field::List(list) => list
            .iter()
            .map(|element| field_to_json(field, element))
            .collect(),
        Field::Message(message) => to_json(message),
        Field::Bool(value) => json!(value),
        Field::U32(value) => json!(value),
        Field::I32(value) => json!(value),
        Field::U64(value) if *value > EXACT_MAX => json!(value.to_string()),
        Field::U64(value) => json!(value),
        Field::String(text) => json!(text),
        Field::EnumNumber(number) => match field.kind() {
            Kind::Enum(kind) => json!(kind.get_value(*number).expect("a known value").name()),
            _ => unreachable!("only enums have enum numbers"),
        },
        Field::Bytes(bytes) if IDS.contains(&field.name()) => {
            json!(
                UserId::from_slice(bytes)
                    .expect("an id has 16 bytes")
                    .to_string()
            )
        }
        Field::Bytes(bytes) if bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) => {
            json!(std::str::from_utf8(bytes).expect("ASCII is UTF-8"))
        }
        Field::Bytes(bytes) => json!({ "hex": hex(bytes) }),
        other => unreachable!("{other:?} is not used on the wire"),
    }
}

/// The message that has this meaning.
pub(crate) fn from_json(descriptor: &MessageDescriptor, json: &Value) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for (name, value) in json.as_object().expect("a message is an object") {
        let field = descriptor
            .get_field_by_name(name)
            .unwrap_or_else(|| panic!("no field {name}"));
        let value = match value {
            Value::Array(list) => Field::List(
                list.iter()
                    .map(|element| field_from_json(&field, element))
                    .collect(),
            ),
            single => field_from_json(&field, single),
        };
        message.set_field(&field, value);
    }
    message
}

fn field_from_json(field: &FieldDescriptor, json: &Value) -> Field {
    let text = || json.as_str().expect("text");
    let number = || {
        json.as_u64()
            .unwrap_or_else(|| text().parse().expect("a number"))
    };
    match field.kind() {
        Kind::Message(descriptor) => Field::Message(from_json(&descriptor, json)),
        Kind::Bool => Field::Bool(json.as_bool().expect("a bool")),
        Kind::Uint32 => Field::U32(number().try_into().expect("32 bits")),
        Kind::Sint32 => Field::I32(
            json.as_i64()
                .expect("a number")
                .try_into()
                .expect("32 bits"),
        ),
        Kind::Uint64 => Field::U64(number()),
        Kind::String => Field::String(text().to_owned()),
        Kind::Enum(kind) => Field::EnumNumber(
            kind.get_value_by_name(text())
                .expect("a known name")
                .number(),
        ),
        Kind::Bytes if IDS.contains(&field.name()) => {
            Field::Bytes(text().parse::<UserId>().expect("an id").to_proto())
        }
        Kind::Bytes => match json.get("hex") {
            Some(hex) => Field::Bytes(unhex(hex.as_str().expect("hex")).into()),
            None => Field::Bytes(text().as_bytes().to_vec().into()),
        },
        other => unreachable!("{other:?} is not used on the wire"),
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

/// The bytes of hex.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "hex has two digits a byte");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
        .collect()
}
