//! Compresses the certificates of RDS to less than half their size, because every function loads them with its program.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use zopfli::{Format, Options};

const RDS_AUTHORITIES: &str = "certs/rds.pem";

fn main() -> Result<(), Box<dyn Error>> {
    let to = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run this script with cargo")?;
    let compressed = File::create(Path::new(&to).join("rds.pem.gz"))?;
    let plain = File::open(RDS_AUTHORITIES)?;
    zopfli::compress(Options::default(), Format::Gzip, plain, compressed)?;
    writeln!(
        std::io::stdout(),
        "cargo::rerun-if-changed={RDS_AUTHORITIES}"
    )?;
    Ok(())
}
