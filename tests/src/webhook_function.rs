//! The function `send-webhooks` behind Lambda's Invoke.

use std::sync::Arc;

use pennon_core::webhooks::Sender;

use crate::aws::{self, Invoke, Target};
use crate::lambda::Function;
use crate::receiver::Receiver;

/// The name of the function.
const NAME: &str = "pennon-send-webhooks";
/// The alias that functions invoke.
const ALIAS: &str = "arn:aws:lambda:us-east-1:123456789012:function:pennon-send-webhooks:live";

/// An endpoint of Lambda that runs `send-webhooks`.
pub struct WebhookFunction {
    address: String,
    invoke: Arc<Invoke>,
}

impl WebhookFunction {
    /// Sends as the function does, but to receivers on this machine, which the function refuses.
    pub async fn to_this_machine() -> Self {
        let sender = Sender::anywhere(Some(&Receiver::authority_file())).expect("a sender");
        Self::start(Target::Sender(sender)).await
    }

    /// Runs the function.
    pub async fn real() -> Self {
        let function = Function::start("send-webhooks", &[]).await;
        Self::start(Target::Function(Box::new(function))).await
    }

    async fn start(target: Target) -> Self {
        let invoke = Invoke::new(vec![(NAME, target)]);
        let address = aws::serve(invoke.router()).await;
        Self { address, invoke }
    }

    /// The variables of a function that invokes it.
    pub fn environment(&self) -> [(&str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL_LAMBDA", &self.address),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("SEND_WEBHOOKS_FUNCTION_ARN", ALIAS),
        ]
    }

    /// Rejects one invocation with this status.
    pub fn reject_once(&self, status: u16) {
        self.invoke.reject_once(NAME, status);
    }

    /// The paths of the invocations so far.
    pub fn invocations(&self) -> Vec<String> {
        self.invoke
            .calls()
            .into_iter()
            .map(|call| call.path)
            .collect()
    }
}
