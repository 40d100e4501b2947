//! Either end of a connection: rustls has a type for each, alike in all that is needed here.

use std::ops::Deref;

use rustls::{
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{UnbufferedConnectionCommon, UnbufferedStatus},
};

/// Plaintext of the largest record (RFC 8446, section 5.2), and what each costs beside it.
pub(crate) const RECORD_BYTES: usize = 16 << 10;
pub(crate) const RECORD_OVERHEAD: usize = 64;

/// One end of a connection.
pub trait End: Deref<Target = UnbufferedConnectionCommon<Self::Data>> {
    /// What rustls keeps for this end.
    type Data;

    /// Most bytes that wait for the rest of a record or handshake message. What a client says in its handshake fits a record
    /// many times; what a server does, with the chain of its certificate, may be as long as a handshake message can be.
    const RECEIVED_BYTES_MAX: usize;

    /// Has the session go on with records that came; see [`rustls::unbuffered`].
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    const RECEIVED_BYTES_MAX: usize = 2 * (RECORD_BYTES + RECORD_OVERHEAD);

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    const RECEIVED_BYTES_MAX: usize = 2 * (RECORD_BYTES + RECORD_OVERHEAD) + (64 << 10);

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}
