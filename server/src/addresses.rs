//! The file that says where a running broker listens: for `rialto status`, for scripts and for tests that let the
//! operating system pick ports.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::files::{self, Access};

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Process id of the broker.
    pub pid: u32,
    /// Plain TCP.
    pub tcp: Option<SocketAddr>,
    /// TCP with TLS.
    pub tls: Option<SocketAddr>,
    /// QUIC.
    pub quic: Option<SocketAddr>,
    /// Operations.
    pub ops: Option<SocketAddr>,
}

/// Where the file is.
#[must_use]
pub fn path(data: &Path) -> PathBuf {
    data.join("addresses.json")
}

/// Writes the file, whole or not at all.
///
/// # Errors
/// When the data directory cannot be written.
pub fn write(data: &Path, addresses: &Addresses) -> io::Result<()> {
    files::replace(
        &path(data),
        &serde_json::to_vec_pretty(addresses)?,
        Access::All,
    )
}

/// Reads the file.
///
/// # Errors
/// When it is missing (no broker runs there) or cannot be understood.
pub fn read(data: &Path) -> io::Result<Addresses> {
    Ok(serde_json::from_slice(&fs::read(path(data))?)?)
}

/// Removes the file at the end of a run.
pub fn remove(data: &Path) {
    let _ = fs::remove_file(path(data));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let addresses = Addresses {
            pid: 7,
            tcp: "127.0.0.1:5".parse().ok(),
            tls: None,
            quic: None,
            ops: "[::1]:9".parse().ok(),
        };
        write(directory.path(), &addresses).unwrap();
        assert_eq!(read(directory.path()).unwrap(), addresses);
        remove(directory.path());
        assert_eq!(
            read(directory.path()).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
