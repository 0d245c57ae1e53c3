//! Polite and safe fetching of strangers' URLs.
