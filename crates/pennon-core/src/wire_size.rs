//! The size of a response body in the response of a Lambda function, where it is a JSON string.

use serde::Serialize;

/// The size of a value in the response of a Lambda function: as JSON, and escaped as a part of a JSON string.
#[must_use]
pub(crate) fn wire_size(part: &impl Serialize) -> usize {
    let mut counter = WireCounter(0);
    // Counting cannot fail, and the serialisation of our own types does not fail.
    let _counted = serde_json::to_writer(&mut counter, part);
    counter.0
}

/// The size of bytes of a body as a part of a JSON string, in which quotes and backslashes are escaped.
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
