//! Builds the library that stands before libc in the broker (`shim/shim.c`); `src/shim.rs` carries it inside the binary.

use std::env;
use std::error::Error;
use std::path::PathBuf;

const SOURCE: &str = "shim/shim.c";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let built = PathBuf::from(env::var("OUT_DIR")?).join("shim.so");
    let compiler = cc::Build::new()
        .cargo_metadata(false)
        .opt_level(2)
        .warnings(true)
        .pic(true)
        .try_get_compiler()?;
    let status = compiler
        .to_command()
        .args(["-shared", SOURCE, "-o"])
        .arg(&built)
        .args(["-ldl", "-lpthread"])
        .status()?;
    if !status.success() {
        return Err(format!("{SOURCE} does not compile: {status}").into());
    }
    println!("cargo::rustc-env=FAULTS_SHIM={}", built.display());
    Ok(())
}
