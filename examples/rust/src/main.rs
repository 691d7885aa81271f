//! Reads a flag for the user in the first argument.

use std::env;
use std::error::Error;

use open_feature::{EvaluationContext, OpenFeature};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};
use reqwest::header::HeaderMap;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let base_url = env::var("PENNON_URL").unwrap_or_else(|_| "http://127.0.0.1:9000".to_owned());
    let key = env::var("PENNON_API_KEY")?;
    let user = env::args().nth(1).unwrap_or_else(|| "alice".to_owned());

    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {key}").parse()?);
    let options = OfrepOptions {
        base_url,
        headers,
        ..OfrepOptions::default()
    };
    let provider = OfrepProvider::new(options)
        .await
        .map_err(|error| error.to_string())?;
    OpenFeature::singleton_mut()
        .await
        .set_provider(provider)
        .await;

    let flags = OpenFeature::singleton().await.create_client();
    let context = EvaluationContext::default().with_targeting_key(user);
    // Without a response, the application continues with its default: off.
    let is_on = flags
        .get_bool_value("new-checkout", Some(&context), None)
        .await
        .unwrap_or(false);
    println!("{}", if is_on { "on" } else { "off" });
    Ok(())
}
