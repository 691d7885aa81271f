//! Logging and metrics.
//!
//! Every request writes a line. On Lambda it is JSON in CloudWatch's embedded metric format, so that metrics need no
//! API call and no agent; locally it is text for people. The format:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

mod logging;
mod metrics;
mod request_line;
mod text;
mod trace;

pub use logging::{LogStyle, start_logging};
pub use metrics::Metric;
pub use request_line::{LogWriter, ReportedConnections, RequestLine};
pub use text::MAX_TEXT_LENGTH;
pub use trace::{CacheOutcome, Facts, Trace};
