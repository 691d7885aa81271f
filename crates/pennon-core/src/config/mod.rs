//! The settings of a function, read once at cold start.
//!
//! [`Config::from_lookup`] takes any lookup function, so that a test can pass a map. A mistyped variable must not take
//! the service down: an invalid setting is reported as a [`ConfigWarning`] and keeps its default, unless the default
//! allows more than was meant (`PUBLIC_CONFIG_ROUTES`, `CORS_ORIGINS`). A number outside its range becomes the nearest
//! limit, but a negative number and an invalid port keep the default.

mod address;
mod origins;
mod process;
mod reader;
mod secret;
mod settings;

pub use address::{parse_endpoint, parse_issuer};
pub use origins::{CorsConfig, Origins};
pub use process::{process_arguments, process_environment};
pub use reader::ConfigWarning;
pub use secret::Secret;
pub use settings::{
    AuthConfig, CacheConfig, Config, ConsoleConfig, DatabaseAddress, DatabaseConfig,
    PreTrafficConfig, PublicConfigRoutes, RolesConfig, SecretSource, TokenConfig,
};
