//! Settings of one host: `[hosts."NAME"]` in the settings file, `--hosts 'NAME={...}'` on the command line.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use serde::Deserialize;

use crate::net::host_rules::HostRules;

/// The flag of the entries, and the table in the settings file.
pub const HOSTS: &str = "hosts";
/// The most milliseconds between two requests.
pub const MAX_SPACING: u64 = 3_600_000;
pub const MAX_PER_HOST: u64 = 1000;

/// The rules of one host.
#[derive(Debug, Clone)]
pub struct HostEntry {
    /// In lower case; `*.photos.example` stands for all hosts below photos.example.
    pub name: String,
    pub rules: HostRules,
}

/// The settings as they are written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct HostSettings {
    per_host: Option<u64>,
    spacing: Option<u64>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    headers_over_http: bool,
}

/// Why an entry is not valid. It names no value of a header.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BadHostSettings(String);

impl HostEntry {
    /// Checks an entry. `settings`: a table of TOML or an object of JSON.
    pub fn new<'a, S: serde::Deserializer<'a>>(name: &str, settings: S) -> Result<Self, BadHostSettings> {
        const KEYS: [&str; 4] = ["per-host", "spacing", "headers", "headers-over-http"];
        // The messages of the parsers may quote a value.
        let expected = || {
            bad("expected per-host and spacing (numbers), headers (texts by name), headers-over-http (true or false)")
        };
        let settings = serde_json::Map::deserialize(settings).map_err(|_| expected())?;
        if let Some(unknown) = settings.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(bad(format!("no such setting: {unknown}; there are {}", KEYS.join(", "))));
        }
        let settings = HostSettings::deserialize(settings).map_err(|_| expected())?;
        Ok(Self { name: host_name(name)?, rules: settings.rules()? })
    }

    /// The entry without the values of its headers.
    pub fn masked(&self) -> String {
        let HostRules { per_host, spacing, headers, .. } = &self.rules;
        let per_host = per_host.map(|per_host| format!("per-host {per_host}"));
        let spacing = spacing.map(|spacing| format!("spacing {}", spacing.as_millis()));
        let headers = headers.keys().map(|name| format!("{name} ***"));
        let settings: Vec<String> = per_host.into_iter().chain(spacing).chain(headers).collect();
        format!("{} ({})", self.name, settings.join(", "))
    }
}

impl FromStr for HostEntry {
    type Err = BadHostSettings;

    fn from_str(text: &str) -> Result<Self, BadHostSettings> {
        let expected = || bad("expected NAME={...}, with an object of JSON");
        let (name, settings) = text.split_once('=').ok_or_else(expected)?;
        Self::new(name, serde_json::from_str::<serde_json::Value>(settings).map_err(|_| expected())?)
    }
}

impl HostSettings {
    fn rules(&self) -> Result<HostRules, BadHostSettings> {
        let within = |what, value: Option<u64>, least, most| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(bad(format!("{what} {value}: expected {least} to {most}")))
            }
            value => Ok(value),
        };
        let per_host = within("per-host", self.per_host, 1, MAX_PER_HOST)?;
        let spacing = within("spacing", self.spacing, 0, MAX_SPACING)?;
        let headers = self.headers.iter().map(|(name, value)| header(name, value)).collect::<Result<_, _>>()?;
        Ok(HostRules {
            per_host: per_host.map(|per_host| per_host as usize),
            spacing: spacing.map(Duration::from_millis),
            headers,
            headers_over_http: self.headers_over_http,
        })
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), BadHostSettings> {
    /// Those that the HTTP client or the reader of photos decides on.
    const RESERVED: [HeaderName; 9] =
        [ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    let name: HeaderName = name.parse().map_err(|_| bad(format!("`{name}` is no name of a header")))?;
    if RESERVED.contains(&name) {
        return Err(bad(format!("the header {name} cannot be set")));
    }
    let value = HeaderValue::from_str(value);
    let mut value = value.map_err(|_| bad(format!("the value of the header {name} is not valid in HTTP")))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// A host's name or address as URLs have it.
fn host_name(name: &str) -> Result<String, BadHostSettings> {
    let (stars, host) = name.trim().strip_prefix("*.").map_or(("", name.trim()), |host| ("*.", host));
    let host = url::Host::parse(host).map_err(|_| bad("expected the name of a host, such as photos.example"))?;
    Ok(format!("{stars}{host}"))
}

fn bad(why: impl Into<String>) -> BadHostSettings {
    BadHostSettings(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read() {
        let text = r#"Photos.Example={"per-host":64,"spacing":0,"headers":{"Authorization":"Bearer 1"}}"#;
        let HostEntry { name, rules } = text.parse().unwrap();
        assert_eq!((&*name, rules.per_host, rules.spacing), ("photos.example", Some(64), Some(Duration::ZERO)));
        assert_eq!(rules.headers["authorization"], "Bearer 1");
        assert!(!rules.headers_over_http && !format!("{rules:?}").contains("Bearer"));
        assert_eq!("*.a.example={}".parse::<HostEntry>().unwrap().name, "*.a.example");
        assert_eq!("[::1]={}".parse::<HostEntry>().unwrap().name, "[::1]");
    }

    #[test]
    fn faults_are_told_without_values_of_headers() {
        for (text, why) in [
            ("photos.example", "expected NAME="),
            ("={}", "expected the name of a host"),
            ("a b={}", "expected the name of a host"),
            ("http://a.example/={}", "expected the name of a host"),
            (r#"a.example={"per-host":0}"#, "per-host 0: expected 1 to 1000"),
            (r#"a.example={"spacing":3600001}"#, "spacing 3600001: expected 0 to 3600000"),
            (r#"a.example={"per-hots":1}"#, "no such setting: per-hots; there are per-host, spacing"),
            (r#"a.example={"per-host":"hunter2"}"#, "expected per-host and spacing"),
            (r#"a.example={"per-host":1"#, "expected NAME="),
            ("a.example={}}", "expected NAME="),
            (r#"a.example={"headers":{"a b":"hunter2"}}"#, "`a b` is no name of a header"),
            (r#"a.example={"headers":{"host":"hunter2"}}"#, "the header host cannot be set"),
            (r#"a.example={"headers":{"x":"hunter2\n"}}"#, "the value of the header x is not valid"),
            (r#"a.example={"headers":{"x":["hunter2"]}}"#, "expected per-host and spacing"),
        ] {
            let error = text.parse::<HostEntry>().unwrap_err().to_string();
            assert!(error.starts_with(why) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn values_of_headers_are_masked() {
        let entry: HostEntry = r#"a.example={"per-host":8,"headers":{"X-Token":"hunter2"}}"#.parse().unwrap();
        assert_eq!(entry.masked(), "a.example (per-host 8, x-token ***)");
    }
}
