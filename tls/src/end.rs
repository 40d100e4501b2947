//! Either end of a connection: rustls has a type for each, alike in all that is needed here.

use std::ops::Deref;

use rustls::{
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{UnbufferedConnectionCommon, UnbufferedStatus},
};

/// One end of a connection.
pub trait End: Deref<Target = UnbufferedConnectionCommon<Self::Data>> {
    /// What rustls keeps for this end.
    type Data;

    /// Has the session go on with records that came; see [`rustls::unbuffered`].
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}
