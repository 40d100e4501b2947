//! The walk over a body's bytes that comes before decoding: it knows every message's fields, takes no memory, and refuses
//! what would make decoding take much.

use super::{BodyError, FIELDS_MAX};
use crate::limits;
use crate::wire::{Reader, WireType};

/// What the scan knows of a message. Made by the build script.
#[derive(Debug)]
pub struct Message {
    pub(super) name: &'static str,
    /// By rising number.
    pub(super) fields: &'static [Field],
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) cap: Cap,
}

/// How a field's value stands on the wire.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code)] // No message has a fixed number yet.
pub(super) enum Shape {
    Varint,
    Fixed32,
    Fixed64,
    /// Bytes or text.
    Bytes,
    Message(&'static Message),
}

/// How often a field may stand in one message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cap {
    /// A scalar: any number of times, the last one counts.
    LastWins,
    /// A message.
    Once,
    /// A list of at most so many elements.
    Repeated(usize),
}

/// Refuses bytes whose decoding is not bounded.
pub(super) fn check(message: &'static Message, bytes: &[u8]) -> Result<(), BodyError> {
    Scan { elements: 0 }.message(message, bytes, 1)
}

struct Scan {
    /// Of all lists so far.
    elements: usize,
}

impl Scan {
    fn message(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(), BodyError> {
        if depth > limits::BODY_DEPTH_MAX {
            return Err(BodyError::TooDeep);
        }
        let mut counts = [0_usize; FIELDS_MAX];
        let mut expected = 0;
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let (number, wire_type) = reader.tag()?;
            let Some(index) = find(message.fields, number, expected) else {
                // However many: a list of a later version is as many fields as it has elements. They take no memory.
                reader.skip(wire_type)?;
                continue;
            };
            expected = index;
            let field = &message.fields[index];
            let occurrences = self.value(message, field, wire_type, &mut reader, depth)?;
            counts[index] += occurrences;
            self.count(message, field, counts[index], occurrences)?;
        }
        Ok(())
    }

    /// Reads one value, or a packed run of them; returns how many.
    fn value(
        &mut self,
        message: &'static Message,
        field: &Field,
        wire_type: WireType,
        reader: &mut Reader<'_>,
        depth: usize,
    ) -> Result<usize, BodyError> {
        let repeated = matches!(field.cap, Cap::Repeated(_));
        match (field.shape, wire_type) {
            (Shape::Message(nested), WireType::Len) => {
                self.message(nested, reader.len_prefixed()?, depth + 1)?;
            }
            (Shape::Bytes, WireType::Len)
            | (Shape::Varint, WireType::Varint)
            | (Shape::Fixed32, WireType::Fixed32)
            | (Shape::Fixed64, WireType::Fixed64) => reader.skip(wire_type)?,
            (Shape::Varint, WireType::Len) if repeated => return packed(reader, WireType::Varint),
            (Shape::Fixed32, WireType::Len) if repeated => {
                return packed(reader, WireType::Fixed32);
            }
            (Shape::Fixed64, WireType::Len) if repeated => {
                return packed(reader, WireType::Fixed64);
            }
            _ => {
                return Err(BodyError::WireType {
                    message: message.name,
                    field: field.name,
                });
            }
        }
        Ok(1)
    }

    fn count(
        &mut self,
        message: &'static Message,
        field: &Field,
        count: usize,
        added: usize,
    ) -> Result<(), BodyError> {
        match field.cap {
            Cap::LastWins => Ok(()),
            Cap::Once if count > 1 => Err(BodyError::Twice {
                message: message.name,
                field: field.name,
            }),
            Cap::Once => Ok(()),
            Cap::Repeated(elements_max) => {
                self.elements += added;
                if count > elements_max {
                    Err(BodyError::TooManyElements {
                        message: message.name,
                        field: field.name,
                        elements_max,
                    })
                } else if self.elements > limits::ELEMENTS_PER_BODY_MAX {
                    Err(BodyError::TooManyElementsInAll)
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Index of the field with this number. Encoders write in rising order, so the search begins at the field before.
#[inline]
fn find(fields: &[Field], number: u32, expected: usize) -> Option<usize> {
    let start = if fields
        .get(expected)
        .is_some_and(|field| field.number <= number)
    {
        expected
    } else {
        0
    };
    fields[start..]
        .iter()
        .position(|field| field.number == number)
        .map(|index| index + start)
}

fn packed(reader: &mut Reader<'_>, wire_type: WireType) -> Result<usize, BodyError> {
    let mut run = Reader::new(reader.len_prefixed()?);
    let mut elements = 0;
    while !run.is_empty() {
        run.skip(wire_type)?;
        elements += 1;
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::v1;

    #[test]
    fn every_limit_on_lists_belongs_to_a_field_and_fields_are_in_order() {
        let mut listed = Vec::new();
        let mut seen: Vec<&'static str> = Vec::new();
        let mut waiting: Vec<&'static Message> = bodies();
        while let Some(message) = waiting.pop() {
            if seen.contains(&message.name) {
                continue;
            }
            seen.push(message.name);
            assert!(
                message
                    .fields
                    .windows(2)
                    .all(|pair| pair[0].number < pair[1].number),
                "{}",
                message.name
            );
            for field in message.fields {
                if let Shape::Message(nested) = field.shape {
                    waiting.push(nested);
                }
                if let Cap::Repeated(elements_max) = field.cap {
                    listed.push((format!("{}.{}", message.name, field.name), elements_max));
                }
            }
        }
        listed.sort();
        let mut limits: Vec<_> = limits::REPEATED
            .iter()
            .map(|(name, elements_max)| ((*name).to_owned(), *elements_max))
            .collect();
        limits.sort();
        assert_eq!(listed, limits);
    }

    fn bodies() -> Vec<&'static Message> {
        vec![
            v1::Hello::schema(),
            v1::Welcome::schema(),
            v1::Publish::schema(),
            v1::Published::schema(),
            v1::Subscribe::schema(),
            v1::Subscribed::schema(),
            v1::Unsubscribe::schema(),
            v1::Deliver::schema(),
            v1::HistoryPage::schema(),
            v1::Watch::schema(),
            v1::Presences::schema(),
            v1::Create::schema(),
            v1::MembersPage::schema(),
            v1::ConversationsPage::schema(),
            v1::GoAway::schema(),
        ]
    }
}
