//! Hosts that break the rules of HTTP, and whose photos every browser shows.

use std::io::Write;

use facemill::demo::host::ResponseStep::{Hang, IgnoreRequest, KeepAlive, Reset};
use facemill::domain::photo_url::UrlRepair;

use super::*;

/// A response with these lines after the status line, and the photo.
fn with_lines(lines: &[&[u8]]) -> HostResponse {
    let length = format!("Content-Length: {}", photo().len());
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for line in [length.as_bytes()].iter().chain(lines) {
        head.extend_from_slice(&[line, &b"\r\n"[..]].concat());
    }
    HostResponse::raw([&head[..], b"\r\n"].concat(), photo())
}

async fn assert_taken(response: HostResponse, what: &str) {
    let download = fetch(response).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(download.bytes == photo() && download.sha256 == ContentHash::of(&photo()), "{what}");
}

/// The host closes a connection, or resets it, when it has received a second request.
#[tokio::test]
async fn a_request_on_a_dead_connection_is_repeated_at_once() {
    let kept = || HostResponse::kept_open(photo()).then(IgnoreRequest);
    for response in [kept(), kept().then(Reset)] {
        let host = host([("/x", response)]).await;
        let fetcher = fetcher(rules(host.address()));
        for n in 0..20 {
            let download = fetcher.fetch("http://photos.test/x").await;
            assert!(download.is_ok(), "photo {n}: {download:?}");
        }
        let traffic = host.traffic();
        assert_eq!(traffic.hits("/x"), 20);
        assert_eq!(traffic.connections, 20, "a repeated request has a connection of its own");
    }
}

#[tokio::test]
async fn a_request_is_repeated_once_and_only_after_reuse() {
    // The first request finds no connection to reuse.
    let host = host([
        ("/dead", Route::from(HostResponse::default())),
        ("/x", HostResponse::kept_open(photo()).then(KeepAlive).into()),
    ])
    .await;
    let fetcher = fetcher(rules(host.address()));
    assert_eq!(failed(fetcher.fetch("http://photos.test/dead").await), "connection-reset");
    assert_eq!(host.traffic().hits("/dead"), 1);
    for _ in 0..3 {
        fetcher.fetch("http://photos.test/x").await.unwrap();
    }
    assert_eq!(host.traffic().connections, 2, "healthy connections are reused");
    assert_eq!(failed(fetcher.fetch("http://photos.test/dead").await), "connection-reset");
    assert_eq!(host.traffic().hits("/dead"), 3, "once on the reused connection, once on a fresh one");
}

#[tokio::test]
async fn broken_header_lines_do_not_matter() {
    let many: Vec<String> = (0..150).map(|n| format!("X-H{n}: {n}")).collect();
    let many: Vec<&[u8]> = many.iter().map(String::as_bytes).collect();
    assert_taken(with_lines(&many), "150 headers").await;
    for line in [
        &b"garbage without a colon"[..],
        b"PHP Warning: Unable to load dynamic library 'x.so' in Unknown on line 0",
        b"<b>Warning</b>:  session_start() in /www/a.php",
        b"Access-Control-Allow-Credentials : true",
        b"X-Folded: a\r\n  b\r\n\tc",
        b": no name",
        b"X-Raw: \xe9\xff\xfe",
        b"X-Nul: a\0b",
        b"X-Return: a\rb",
        b"bad\0name: a",
        b"Content-Length: about twenty thousand",
        b"X-Empty:",
    ] {
        assert_taken(with_lines(&[line]), &line.escape_ascii().to_string()).await;
    }
}

#[tokio::test]
async fn a_robots_tag_counts_also_where_its_line_is_broken() {
    for line in [&b"X-Robots-Tag : noai"[..], b"X-Robots-Tag:\r\n noai", b"X-Nul: a\0b\r\nX-Robots-Tag: noai"] {
        let code = gone(fetch(with_lines(&[line])).await);
        assert_eq!(code, "refused-by-robots-tag", "{}", line.escape_ascii());
    }
}

#[tokio::test]
async fn transfer_encodings_that_mean_nothing_do_not_matter() {
    let head = |version: &str, encoding: &str| {
        let length = photo().len();
        format!("HTTP/{version} 200 OK\r\nTransfer-Encoding: {encoding}\r\nContent-Length: {length}\r\n\r\n")
    };
    for version in ["1.0", "1.1"] {
        for encoding in ["identity", "Identity", "none"] {
            let response = || HostResponse::raw(head(version, encoding), photo());
            assert_taken(response(), &format!("{version} {encoding}")).await;
            // The host does not close the connection.
            assert_taken(response().then(Hang), &format!("{version} {encoding}, open")).await;
        }
    }
    let short = HostResponse::raw(head("1.1", "identity"), photo().slice(..5000));
    assert_eq!(failed(fetch(short).await), "truncated");
}

#[tokio::test]
async fn the_cause_names_the_line_that_cannot_be_parsed() {
    let detail = async |response: HostResponse| match fetch(response).await {
        Err(error) => {
            assert_eq!(error.cause().code, CauseCode::BadResponse);
            error.cause().detail.clone()
        }
        Ok(_) => panic!("the response was taken"),
    };
    let two_lengths = detail(with_lines(&[b"A: 1", b"Content-Length: 7"])).await;
    assert!(two_lengths.contains("line 4 is `Content-Length: 7`"), "{two_lengths}");
    let other = detail(HostResponse::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n", "")).await;
    assert!(other.contains("line 1 is `SSH-2.0-OpenSSH_9.2`"), "{other}");
    let no_status = detail(HostResponse::raw("HTTP/1.1 OK\r\n\r\n", photo())).await;
    assert!(no_status.contains("line 1 is `HTTP/1.1 OK`"), "{no_status}");
}

/// A response with a broken head may also be too large, without end, or silent. Its connection is closed.
#[tokio::test]
async fn limits_apply_to_responses_with_a_mended_head() {
    let head = "HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\n\r\n";
    let short = Duration::from_millis(200);
    let endless = HostResponse::raw(head, photo()).then(ResponseStep::Forever(vec![0; 64 * 1024].into()));
    let silent = HostResponse::raw(head, photo()).then(Hang);
    let half = Route::new([HostResponse::raw(head, ""), HostResponse::default().then(Hang)]);
    let line = format!("X-Nul: {}\0\r\n", "x".repeat(1000));
    let endless_head = HostResponse::raw("HTTP/1.1 200 OK\r\n", "").then(ResponseStep::Forever(line.into()));
    let cut = HostResponse::raw("HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\n", "");
    let host = host([
        ("/endless", Route::from(endless)),
        ("/silent", silent.into()),
        ("/half", half),
        ("/endless-head", endless_head.into()),
        ("/cut", cut.into()),
    ])
    .await;
    let fetcher = fetcher(Rules { idle: short, first_byte: short, max_bytes: 1 << 20, ..rules(host.address()) });
    let fetch = async |path: &str| fetcher.fetch(&format!("http://photos.test/{path}")).await;
    assert_eq!(rejected(fetch("endless").await), "too-large");
    assert_eq!(failed(fetch("silent").await), "timeout");
    assert_eq!(failed(fetch("half").await), "timeout");
    assert_eq!(failed(fetch("endless-head").await), "bad-response");
    assert_eq!(failed(fetch("cut").await), "bad-response");
    timeout(support::PATIENCE, host.until(|traffic| traffic.now == 0)).await.expect("a connection stays open");
}

fn encoded(encoding: &str, body: impl Into<Bytes>) -> HostResponse {
    HostResponse::full(200, &[("Content-Type", "image/jpeg"), ("Content-Encoding", encoding)], body)
}

#[tokio::test]
async fn content_encodings_that_mean_nothing_do_not_matter() {
    for encoding in ["none", "binary", "image/jpeg", "aws-chunked", "utf-8", "", "gzip", "br", "deflate", "gzip, foo"] {
        assert_taken(encoded(encoding, photo()), encoding).await;
    }
}

#[tokio::test]
async fn packed_photos_are_unpacked_under_the_limit() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    assert_taken(encoded("gzip", gzip(&photo())), "gzip").await;
    assert_taken(encoded("zstd", zstd::encode_all(&photo()[..], 1).unwrap()), "zstd").await;
    let mut bomb = photo().to_vec();
    bomb.resize(20 << 20, 0);
    let limit = |rules: &mut Rules| rules.max_bytes = 1 << 20;
    assert_eq!(rejected(fetch_under(encoded("gzip", gzip(&bomb)), limit).await), "too-large");
    assert_eq!(rejected(fetch(encoded("gzip", gzip(b"<html>gone</html>"))).await), "not-an-image");
    assert_eq!(failed(fetch(encoded("gzip", gzip(&photo())[..9000].to_vec())).await), "truncated");
}

/// The memory of a packed photo is limited like that of any other: the next one still finds some.
#[tokio::test]
async fn packed_photos_return_their_memory() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&photo()).unwrap();
    let host = host([("/x", encoded("gzip", encoder.finish().unwrap()))]).await;
    let rules = Rules { max_bytes: 1 << 20, max_memory: 2 << 20, ..rules(host.address()) };
    let fetcher = fetcher(rules);
    for _ in 0..3 {
        fetcher.fetch("http://photos.test/x").await.unwrap();
    }
}

#[tokio::test]
async fn bytes_in_a_location_are_requested_as_they_are() {
    let redirect = |location: &[u8]| {
        let head = [&b"HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: "[..], location, b"\r\n\r\n"].concat();
        HostResponse::raw(head, "")
    };
    let host = host([
        ("/latin1", redirect(b"/caf\xe9.jpg?\xe9")),
        ("/utf8", redirect("/café.jpg?é".as_bytes())),
        ("/caf%E9.jpg?%E9", HostResponse::photo(photo())),
        ("/caf%C3%A9.jpg?%C3%A9", HostResponse::photo(photo())),
    ])
    .await;
    let fetcher = fetcher(rules(host.address()));
    for path in ["latin1", "utf8"] {
        let found = fetcher.fetch(&format!("http://photos.test/{path}")).await;
        assert!(found.is_ok(), "{path}: {found:?}, {:?}", host.traffic().paths.keys());
    }
}

#[tokio::test]
async fn cookies_live_within_one_chain_of_redirects() {
    let set = [("Location", "/x"), ("Set-Cookie", "seen=1; Path=/"), ("Set-Cookie", "b=2; Domain=photos.test")];
    let away = [("Location", "http://other.test/y"), ("Set-Cookie", "seen=1; Path=/")];
    let host = host([
        // A host that repeats the redirect until the cookie returns.
        ("/x", Route::new([HostResponse::full(302, &set, ""), HostResponse::photo(photo())])),
        ("/away", HostResponse::full(302, &away, "").into()),
        ("/y", HostResponse::photo(photo()).into()),
    ])
    .await;
    let fetcher = fetcher(rules(host.address()));
    let request = |path: &str| host.traffic().paths[path].request.to_lowercase();
    fetcher.fetch("http://photos.test/x").await.unwrap();
    assert!(request("/x").contains("cookie: seen=1; b=2\r\n"), "{}", request("/x"));
    fetcher.fetch("http://photos.test/y").await.unwrap();
    assert!(!request("/y").contains("cookie"), "another photo: {}", request("/y"));
    fetcher.fetch("http://photos.test/away").await.unwrap();
    assert!(!request("/y").contains("cookie"), "another host: {}", request("/y"));
}

#[tokio::test]
async fn a_partial_response_with_the_whole_photo_is_taken() {
    let range = |range: &str| HostResponse::full(206, &[("Content-Range", range)], photo());
    let last = photo().len() - 1;
    assert_taken(range(&format!("bytes 0-{last}/{}", last + 1)), "the whole photo").await;
    for part in [format!("bytes 0-{last}/{}", last + 2), format!("bytes 1-{last}/{last}"), format!("bytes 0-{last}/*")]
    {
        assert_eq!(failed(fetch(range(&part)).await), "http-206", "{part}");
    }
    assert_eq!(failed(fetch(HostResponse::full(206, &[], photo())).await), "http-206");
    assert_eq!(failed(fetch(range("bytes 0-99999/100000")).await), "truncated");
}

#[tokio::test]
async fn slips_in_a_url_are_mended_and_recorded() {
    let host = host([("/x?a=1&b=2", HostResponse::photo(photo())), ("/x", HostResponse::status(404))]).await;
    let stage = stage(&Arc::new(MemoryObjects::default()), rules(host.address()));
    let fetched = advanced(stage.run(&photo_of("\u{feff}//photos.test/x?a=1&amp;b=2\u{200b}")).await);
    let mended = fetched.facts.mended_url.unwrap();
    assert_eq!(mended.url, "http://photos.test/x?a=1&b=2");
    assert_eq!(mended.repairs, [UrlRepair::InvisibleCharacters, UrlRepair::Scheme, UrlRepair::Ampersands]);
    assert_eq!(fetched.candidate.photo_url, "\u{feff}//photos.test/x?a=1&amp;b=2\u{200b}", "the source is not changed");
    assert_eq!(fetched.candidate.host(), "photos.test");

    let whole = advanced(stage.run(&photo_of("http://photos.test/x?a=1&b=2")).await);
    assert_eq!(whole.facts.mended_url, None);
    match stage.run(&photo_of("//photos.test/x")).await {
        Outcome::Gone(cause) => assert!(cause.detail.contains("the URL was mended"), "{}", cause.detail),
        other => panic!("{other:?}"),
    }
}

/// A host that converts photos for browsers that prefer WebP sends the file that it stores.
#[tokio::test]
async fn the_request_prefers_the_formats_that_hosts_store() {
    let host = host([("/x", HostResponse::photo(photo()))]).await;
    fetcher(rules(host.address())).fetch("http://photos.test/x").await.unwrap();
    let request = host.traffic().paths["/x"].request.to_lowercase();
    assert!(request.contains("accept: image/jpeg,image/png,"), "{request}");
    assert!(!request.contains("webp") && !request.contains("avif"), "{request}");
    assert_eq!(request.matches("user-agent").count(), 1, "{request}");
}

/// The second request, with a mended head, is as honest as the first.
#[tokio::test]
async fn requests_with_a_mended_head_have_the_same_headers() {
    let broken = with_lines(&[b"X-Nul: a\0b"]);
    let host = host([("/x?a=1", Route::new([HostResponse::photo(photo()), broken]))]).await;
    let fetcher = fetcher(rules(host.address()));
    let request = async || {
        fetcher.fetch("http://photos.test/x?a=1#top").await.unwrap();
        let request = host.traffic().paths["/x?a=1"].request.to_lowercase();
        let mut lines: Vec<String> = request.lines().map(str::to_owned).collect();
        lines[1..].sort();
        lines
    };
    let whole = request().await;
    assert_eq!(request().await, whole);
    assert_eq!(host.traffic().hits("/x?a=1"), 3);
}
