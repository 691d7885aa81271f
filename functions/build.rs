//! Compresses the files of the console once, so that no function does it for a request.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use zopfli::{Format, Options};

/// The built files of the console. All are compressed, except `index.html`.
const FROM: &str = "../console/dist";

fn main() -> Result<(), Box<dyn Error>> {
    let to = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run this script with cargo")?;
    let to = Path::new(&to);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(FROM)? {
        let name = entry?.file_name().into_string();
        names.push(name.map_err(|name| format!("{FROM}: {} is not UTF-8", name.display()))?);
    }
    names.retain(|name| name != "index.html");
    names.sort();
    let mut list = String::from("&[");
    for name in names {
        let kind = match name.rsplit('.').next() {
            Some("css") => "text/css; charset=utf-8",
            Some("json") => "application/json",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => return Err(format!("{FROM}/{name}: no content type is known for it").into()),
        };
        let plain = File::open(Path::new(FROM).join(&name))?;
        let compressed = File::create(to.join(format!("{name}.gz")))?;
        zopfli::compress(Options::default(), Format::Gzip, plain, compressed)?;
        let path = format!("concat!(env!(\"OUT_DIR\"), \"/{name}.gz\")");
        write!(list, "({name:?}, {kind:?}, include_bytes!({path})),")?;
    }
    list.push(']');
    // `src/console.rs` includes it.
    std::fs::write(to.join("console_files.rs"), list)?;
    writeln!(std::io::stdout(), "cargo::rerun-if-changed={FROM}")?;
    Ok(())
}
