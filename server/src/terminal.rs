//! What people are told beside the log. Whoever reads it may have gone (`| head`, `| tee` at Ctrl-C, a closed terminal), or
//! his disk may be full: that is no reason for a broker to end, as `println!` and `eprintln!` would have it.

use std::io::{self, Write as _};

/// Writes to standard output.
///
/// # Errors
/// When nobody takes it.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Says a line on standard error, after the program's name. Where nobody takes it, it is lost.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "rialto: {line}");
}
