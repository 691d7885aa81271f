//! Compresses the certificates of RDS, half of whose bytes every function would otherwise load for nothing.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use zopfli::{Format, Options};

const RDS_AUTHORITIES: &str = "certs/rds.pem";

fn main() -> Result<(), Box<dyn Error>> {
    let to = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let compressed = File::create(Path::new(&to).join("rds.pem.gz"))?;
    let plain = File::open(RDS_AUTHORITIES)?;
    zopfli::compress(Options::default(), Format::Gzip, plain, compressed)?;
    writeln!(
        std::io::stdout(),
        "cargo::rerun-if-changed={RDS_AUTHORITIES}"
    )?;
    Ok(())
}
