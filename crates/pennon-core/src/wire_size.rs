//! The size of a response body on its way out of Lambda, which sends it as a string within JSON.

use serde::Serialize;

/// How many bytes a part of a body takes on its way out of Lambda, without writing it anywhere.
#[must_use]
pub(crate) fn wire_size(part: &impl Serialize) -> usize {
    let mut counter = WireCounter(0);
    // Counting cannot fail, and neither can writing what `json` has to write later.
    let _counted = serde_json::to_writer(&mut counter, part);
    counter.0
}

/// How long bytes of a body are as a part of a JSON text, which every body is to Lambda.
pub(crate) fn on_the_wire(bytes: &[u8]) -> usize {
    let escapes = bytes.iter().filter(|byte| matches!(byte, b'"' | b'\\'));
    bytes.len() + escapes.count()
}

struct WireCounter(usize);

impl std::io::Write for WireCounter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += on_the_wire(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
