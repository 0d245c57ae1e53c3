//! Downloads from a real HTTP server with scripted faults.

mod dns;
mod sloppy_hosts;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use facemill::demo;
use facemill::demo::host::{Gate, HostResponse, ResponseStep, Route, Routes, WebHost};
use facemill::domain::{Candidate, CauseCode, ContentHash, ImageFormat, Photo, RunName, StageName};
use facemill::net::host_rules::HostRules;
use facemill::net::{Download, FetchError, Fetcher, Rules};
use facemill::objects::{ObjectKey, Objects};
use facemill::pipeline::fetch::Fetch;
use facemill::pipeline::stage::{Outcome, Retry, Stage};
use futures::{FutureExt, StreamExt, stream};
use reqwest::header::HeaderMap;
use support::objects::MemoryObjects;
use tokio::time::timeout;

/// Bytes that look like a JPEG, long enough to be cut off.
fn photo() -> Bytes {
    let rest = (0..20_000u32).map(|n| ((n * n) >> 7) as u8);
    [0xff, 0xd8, 0xff, 0xe0].into_iter().chain(rest).collect()
}

async fn host<R: Into<Route>>(routes: impl IntoIterator<Item = (&'static str, R)>) -> WebHost {
    let routes: Routes = routes.into_iter().map(|(path, route)| (path.to_owned(), route.into())).collect();
    WebHost::start("127.0.0.1:0", routes).await.unwrap()
}

/// Strict rules under which `photos.test` and `other.test` lead to the server. Time limits are long.
fn rules(address: SocketAddr) -> Rules {
    let minute = Duration::from_secs(60);
    Rules {
        hosts: ["photos.test", "other.test"].map(|name| (name.to_owned(), address)).into(),
        allowed: [address].into(),
        spacing: Duration::ZERO,
        queue_timeout: minute,
        connect: minute,
        first_byte: minute,
        idle: minute,
        total: minute,
        ..Rules::default()
    }
}

fn fetcher(rules: Rules) -> Fetcher {
    Fetcher::new(rules).unwrap()
}

/// Downloads `http://photos.test/x`, for which the server sends `response`.
async fn fetch(response: impl Into<Route>) -> Result<Download, FetchError> {
    fetch_under(response, |_| ()).await
}

async fn fetch_under(response: impl Into<Route>, change: impl FnOnce(&mut Rules)) -> Result<Download, FetchError> {
    let host = host([("/x", response)]).await;
    let mut rules = rules(host.address());
    change(&mut rules);
    fetcher(rules).fetch("http://photos.test/x").await
}

fn gone(result: Result<Download, FetchError>) -> String {
    match result {
        Err(FetchError::Gone(cause)) => cause.code.to_string(),
        other => panic!("{other:?}"),
    }
}

fn rejected(result: Result<Download, FetchError>) -> String {
    match result {
        Err(FetchError::Rejected(cause)) => cause.code.to_string(),
        other => panic!("{other:?}"),
    }
}

/// The code of a failure that costs an attempt and sets no delay.
fn failed(result: Result<Download, FetchError>) -> String {
    match result {
        Err(FetchError::Transient { cause, after: None, costs_attempt: true }) => cause.code.to_string(),
        other => panic!("{other:?}"),
    }
}

fn wait_of(result: Result<Download, FetchError>) -> (String, Option<Duration>) {
    match result {
        Err(FetchError::Transient { cause, after, costs_attempt: false }) => (cause.code.to_string(), after),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_photo_arrives_unchanged() {
    let host = host([("/x", HostResponse::full(200, &[("Content-Type", "text/html")], photo()))]).await;
    let contact = Some("https://example.org/about".to_owned());
    let fetcher = fetcher(Rules { contact, ..rules(host.address()) });
    let download = fetcher.fetch("http://photos.test/x?size=orig#top").await.unwrap();
    assert_eq!(download.bytes, photo());
    assert_eq!(download.sha256, ContentHash::of(&photo()));
    assert_eq!(download.format, ImageFormat::Jpeg, "detected from the content, not from the media type");

    let request = host.traffic().paths["/x?size=orig"].request.to_lowercase();
    let agent = format!("user-agent: facemill/{} (+https://example.org/about)\r\n", env!("CARGO_PKG_VERSION"));
    assert!(request.contains(&agent), "{request}");
    assert!(request.contains("host: photos.test\r\n"), "{request}");
    assert!(request.contains("accept-encoding: identity\r\n"), "{request}");
    assert!(!request.contains("referer") && !request.contains("cookie"), "{request}");
}

#[tokio::test]
async fn headers_of_a_host_reach_no_other_host() {
    let redirect = HostResponse::redirect("http://other.test/y");
    let set_cookie = [("Location", "/cookie"), ("Set-Cookie", "c=2"), ("Content-Length", "0")];
    // A NUL in the head: the request is repeated by another client.
    let broken = HostResponse::raw("HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 20004\r\n\r\n", photo());
    let host = host([
        ("/x", redirect),
        ("/y", HostResponse::photo(photo())),
        ("/set", HostResponse::head(302, &set_cookie)),
        ("/cookie", HostResponse::photo(photo())),
        ("/broken", broken),
    ])
    .await;
    let headers = [("x-token", "hunter2"), ("cookie", "own=1")];
    let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let headers: HeaderMap = headers.into_iter().collect();
    let mut rules = rules(host.address());
    let own = HostRules { headers: headers.clone(), headers_over_http: true, ..HostRules::default() };
    rules.host_rules.insert("photos.test".into(), own);
    let fetcher = fetcher(rules.clone());
    for path in ["x", "set", "broken"] {
        fetcher.fetch(&format!("http://photos.test/{path}")).await.unwrap();
    }
    let request = |path: &str| host.traffic().paths[path].request.to_lowercase();
    for path in ["/x", "/set", "/broken"] {
        assert!(request(path).contains("x-token: hunter2\r\n"), "{}", request(path));
    }
    assert_eq!(host.traffic().hits("/broken"), 2, "the second request is the one that is noted");
    assert!(request("/cookie").contains("cookie: own=1; c=2\r\n"), "{}", request("/cookie"));
    assert!(!request("/y").contains("hunter2") && !request("/y").contains("own=1"), "{}", request("/y"));

    // Without the permission, a URL of a source cannot make a token travel in plain text.
    rules.host_rules.insert("photos.test".into(), HostRules { headers, ..HostRules::default() });
    Fetcher::new(rules).unwrap().fetch("http://photos.test/cookie").await.unwrap();
    assert!(!request("/cookie").contains("hunter2"), "{}", request("/cookie"));
}

#[tokio::test]
async fn chunked_bodies_and_bodies_without_a_length_are_read() {
    let chunked = HostResponse::head(200, &[("Transfer-Encoding", "chunked")]);
    let body = [format!("{:x}\r\n", photo().len()).as_bytes(), &photo(), b"\r\n0\r\n\r\n"].concat();
    assert_eq!(fetch(chunked.then(ResponseStep::Send(body.into()))).await.unwrap().bytes, photo());
    assert_eq!(fetch(HostResponse::head(200, &[]).then(ResponseStep::Send(photo()))).await.unwrap().bytes, photo());
}

#[tokio::test]
async fn an_invalid_contact_is_an_error() {
    let rules = Rules { contact: Some("two\nlines".into()), ..Rules::default() };
    assert!(Fetcher::new(rules).err().unwrap().to_string().contains("contact"));
}

#[tokio::test]
async fn client_errors_are_final() {
    for status in [401, 403, 404, 410, 451] {
        assert_eq!(gone(fetch(HostResponse::status(status)).await), format!("http-{status}"));
    }
}

#[tokio::test]
async fn server_errors_are_retried() {
    for status in [500, 502, 503, 504] {
        assert_eq!(failed(fetch(HostResponse::status(status)).await), format!("http-{status}"));
    }
    let host = host([(
        "/x",
        Route::new([HostResponse::status(503), HostResponse::status(503), HostResponse::photo(photo())]),
    )])
    .await;
    let fetcher = fetcher(rules(host.address()));
    failed(fetcher.fetch("http://photos.test/x").await);
    failed(fetcher.fetch("http://photos.test/x").await);
    assert!(fetcher.fetch("http://photos.test/x").await.is_ok());
}

#[tokio::test]
async fn a_pause_applies_to_the_whole_host() {
    for status in [429, 503] {
        let host = host([("/x", HostResponse::retry_after(status, "120")), ("/y", HostResponse::photo(photo()))]).await;
        let fetcher = fetcher(rules(host.address()));
        let (code, after) = wait_of(fetcher.fetch("http://photos.test/x").await);
        assert_eq!((code, after), (format!("http-{status}"), Some(Duration::from_secs(120))));

        let (code, after) = wait_of(fetcher.fetch("http://photos.test/y").await);
        assert_eq!(code, "host-quiet");
        assert!(after.unwrap() > Duration::from_secs(100), "{after:?}");
        assert_eq!(host.traffic().hits("/y"), 0);
        assert!(fetcher.fetch("http://other.test/y").await.is_ok(), "other hosts are not affected");
    }
}

#[tokio::test]
async fn a_pause_of_zero_seconds_ends_at_once() {
    let host = host([("/x", Route::new([HostResponse::retry_after(429, "0"), HostResponse::photo(photo())]))]).await;
    let fetcher = fetcher(rules(host.address()));
    assert_eq!(wait_of(fetcher.fetch("http://photos.test/x").await).1, Some(Duration::ZERO));
    assert!(fetcher.fetch("http://photos.test/x").await.is_ok());
}

#[tokio::test]
async fn slow_hosts_time_out() {
    let short = Duration::from_millis(200);
    let tick = Duration::from_millis(20);
    let stalled = || HostResponse::with_length(20_004, photo().slice(..100)).then(ResponseStep::Hang);
    assert_eq!(failed(fetch_under(HostResponse::hang(), |rules| rules.first_byte = short).await), "timeout");
    assert_eq!(failed(fetch_under(HostResponse::slow_head(tick), |rules| rules.first_byte = short).await), "timeout");
    assert_eq!(failed(fetch_under(stalled(), |rules| rules.idle = short).await), "timeout");
    assert_eq!(
        failed(fetch_under(HostResponse::slow_body(photo(), tick), |rules| rules.total = short).await),
        "timeout"
    );
}

#[tokio::test]
async fn the_total_time_limit_includes_redirects() {
    let pause = || ResponseStep::Pause(Duration::from_millis(150));
    let routes =
        [("/x", HostResponse::redirect("/y").after(pause())), ("/y", HostResponse::redirect("/x").after(pause()))];
    let host = host(routes).await;
    let total = Duration::from_millis(250);
    let fetcher = fetcher(Rules { total, max_redirects: 100, ..rules(host.address()) });
    assert_eq!(failed(fetcher.fetch("http://photos.test/x").await), "timeout");
}

#[tokio::test]
async fn broken_connections_are_retried() {
    let garbage = HostResponse::default().then(ResponseStep::Send("SSH-2.0-OpenSSH_9.2\r\n\r\n".into()));
    let half_chunk =
        HostResponse::head(200, &[("Transfer-Encoding", "chunked")]).then(ResponseStep::Send(photo().slice(..50)));
    let chunk = [b"4e24\r\n", &photo()[..100]].concat();
    let short_chunk =
        HostResponse::head(200, &[("Transfer-Encoding", "chunked")]).then(ResponseStep::Send(chunk.into()));
    let two_lengths = HostResponse::full(200, &[("Content-Length", "7")], photo());
    for (response, code) in [
        (HostResponse::with_length(100_000, photo()), "truncated"),
        (short_chunk, "truncated"),
        (half_chunk, "truncated"),
        (HostResponse::reset(photo()), "connection-reset"),
        (HostResponse::default().then(ResponseStep::Reset), "connection-reset"),
        (HostResponse::default(), "connection-reset"),
        (HostResponse::endless_head(), "bad-response"),
        (garbage, "bad-response"),
        (two_lengths, "bad-response"),
    ] {
        let what = format!("{response:.200?}");
        assert_eq!(failed(fetch(response).await), code, "{}", &what[..what.len().min(200)]);
    }
}

#[tokio::test]
async fn unreachable_hosts_are_retried() {
    let host = host([("/x", HostResponse::photo(photo()))]).await;
    let address = host.address();
    let url = format!("http://{address}/x");
    let secure = fetcher(rules(address)).fetch(&format!("https://{address}/x")).await;
    assert_eq!(failed(secure), "tls", "the server speaks plain HTTP");
    host.stop().await;
    let refused = failed(fetcher(rules(address)).fetch(&url).await);
    assert_eq!(refused, "connection-refused");
    // Too long for DNS, so that no name server is contacted.
    let unknown = format!("http://{}.test/x", "x".repeat(70));
    assert_eq!(failed(fetcher(rules(address)).fetch(&unknown).await), "dns");
}

/// An address where connections are neither accepted nor refused: the backlog of its listener is full.
async fn black_hole() -> (SocketAddr, impl Sized) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connection) = timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address)).await {
        waiting.push(connection.unwrap());
    }
    (address, (listener, waiting))
}

#[tokio::test]
async fn waits_during_a_network_outage_cost_no_attempt() {
    let (nowhere, _kept) = black_hole().await;
    let host = host([("/x", HostResponse::photo(photo()))]).await;
    let mut rules = Rules { connect: Duration::from_millis(100), ..rules(host.address()) };
    rules.allowed.insert(nowhere);
    let unreachable = ["one.test", "two.test", "three.test"];
    rules.hosts.extend(unreachable.map(|name| (name.to_owned(), nowhere)));
    let fetcher = fetcher(rules);
    let fetch = async |name: &str| fetcher.fetch(&format!("http://{name}/x")).await;

    assert_eq!(failed(fetch("one.test").await), "timeout");
    assert_eq!(failed(fetch("two.test").await), "timeout");
    let (code, after) = wait_of(fetch("three.test").await);
    assert_eq!((code.as_str(), after), ("no-network", None));
    assert_eq!(wait_of(fetch("one.test").await).0, "no-network");

    fetch("photos.test").await.unwrap();
    for name in unreachable {
        assert_eq!(failed(fetch(name).await), "timeout", "only {name} does not response");
    }
}

#[tokio::test]
async fn large_bodies_are_rejected() {
    let limit = |rules: &mut Rules| rules.max_bytes = 20_004;
    assert_eq!(photo().len(), 20_004);
    assert!(fetch_under(HostResponse::photo(photo()), limit).await.is_ok(), "just within the limit");
    let more = [&photo()[..], b"x"].concat();
    assert_eq!(rejected(fetch_under(HostResponse::photo(more.clone()), limit).await), "too-large");
    assert_eq!(
        rejected(fetch_under(HostResponse::head(200, &[]).then(ResponseStep::Send(more.into())), limit).await),
        "too-large"
    );
    assert_eq!(rejected(fetch_under(HostResponse::endless_body(photo()), limit).await), "too-large");
    let oversized = HostResponse::with_length(1 << 40, "").then(ResponseStep::Hang);
    assert_eq!(rejected(fetch(oversized).await), "too-large", "the Content-Length is enough");
}

#[tokio::test]
async fn other_content_is_rejected() {
    let endless_page =
        HostResponse::head(200, &[("Content-Type", "image/jpeg")]).then(ResponseStep::Forever("<html>".into()));
    for (response, code) in [
        (HostResponse::html_page(), "not-an-image"),
        (endless_page, "not-an-image"),
        (HostResponse::photo("GIF"), "not-an-image"),
        (HostResponse::gzip_bomb(), "not-an-image"),
        (HostResponse::photo(""), "empty-body"),
        (HostResponse::head(204, &[]), "empty-body"),
    ] {
        assert_eq!(rejected(fetch(response).await), code);
    }
    assert!(fetch(HostResponse::full(200, &[("Content-Encoding", "identity")], photo())).await.is_ok());
}

#[tokio::test]
async fn robots_tags_are_honoured() {
    for tag in ["noai", "noimageai", "noindex", "facemill: noai", "noai, noindex"] {
        assert_eq!(gone(fetch(HostResponse::robots(tag, photo())).await), "refused-by-robots-tag", "{tag}");
    }
    let two = HostResponse::full(200, &[("X-Robots-Tag", "nofollow"), ("x-robots-tag", "NoAI")], photo());
    assert_eq!(gone(fetch(two).await), "refused-by-robots-tag");
    for tag in ["all", "googlebot: noindex", "unavailable_after: 25 Jun 2010 15:00:00 PST"] {
        assert!(fetch(HostResponse::robots(tag, photo())).await.is_ok(), "{tag}");
    }
}

#[tokio::test]
async fn what_a_host_reserves_is_recorded() {
    let headers = [("TDM-Reservation", "1"), ("X-Robots-Tag", "googlebot: noindex")];
    let download = fetch(HostResponse::full(200, &headers, photo())).await.unwrap();
    assert_eq!(download.opt_out.as_deref(), Some("tdm-reservation: 1; X-Robots-Tag: googlebot: noindex"));
    assert_eq!(fetch(HostResponse::photo(photo())).await.unwrap().opt_out, None);
}

#[tokio::test]
async fn five_redirects_are_followed_and_no_more() {
    let host = host([
        ("/6", HostResponse::redirect("5")),
        ("/5", HostResponse::redirect("/4")),
        ("/4", HostResponse::redirect("http://other.test/3")),
        ("/3", HostResponse::redirect("//photos.test/2")),
        ("/2", HostResponse::redirect("./1?a=b#c")),
        ("/1?a=b", HostResponse::redirect("/x")),
        ("/x", HostResponse::photo(photo())),
        ("/loop", HostResponse::redirect("/loop")),
    ])
    .await;
    let fetcher = fetcher(rules(host.address()));
    assert!(fetcher.fetch("http://photos.test/5").await.is_ok());
    assert_eq!(rejected(fetcher.fetch("http://photos.test/6").await), "too-many-redirects");
    assert_eq!(rejected(fetcher.fetch("http://photos.test/loop").await), "too-many-redirects");
    assert_eq!(host.traffic().hits("/loop"), 6);
}

#[tokio::test]
async fn a_redirect_without_a_location_is_a_failure() {
    assert_eq!(failed(fetch(HostResponse::head(302, &[])).await), "http-302");
    assert_eq!(failed(fetch(HostResponse::status(304)).await), "http-304");
}

/// A second server on a forbidden address receives no request.
#[tokio::test]
async fn redirects_into_the_private_network_are_refused() {
    let inner = host([("/secret", HostResponse::photo(photo()))]).await;
    let port = inner.address().port();
    for (target, code) in [
        (format!("http://127.0.0.1:{port}/secret"), "forbidden-address"),
        (format!("//127.0.0.1:{port}/secret"), "forbidden-address"),
        (format!("http://2130706433:{port}/secret"), "forbidden-address"),
        (format!("http://0x7f.1:{port}/secret"), "forbidden-address"),
        (format!("http://[::ffff:127.0.0.1]:{port}/secret"), "forbidden-address"),
        (format!("http://localhost:{port}/secret"), "forbidden-address"),
        (format!("http://photos.test:{port}/secret"), "forbidden-address"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "forbidden-address"),
        ("http://metadata.google.internal/computeMetadata/v1/".to_owned(), "forbidden-address"),
        ("http://168.63.129.16/machine?comp=goalstate".to_owned(), "forbidden-address"),
        ("http://[fd00::1]/".to_owned(), "forbidden-address"),
        (format!("http://root:root@127.0.0.1:{port}/secret"), "bad-url"),
        ("file:///etc/passwd".to_owned(), "bad-url"),
        ("gopher://photos.test/1".to_owned(), "bad-url"),
        ("http://".to_owned(), "bad-url"),
    ] {
        assert_eq!(rejected(fetch(HostResponse::redirect(&target)).await), code, "{target}");
    }
    assert_eq!(inner.traffic().all_hits(), 0);
}

#[tokio::test]
async fn names_of_private_addresses_are_refused() {
    let host = host([("/x", HostResponse::photo(photo()))]).await;
    let by_name = format!("http://localhost:{}/x", host.address().port());
    assert_eq!(rejected(fetcher(rules(host.address())).fetch(&by_name).await), "forbidden-address");
    let no_exception = Rules { allowed: [].into(), ..rules(host.address()) };
    assert_eq!(rejected(fetcher(no_exception).fetch("http://photos.test/x").await), "forbidden-address");
    assert_eq!(host.traffic().all_hits(), 0);

    let open = fetcher(Rules { allow_private_addresses: true, ..Rules::default() });
    assert!(open.fetch(&by_name).await.is_ok());
    assert!(open.fetch(&host.url("/x")).await.is_ok());
}

#[tokio::test]
async fn requests_to_one_host_are_limited() {
    let gate = Gate::new();
    let host = host([("/x", HostResponse::gated(&gate, photo()))]).await;
    let rules = Rules { per_host: 2, max_requests: 3, ..rules(host.address()) };
    // Two requests run, and half of the prefetched photos are queued. The next photo is deferred at once.
    let queue = rules.prefetch() / 2;
    let fetcher = fetcher(rules);
    let fetches = (0..2 + queue).map(|_| fetcher.fetch("http://photos.test/x"));
    let mut all = Box::pin(futures::future::join_all(fetches));
    tokio::select! {
        _ = &mut all => panic!("the gate is closed"),
        () = host.until(|traffic| traffic.now == 2) => {}
    }
    let (code, after) = wait_of(fetcher.fetch("http://photos.test/x").await);
    assert_eq!(code, "host-busy");
    assert!(after.unwrap() >= Duration::from_secs(1));
    let elsewhere = fetcher.fetch("http://other.test/x");
    tokio::select! {
        _ = &mut all => panic!("the gate is closed"),
        _ = elsewhere => panic!("the gate is closed"),
        () = host.until(|traffic| traffic.now == 3) => {}
    }
    assert_eq!(host.traffic().all_hits(), 3);
    gate.open();
    assert!(all.await.iter().all(Result::is_ok));
    assert_eq!(host.traffic().peak, 3, "two for one name, one for the other");
}

fn stage(objects: &Arc<MemoryObjects>, rules: Rules) -> Fetch {
    Fetch::new(Arc::clone(objects) as Arc<dyn Objects>, fetcher(rules))
}

fn photo_of(url: &str) -> Photo {
    let candidate = Candidate {
        photo_id: "7".into(),
        face_id: "8".into(),
        label_id: "9".into(),
        label_name: None,
        photo_url: url.into(),
        source_url: None,
        posted_at: None,
        source: None,
        columns: Default::default(),
    };
    Photo::new(RunName::default(), candidate)
}

fn advanced(outcome: Outcome) -> Photo {
    match outcome {
        Outcome::Advance(photo) => *photo,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_stage_stores_the_original_and_fetches_it_once() {
    let host = host([("/x", HostResponse::photo(photo()))]).await;
    let objects = Arc::new(MemoryObjects::default());
    let stage = stage(&objects, rules(host.address()));
    assert_eq!(stage.name(), StageName::Fetch);

    let fresh = photo_of("http://photos.test/x");
    let fetched = advanced(stage.run(&fresh).await);
    let original = fetched.facts.original.clone().unwrap();
    assert_eq!((original.bytes, original.format), (20_004, ImageFormat::Jpeg));
    let key = ObjectKey::original(ContentHash::of(&photo()), ImageFormat::Jpeg);
    assert_eq!(objects.all().into_iter().collect::<Vec<_>>(), [(key.clone(), photo())]);

    assert_eq!(advanced(stage.run(&fetched).await), fetched);
    assert_eq!(host.traffic().hits("/x"), 1, "the original is already stored");

    objects.remove(&key);
    assert_eq!(advanced(stage.run(&fetched).await), fetched);
    assert_eq!((host.traffic().hits("/x"), objects.all().len()), (2, 1), "a lost original is fetched again");
    assert_eq!(advanced(stage.run(&fresh).await), fetched);
    assert_eq!(objects.all().len(), 1, "the same content is one object");
}

#[tokio::test]
async fn an_unavailable_store_costs_no_attempt() {
    let host = host([("/x", HostResponse::photo(photo()))]).await;
    let objects = Arc::new(MemoryObjects::default());
    let stage = stage(&objects, rules(host.address()));
    let fetched = advanced(stage.run(&photo_of("http://photos.test/x")).await);
    objects.set_unavailable(true);
    for photo in [photo_of("http://photos.test/x"), fetched] {
        match stage.run(&photo).await {
            Outcome::Retry(Retry { cause, costs_attempt: false, .. }) => {
                assert_eq!(cause.code, CauseCode::StoreUnavailable)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn download_errors_become_outcomes() {
    let host = host([
        ("/gone", HostResponse::status(410)),
        ("/page", HostResponse::html_page()),
        ("/bad", HostResponse::status(500)),
    ])
    .await;
    let objects = Arc::new(MemoryObjects::default());
    let stage = stage(&objects, rules(host.address()));
    let run = async |path: &str| stage.run(&photo_of(&format!("http://photos.test{path}"))).await;
    assert!(matches!(run("/gone").await, Outcome::Gone(cause) if cause.code == CauseCode::Http(410)));
    assert!(matches!(run("/page").await, Outcome::Reject(cause) if cause.code == CauseCode::NotAnImage));
    assert!(matches!(run("/bad").await, Outcome::Retry(retry) if retry.costs_attempt && retry.after.is_none()));
    assert!(matches!(stage.run(&photo_of("")).await, Outcome::Reject(cause) if cause.code == CauseCode::BadUrl));
    assert!(objects.all().is_empty());
}

/// Two downloads that stall hold all the memory. A third one waits without using up an attempt.
#[tokio::test]
async fn the_memory_of_all_downloads_is_limited() {
    let gate = Gate::new();
    let stalled = HostResponse::with_length(20_004, photo().slice(..100));
    let stalled = stalled.then(ResponseStep::Wait(gate.clone())).then(ResponseStep::Send(photo().slice(100..)));
    let host = host([("/stalled", stalled), ("/x", HostResponse::photo(photo()))]).await;
    let kib = 1024;
    let queue_timeout = Duration::from_millis(20);
    let rules = Rules { max_bytes: 20 * kib, max_memory: 40 * kib, queue_timeout, ..rules(host.address()) };
    let fetcher = fetcher(rules);
    let stalled = ["http://photos.test/stalled", "http://other.test/stalled"].map(|url| fetcher.fetch(url));
    let mut stalled = futures::future::join_all(stalled);
    let deferred = async {
        loop {
            // Until both of the others have received their headers, this one finds memory.
            if let Err(error) = fetcher.fetch("http://photos.test/x").await {
                return error;
            }
        }
    };
    let deferred = tokio::select! {
        _ = &mut stalled => panic!("the gate is closed"),
        error = timeout(support::PATIENCE, deferred) => error.expect("the memory has no limit"),
    };
    assert_eq!(deferred.cause().code, CauseCode::DownloadMemory);
    assert!(!deferred.costs_attempt() && deferred.is_retryable());
    gate.open();
    for download in stalled.await {
        assert_eq!(download.unwrap().bytes, photo());
    }
    fetcher.fetch("http://photos.test/x").await.unwrap();
}

/// Many photos of a host that does not respond, and one photo of another host after them.
#[tokio::test]
async fn a_busy_host_does_not_block_another() {
    let gate = Gate::new();
    let host = host([("/busy", HostResponse::gated(&gate, photo())), ("/other", HostResponse::photo(photo()))]).await;
    let rules = Rules { max_requests: 8, ..rules(host.address()) };
    let prefetch = rules.prefetch();
    let stage = stage(&Arc::new(MemoryObjects::default()), rules);
    let busy = (0..5000).map(|_| photo_of("http://photos.test/busy"));
    let queue: Vec<_> = busy.chain([photo_of("http://other.test/other")]).collect();

    let mut advanced = 0;
    let mut deferred = 0;
    // Four requests run, and half of the prefetched photos are queued.
    let held = 4 + prefetch / 2;
    let mut outcomes = stream::iter(&queue).map(|photo| stage.run(photo)).buffer_unordered(prefetch);
    while advanced == 0 {
        match outcomes.next().await.unwrap() {
            Outcome::Advance(photo) => {
                assert_eq!(photo.candidate.photo_url, "http://other.test/other");
                advanced += 1;
            }
            Outcome::Retry(Retry { cause, after: Some(_), costs_attempt: false }) => {
                assert_eq!(cause.code, CauseCode::HostBusy);
                deferred += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(deferred, 5000 - held);
    assert!(outcomes.next().now_or_never().is_none(), "the others are still held");
    gate.open();
    assert_eq!(
        outcomes.filter(|outcome| futures::future::ready(matches!(outcome, Outcome::Advance(_)))).count().await,
        held
    );
    assert!(host.traffic().paths["/busy"].peak <= 4);
}

/// The result of the first attempt for each URL in the demo's dump.
#[tokio::test]
async fn the_demo_has_every_kind_of_ending() {
    let folder = tempfile::tempdir().unwrap();
    let drawing = image::RgbImage::from_fn(40, 50, |x, y| image::Rgb([4 * x as u8, 4 * y as u8, 0]));
    drawing.save(folder.path().join("ann.jpg")).unwrap();
    std::fs::write(folder.path().join("photos.tsv"), "ann.jpg\tone\n").unwrap();
    let demo = demo::prepare(folder.path(), &folder.path().join("out")).await.unwrap();
    let dump = std::fs::read_to_string(&demo.dump).unwrap();
    let (_, photos) = dump.split_once("COPY public.photos").unwrap();
    let rows = photos.lines().skip(1).take_while(|line| *line != "\\.");
    let urls: Vec<_> = rows.map(|row| row.split('\t').nth(2).unwrap().to_owned()).collect();

    let hosts = demo::scene::HOSTS.into_iter().map(|name| (name.to_owned(), demo.host.address())).collect();
    let rules = Rules { max_bytes: 2_000_000, hosts, ..rules(demo.host.address()) };
    let usual = fetcher(rules.clone());
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    // The slow host is left out: its responses depend on timing.
    for url in urls.iter().filter(|url| !url.contains("slow.test") && !url.contains("not-a-candidate")) {
        // The busy host asks for a pause, which a shared fetcher would apply to its other photos.
        let other = url.contains("busy.test").then(|| fetcher(rules.clone()));
        let response = match other.as_ref().unwrap_or(&usual).fetch(url).await {
            Ok(_) => "photo".to_owned(),
            Err(error) => error.cause().code.to_string(),
        };
        *answers.entry(response).or_default() += 1;
    }
    let others: Vec<_> = answers.iter().filter(|(code, _)| *code != "photo").map(|(s, n)| (s.as_str(), *n)).collect();
    let expected = [
        ("bad-response", 1),
        ("bad-url", 5),
        ("connection-reset", 1),
        ("empty-body", 1),
        ("forbidden-address", 5),
        ("http-403", 1),
        ("http-404", 10),
        ("http-410", 1),
        ("http-429", 1),
        ("http-500", 1),
        ("http-503", 2),
        ("not-an-image", 2),
        ("refused-by-robots-tag", 1),
        ("too-large", 2),
        ("too-many-redirects", 1),
        ("truncated", 1),
    ];
    assert_eq!(others, expected);
    assert!(answers["photo"] > 60, "{answers:?}");
}
