//! A client of RabbitMQ's management API, for what AMQP does not report.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use super::settings::RabbitMqSettings;
use crate::broker::BrokerError;
use crate::error_chain::reason;

pub(super) struct ManagementClient {
    client: reqwest::Client,
    /// The list of our queues.
    url: url::Url,
    user: String,
    password: String,
    prefix: String,
}

#[derive(Deserialize)]
struct QueueList {
    items: Vec<QueueItem>,
}

#[derive(Deserialize)]
struct QueueItem {
    name: String,
    /// Missing until the server has figures of a new queue.
    #[serde(default)]
    messages_unacknowledged: u64,
}

impl ManagementClient {
    /// None: the settings name no management API.
    pub fn new(settings: &RabbitMqSettings) -> Result<Option<Self>, BrokerError> {
        let Some(management) = settings.management() else { return Ok(None) };
        let refused = |detail: String| BrokerError::Refused { what: "set up the management client".into(), detail };
        let tls = crate::tls::client_config(None).map_err(|error| refused(error.to_string()))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let mut url = management.url.clone();
        url.path_segments_mut().map_err(|()| refused("its URL has no path".into()))?.pop_if_empty().extend([
            "api",
            "queues",
            &settings.endpoint().vhost,
        ]);
        url.query_pairs_mut()
            .append_pair("page", "1")
            .append_pair("page_size", "500")
            .append_pair("name", settings.prefix())
            .append_pair("use_regex", "false")
            .append_pair("columns", "name,messages_unacknowledged");
        let (user, password) = (management.user.clone(), management.password.clone());
        Ok(Some(Self { client, url, user, password, prefix: settings.prefix().into() }))
    }

    /// The number of delivered and unacknowledged messages by queue. The server's figures are some seconds old.
    pub async fn in_flight(&self) -> Result<HashMap<String, u64>, BrokerError> {
        let what = || format!("cannot query RabbitMQ's management API on {}", self.url.authority());
        let unavailable =
            |error: reqwest::Error| BrokerError::Unavailable { what: what(), detail: reason(&error.without_url()) };
        let request = self.client.get(self.url.clone()).basic_auth(&self.user, Some(&self.password));
        let answer = request.send().await.map_err(unavailable)?;
        let status = answer.status();
        if !status.is_success() {
            let detail = match status.as_u16() {
                401 | 403 => {
                    format!(
                        "{status}; check the password of the user `{}`, and give it the tag `monitoring`",
                        self.user
                    )
                }
                _ => status.to_string(),
            };
            return Err(match status.is_client_error() {
                true => BrokerError::Refused { what: what(), detail },
                false => BrokerError::Unavailable { what: what(), detail },
            });
        }
        let body = answer.bytes().await.map_err(unavailable)?;
        let list: QueueList = serde_json::from_slice(&body).map_err(|error| BrokerError::Refused {
            what: what(),
            detail: format!("the answer is not one of a management API: {error}"),
        })?;
        let ours = list.items.into_iter().filter(|queue| queue.name.starts_with(&self.prefix));
        Ok(ours.map(|queue| (queue.name, queue.messages_unacknowledged)).collect())
    }
}
