//! The .proto files as a second implementation of protobuf (prost-reflect) reads them by itself.

use prost_reflect::{DescriptorPool, MessageDescriptor};

/// The messages of `proto/`.
pub(crate) fn pool() -> DescriptorPool {
    let files = ["rialto/v1/event.proto", "rialto/v1/wire.proto"];
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let descriptors = protox::compile(files, [root]).expect("the .proto files compile");
    DescriptorPool::from_file_descriptor_set(descriptors).expect("the .proto files are whole")
}

/// The message of this name.
pub(crate) fn message(pool: &DescriptorPool, name: &str) -> MessageDescriptor {
    pool.get_message_by_name(&format!("rialto.v1.{name}"))
        .expect("every kind has a message of its name")
}
