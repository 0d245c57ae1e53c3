//! The page: HTML, styles, scripts and texts, embedded in the program. There is no build step.
//!
//! All files but the shell have a hash of the whole in their path, so that browsers keep them and never mix versions.

use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::web;

const SHELL: &str = include_str!("assets/page.html");
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const NO_SNIFFING: HeaderValue = HeaderValue::from_static("nosniff");

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("assets/", $name)))),*] };
}

const FILES: &[(&str, &str)] = files![
    "address.js",
    "api.js",
    "balance.js",
    "border.js",
    "charts.js",
    "conditions.js",
    "desk.js",
    "elements.js",
    "face.js",
    "facts.js",
    "filters.js",
    "grid.js",
    "icon.svg",
    "journal.js",
    "judge.js",
    "keys.js",
    "list.js",
    "locks.js",
    "notices.js",
    "outbox.js",
    "page.css",
    "page.js",
    "pictures.js",
    "sign_in.js",
    "single.js",
    "statistics.js",
    "store.js",
    "texts.js",
    "texts_en.js",
    "texts_ja.js",
    "training.js",
    "undo.js",
];

/// A file of the page, as it is sent.
struct Asset {
    name: &'static str,
    content_type: HeaderValue,
    plain: &'static [u8],
    gzipped: Vec<u8>,
}

/// All files of one version.
struct Assets {
    hash: String,
    shell: Asset,
    files: Vec<Asset>,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let files: Vec<_> = FILES.iter().copied().chain([("style.css", web::STYLE)]).collect();
    let mut digest = Sha256::new();
    digest.update(SHELL);
    for (name, text) in &files {
        digest.update(name);
        digest.update(text);
    }
    let hash: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let modules = files.iter().filter(|(name, _)| name.ends_with(".js") && *name != "page.js");
    let preloads: String =
        modules.map(|(name, _)| format!("<link rel=\"modulepreload\" href=\"/assets/{{hash}}/{name}\">\n")).collect();
    let shell = SHELL.replace("{preloads}", &preloads).replace("{hash}", &hash);
    let shell = Asset::new("page.html", Box::leak(shell.into_boxed_str()));
    let sent = |(name, text): (&'static str, &'static str)| match name.ends_with(".js") {
        true => Asset::new(name, Box::leak(without_comments(text).into_boxed_str())),
        false => Asset::new(name, text),
    };
    Assets { hash, shell, files: files.into_iter().map(sent).collect() }
});

impl Asset {
    fn new(name: &'static str, text: &'static str) -> Self {
        let content_type = HeaderValue::from_static(match name.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        });
        Self { name, content_type, plain: text.as_bytes(), gzipped: gzip(text.as_bytes()) }
    }

    /// The response to a request with these headers. `tag`: names this version of the file.
    fn respond(&'static self, request: &HeaderMap, tag: &str, caching: HeaderValue) -> Response {
        let tag = format!("\"{tag}\"");
        let has = |name, wanted: &str| {
            let values = request.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|value| {
                let value = value.trim().trim_start_matches("W/");
                value.split(';').next() == Some(wanted) && !value.ends_with(";q=0")
            })
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::CACHE_CONTROL, caching);
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFFING);
        let is_known = has(header::IF_NONE_MATCH, &tag);
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        if !has(header::ACCEPT_ENCODING, "gzip") {
            return (headers, self.plain).into_response();
        }
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        (headers, self.gzipped.as_slice()).into_response()
    }
}

/// A script without the lines that are comments: they are a tenth of what would be sent.
fn without_comments(script: &str) -> String {
    script
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Compresses in memory.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to a vector cannot fail.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

/// The paths of the page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let paths = ["/", "/grid", "/border", "/faces/{photo_id}", "/statistics", "/sign-in"];
    let router = Router::new().route("/assets/{hash}/{name}", get(file));
    paths.into_iter().fold(router, |router, path| router.route(path, get(shell)))
}

async fn shell(request: HeaderMap) -> Response {
    let Assets { hash, shell, .. } = &*ASSETS;
    shell.respond(&request, hash, HeaderValue::from_static("no-cache"))
}

async fn file(Path((hash, name)): Path<(String, String)>, request: HeaderMap) -> Response {
    let known = ASSETS.files.iter().find(|asset| asset.name == name && ASSETS.hash == hash);
    match known {
        Some(asset) => asset.respond(&request, &format!("{hash}-{name}"), IMMUTABLE),
        None => (StatusCode::NOT_FOUND, "no such file: reload the page").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use flate2::read::GzDecoder;
    use tower::ServiceExt;

    use super::*;

    async fn answer(path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = routes::<()>().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn the_shell_names_every_file_and_nothing_else() {
        let (status, _, body) = answer("/faces/a%20b", &[]).await;
        assert_eq!(status, StatusCode::OK);
        let text = String::from_utf8(body).unwrap();
        assert!(!text.contains('{') && !text.contains("http"), "{text}");
        let named: BTreeSet<&str> = text.split('"').filter(|part| part.starts_with("/assets/")).collect();
        assert_eq!(named.len(), ASSETS.files.len(), "{named:?}");
        for path in named {
            let (status, headers, body) = answer(path, &[]).await;
            assert_eq!((status, &headers["cache-control"]), (StatusCode::OK, &IMMUTABLE), "{path}");
            assert!(!body.is_empty(), "{path}");
        }
    }

    #[tokio::test]
    async fn files_are_compressed_and_known_ones_are_not_sent_again() {
        let path = format!("/assets/{}/page.js", ASSETS.hash);
        let (_, headers, body) = answer(&path, &[("accept-encoding", "br, gzip;q=0.8")]).await;
        assert_eq!(headers["content-encoding"], "gzip");
        let mut text = String::new();
        GzDecoder::new(&*body).read_to_string(&mut text).unwrap();
        assert_eq!(text, without_comments(include_str!("assets/page.js")));
        for refused in ["br", "gzip;q=0", ""] {
            let (_, headers, body) = answer(&path, &[("accept-encoding", refused)]).await;
            assert!(!headers.contains_key("content-encoding") && body == text.as_bytes(), "{refused}");
        }
        let tag = headers["etag"].to_str().unwrap();
        let (status, _, body) = answer(&path, &[("if-none-match", &format!("\"x\", W/{tag}"))]).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(answer(&path, &[("if-none-match", "\"x\"")]).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn files_of_other_versions_and_unknown_names_are_not_found() {
        let hash = &ASSETS.hash;
        for path in [
            "/assets/0000000000000000/page.js",
            &format!("/assets/{hash}/..%2Fassets.rs"),
            &format!("/assets/{hash}/x"),
        ] {
            assert_eq!(answer(path, &[]).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn the_whole_page_is_small() {
        let size: usize = ASSETS.files.iter().chain([&ASSETS.shell]).map(|asset| asset.gzipped.len()).sum();
        assert!(size < 60_000, "{size} bytes");
    }

    #[test]
    fn only_comments_are_left_out_of_scripts() {
        for asset in ASSETS.files.iter().filter(|asset| asset.name.ends_with(".js")) {
            let script = FILES.iter().find(|(name, _)| *name == asset.name).unwrap().1;
            // A text over several lines could have a line that looks like a comment.
            assert!(script.lines().all(|line| line.matches('`').count() % 2 == 0), "{}", asset.name);
            let sent = std::str::from_utf8(asset.plain).unwrap();
            let left: Vec<&str> = script.lines().filter(|line| !sent.contains(line)).collect();
            assert!(left.iter().all(|line| line.trim().starts_with("//")), "{}: {left:?}", asset.name);
            assert!(!sent.contains("\n//"), "{}", asset.name);
        }
    }

    #[test]
    fn every_text_is_there_in_both_languages() {
        let keys = |text: &'static str| -> BTreeSet<&str> {
            text.lines()
                .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\": "))
                .map(|(key, _)| key)
                .collect()
        };
        let (english, japanese) = (keys(include_str!("assets/texts_en.js")), keys(include_str!("assets/texts_ja.js")));
        // These are the same in both.
        let same = BTreeSet::from(["ok", "ng", "p-ok"]);
        assert_eq!(english.difference(&japanese).copied().collect::<BTreeSet<_>>(), same);
        assert_eq!(japanese.difference(&english).next(), None);
        let scripts = FILES.iter().filter(|(name, _)| name.ends_with(".js") && !name.starts_with("texts_"));
        for (name, script) in scripts {
            for used in script.split(" t(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(english.contains(used), "{name} uses {used}");
            }
            for parser in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                assert!(!script.contains(parser), "{name} uses {parser}");
            }
        }
    }
}
