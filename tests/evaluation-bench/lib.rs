//! Empty: this package consists of its bench.
