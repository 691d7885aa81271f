//! Sums over the flags of an environment.

/// Sums over all flags of an environment. They give an upper bound of the size of all flags without reading each
/// flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlagSums {
    /// Number of flags without a definition.
    pub simple: usize,
    /// Number of flags with a definition.
    pub typed: usize,
    /// Bytes of all keys.
    pub keys: usize,
    /// Bytes of all definitions, as JSON; in a database also of the unknown fields.
    pub definitions: usize,
    /// Upper bound of the number of values in all definitions and unknown fields of flags.
    pub values: usize,
    /// Number of flags whose rule may take more steps than its length suggests.
    pub costly: usize,
}
