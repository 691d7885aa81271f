//! Compresses the files of the console once, so that no function does it for a request.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// `src/console.rs` includes these files, and `index.html`, which is not compressed.
const FILES: [&str; 3] = ["app.css", "app.js", "favicon.svg"];

fn main() -> Result<(), Box<dyn Error>> {
    let from = Path::new("../console/dist");
    let to = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let mut cargo = std::io::stdout().lock();
    for name in FILES {
        let path = from.join(name);
        writeln!(cargo, "cargo::rerun-if-changed={}", path.display())?;
        let file = File::create(Path::new(&to).join(format!("{name}.gz")))?;
        let mut compressed = GzEncoder::new(file, Compression::best());
        compressed.write_all(&std::fs::read(path)?)?;
        compressed.finish()?;
    }
    Ok(())
}
