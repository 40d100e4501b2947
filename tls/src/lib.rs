//! TLS over TCP, for processes with very many connections in few threads. The cryptography is that of rustls, through its
//! interface without buffers: those belong to the thread, and a connection keeps only the beginning of a record that is
//! not whole yet, and what its socket did not take.

mod end;
mod stream;

pub use end::End;
pub use stream::{Buffers, PLAIN_BYTES_MAX, TlsStream};
