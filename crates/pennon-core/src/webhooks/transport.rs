//! Sends requests to webhooks: from this process, or by the function `send-webhooks`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{Failure, Message, Reach, Sender};
use crate::aws::{Aws, QualifiedFunction};

/// The time limit of one request to a webhook. All requests of an invocation are sent at the same time.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of one invocation: its requests, and a cold start. The function's own timeout is a second longer.
const INVOCATION_TIMEOUT: Duration = Duration::from_secs(14);
/// The value of `SEND_WEBHOOKS_FUNCTION_ARN` if functions cannot reach Lambda.
const UNREACHABLE: &str = "none";

/// Sends requests to webhooks.
pub enum Transport {
    /// From this process: the local server.
    Direct(Sender),
    /// From the function `send-webhooks`, which is outside the VPC.
    Function {
        /// Signs the invocations.
        aws: Box<Aws>,
        /// The alias of the function.
        function: QualifiedFunction,
    },
    /// Not at all, for this reason.
    Absent(String),
}

#[derive(Deserialize)]
struct Outcomes {
    outcomes: Vec<Option<Failure>>,
}

impl Transport {
    /// The function with this ARN.
    #[must_use]
    pub fn of_function(arn: Option<&str>) -> Self {
        let Some(arn) = arn else {
            return Self::Absent("SEND_WEBHOOKS_FUNCTION_ARN is not set".to_owned());
        };
        if arn == UNREACHABLE {
            return Self::Absent(
                "with EgressMode=endpoint, functions cannot invoke send-webhooks; webhooks need \
                 EgressMode=ipv6 or EgressMode=nat"
                    .to_owned(),
            );
        }
        let Some(function) = QualifiedFunction::parse_alias(arn) else {
            return Self::Absent(
                "SEND_WEBHOOKS_FUNCTION_ARN is not the ARN of a function's alias".to_owned(),
            );
        };
        match Aws::from_process() {
            Ok(aws) => Self::Function {
                aws: Box::new(aws),
                function,
            },
            Err(why) => Self::Absent(why),
        }
    }

    /// Which addresses it may send to: public ones over HTTPS, or any.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Self::Direct(sender) => sender.reach(),
            Self::Function { .. } | Self::Absent(_) => Reach::Public,
        }
    }

    /// Sends all requests at the same time. Returns one outcome for each, in their order.
    ///
    /// # Errors
    /// Text for the log if no request can be sent, or if it is unknown which ones were sent.
    pub async fn send(&self, messages: Vec<Message>) -> Result<Vec<Result<(), Failure>>, String> {
        let (aws, function) = match self {
            Self::Direct(sender) => return Ok(sender.send_all(messages, REQUEST_TIMEOUT).await),
            Self::Function { aws, function } => (aws, function),
            Self::Absent(why) => return Err(why.clone()),
        };
        let sent = messages.len();
        let event = json!({ "messages": messages });
        let answer = aws.invoke(function, &event, INVOCATION_TIMEOUT).await;
        let answer = answer.map_err(|why| format!("send-webhooks: {why}"))?;
        let Outcomes { outcomes } = serde_json::from_value(answer)
            .map_err(|error| format!("send-webhooks returned no outcomes: {error}"))?;
        if outcomes.len() != sent {
            let returned = outcomes.len();
            return Err(format!(
                "send-webhooks returned {returned} outcomes for {sent} requests"
            ));
        }
        let outcomes = outcomes.into_iter();
        Ok(outcomes
            .map(|failure| failure.map_or(Ok(()), Err))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_alias_of_a_function_nothing_can_be_sent() {
        let version = "arn:aws:lambda:us-east-1:123456789012:function:pennon-send-webhooks:7";
        for arn in [
            None,
            Some("none"),
            Some("pennon-send-webhooks"),
            Some(version),
        ] {
            let transport = Transport::of_function(arn);
            assert!(matches!(transport, Transport::Absent(_)), "{arn:?}");
            assert_eq!(transport.reach(), Reach::Public);
        }
    }
}
