//! What only RabbitMQ's management API can tell.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use super::settings::Settings;
use crate::broker::BrokerError;

/// A client of the management API.
pub(super) struct Api {
    client: reqwest::Client,
    page: url::Url,
    user: String,
    password: String,
    prefix: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Queue>,
}

#[derive(Deserialize)]
struct Queue {
    name: String,
    /// Missing while the server has no figures of a new queue yet.
    #[serde(default)]
    messages_unacknowledged: u64,
}

impl Api {
    /// None: no such API is set.
    pub fn of(settings: &Settings) -> Result<Option<Self>, BrokerError> {
        let Some(management) = settings.management() else { return Ok(None) };
        let refused = |detail: String| BrokerError::Refused { what: "set up the management client".into(), detail };
        let tls = crate::tls::client_config(None).map_err(|error| refused(error.to_string()))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let mut page = management.url.clone();
        page.path_segments_mut().map_err(|()| refused("its URL has no path".into()))?.pop_if_empty().extend([
            "api",
            "queues",
            &settings.endpoint().vhost,
        ]);
        page.query_pairs_mut()
            .append_pair("page", "1")
            .append_pair("page_size", "500")
            .append_pair("name", settings.prefix())
            .append_pair("use_regex", "false")
            .append_pair("columns", "name,messages_unacknowledged");
        let (user, password) = (management.user.clone(), management.password.clone());
        Ok(Some(Self { client, page, user, password, prefix: settings.prefix().into() }))
    }

    /// How many messages of each queue are in the hands of consumers. The server's figures are some seconds old.
    pub async fn in_flight(&self) -> Result<HashMap<String, u64>, BrokerError> {
        let what = || format!("ask RabbitMQ's management API on {}", self.page.authority());
        let unavailable =
            |error: reqwest::Error| BrokerError::Unavailable { what: what(), detail: error.without_url().to_string() };
        let request = self.client.get(self.page.clone()).basic_auth(&self.user, Some(&self.password));
        let answer = request.send().await.map_err(unavailable)?;
        let status = answer.status();
        if !status.is_success() {
            let detail = match status.as_u16() {
                401 | 403 => {
                    format!("{status}; the user `{}` needs the tag `monitoring` and a right password", self.user)
                }
                _ => status.to_string(),
            };
            return Err(match status.is_client_error() {
                true => BrokerError::Refused { what: what(), detail },
                false => BrokerError::Unavailable { what: what(), detail },
            });
        }
        let body = answer.bytes().await.map_err(unavailable)?;
        let page: Page = serde_json::from_slice(&body).map_err(|error| BrokerError::Refused {
            what: what(),
            detail: format!("that is not the answer of a management API: {error}"),
        })?;
        let ours = page.items.into_iter().filter(|queue| queue.name.starts_with(&self.prefix));
        Ok(ours.map(|queue| (queue.name, queue.messages_unacknowledged)).collect())
    }
}
