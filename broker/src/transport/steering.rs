//! Which shard a QUIC packet belongs to: connection ids name it, and the kernel reads them.
//!
//! The first byte of every connection id that a shard makes, modulo the number of shards, is the shard's number. A classic
//! BPF program on the group of UDP sockets reads that byte, so that a client keeps its shard when its address changes. A
//! client's first packet carries an id of its own making, which is random: it lands on any shard, always the same.

use std::io;

use quinn::{ConnectionId, ConnectionIdGenerator};
use rialto_core::topology::ShardId;
use socket2::SockRef;

/// Bytes of our connection ids: 7 random ones beside the first make guessing hopeless.
const CID_BYTES: usize = 8;

/// Makes connection ids that name a shard.
#[derive(Debug)]
pub(crate) struct ShardIds {
    shard: ShardId,
    shards: u16,
}

impl ShardIds {
    /// For a shard out of at most 256.
    pub(crate) fn new(shard: ShardId, shards: u16) -> Self {
        Self { shard, shards }
    }
}

impl ConnectionIdGenerator for ShardIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CID_BYTES];
        getrandom::fill(&mut id).expect("the operating system has randomness");
        id[0] = steered(id[0], self.shard.0, self.shards);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The byte nearest below or above `random` that leads to the shard.
fn steered(random: u8, shard: u16, shards: u16) -> u8 {
    let below = u16::from(random) / shards * shards + shard;
    u8::try_from(below)
        .or_else(|_| u8::try_from(below - shards))
        .expect("shard < shards <= 256")
}

/// Has the kernel hand each packet to the socket of its shard. The socket is one of a group bound with `SO_REUSEPORT`
/// whose members were bound in the order of their shards; the program is the whole group's.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) fn attach(socket: &SockRef<'_>, shards: u16) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let mut program = program(shards);
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("a handful of instructions"),
        filter: program.as_mut_ptr(),
    };
    let filter_bytes = libc::socklen_t::try_from(size_of_val(&filter)).expect("a small struct");
    // SAFETY: the descriptor is open, because `socket` borrows it. `filter` is a valid `sock_fprog` of the length that is
    // passed; it points to `program`, which outlives the call and whose length it names. The kernel copies and checks
    // the program before it returns, and keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            filter_bytes,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Elsewhere the kernel goes by addresses alone: a client that changes its address has to connect again.
#[cfg(not(target_os = "linux"))]
pub(crate) fn attach(_: &SockRef<'_>, _: u16) -> io::Result<()> {
    tracing::warn!(
        "no steering by connection id on this system: QUIC clients that change their address reconnect"
    );
    Ok(())
}

/// Offset 0 is the packet's first byte (RFC 9000, section 17): in a long header the destination id follows flags, version
/// and the id's length, in a short one the flags. Past the end of a packet the program ends with 0.
#[cfg(target_os = "linux")]
fn program(shards: u16) -> [libc::sock_filter; 7] {
    const LONG_HEADER: u32 = 0x80;
    const LONG_ID_AT: u32 = 6;
    const SHORT_ID_AT: u32 = 1;
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    [
        instruction(load_byte, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
            0,
            2,
            LONG_HEADER,
        ),
        instruction(load_byte, 0, 0, LONG_ID_AT),
        instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        instruction(load_byte, 0, 0, SHORT_ID_AT),
        instruction(
            libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
            0,
            0,
            u32::from(shards),
        ),
        instruction(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
    ]
}

#[cfg(target_os = "linux")]
fn instruction(code: u32, if_true: u8, if_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt: if_true,
        jf: if_false,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_id_leads_back_to_the_shard_that_made_it() {
        for shards in [1, 2, 3, 7, 255, 256] {
            for shard in 0..shards {
                for random in 0..=255 {
                    assert_eq!(
                        u16::from(steered(random, shard, shards)) % shards,
                        shard,
                        "{random} of {shards}"
                    );
                }
            }
        }
    }
}
