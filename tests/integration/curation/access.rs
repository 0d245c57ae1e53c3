//! Who is let in: sessions, reverse proxies, TLS, and the limits of each.

use std::io::Write;
use std::process::{Command, Stdio};

use facemill::domain::Role;
use reqwest::Method;
use serde_json::json;
use support::curation::RunFolder;

use super::visitor::{Answer, PASSWORD, Visitor, add_users};

/// Runs `facemill users` on the folder of a run.
fn users(run: &RunFolder, arguments: &[&str], input: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    command.arg("users").args(arguments).arg("--out").arg(run.path()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let _ = writeln!(child.stdin.take().unwrap(), "{input}");
    assert!(child.wait().unwrap().success());
}

/// Sends a request until it is answered with 401. The server reads the users again while requests arrive.
async fn until_refused(visitor: &mut Visitor) -> Answer {
    let deadline = tokio::time::Instant::now() + support::PATIENCE;
    loop {
        let answer = visitor.get("/api/counts").await;
        if answer.status == 401 {
            return answer;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(tokio::time::Instant::now() < deadline, "the session has not ended");
        // There is no signal to wait for, so this polls up to a deadline.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_with_a_password_and_outlives_the_server() {
    let run = RunFolder::with_faces(4).await;
    add_users(run.path(), &[("ada", Role::Curator), ("bob", Role::Viewer)]).await;
    let mut server = run.serve(&[]);
    let mut stranger = Visitor::of(&server);
    let page = stranger.get("/").await;
    assert_eq!(page.status, 200, "the page itself has no data");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("strict-transport-security", ""),
    ] {
        assert_eq!(page.header(name), value, "{name}");
    }
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    let refused = stranger.get("/api/counts").await;
    assert_eq!((refused.status, refused.code()), (401, "sign-in"));
    assert_eq!(refused.header("content-security-policy"), policy, "errors have the headers, too");
    assert_eq!(refused.header("cache-control"), "no-store");

    for (name, password) in [("ada", "wrong password"), ("nobody", PASSWORD), ("", ""), ("<b>ada</b>", PASSWORD)] {
        let answer = stranger.sign_in_with(name, password, &[]).await;
        assert_eq!((answer.status, answer.code()), (401, "wrong-password"), "{name}");
        assert_eq!((answer.body, stranger.cookie.clone()), (refused_sign_in(), None), "all names get the same answer");
    }
    let mut ada = Visitor::of(&server);
    let begun = ada.sign_in_with("ada", PASSWORD, &[]).await;
    assert_eq!(begun.status, 204);
    let cookie = begun.header("set-cookie");
    assert!(cookie.ends_with("; Max-Age=604800; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    let person = ada.get("/api/session").await.body;
    assert_eq!((&person["person"], &person["sign_in"]), (&json!({ "name": "ada", "role": "curator" }), &json!(true)));
    let stored = std::fs::read_to_string(run.path().join("curation/sessions.json")).unwrap();
    let token = ada.cookie.clone().unwrap();
    assert!(!stored.contains(token.split_once('=').unwrap().1), "only the hash of a token is stored");

    // Another server on the same store knows the session.
    server.kill();
    let server = run.serve(&[]);
    let mut ada = Visitor::with_cookie(&server, ada.cookie);
    assert_eq!(ada.get("/api/counts").await.status, 200);
    let mut forged = Visitor::with_cookie(&server, Some(format!("facemill={}", "A".repeat(43))));
    assert_eq!(forged.get("/api/counts").await.status, 401);
    assert_eq!(forged.cookie, None, "the browser forgets a token that does not hold");

    // A viewer sees everything and changes nothing.
    let mut bob = Visitor::signed_in(&server, "bob").await;
    let before = bob.get("/api/counts").await.body;
    let change = bob.send(Method::PUT, "/api/threshold", &[], Some(json!({ "threshold": 0.9 }).to_string())).await;
    assert_eq!((change.status, change.code()), (403, "forbidden"));
    assert_eq!(bob.get("/api/counts").await.body, before);
    // Nor does a viewer keep faces from the curators.
    let mut all = Vec::new();
    for visitor in [&mut bob, &mut ada] {
        let open = json!({ "where": "", "sort": "id", "view": "grid", "client": "tab" }).to_string();
        let list = visitor.send(Method::POST, "/api/lists", &[], Some(open)).await.body;
        let entries = format!("/api/lists/{}/entries", list["list"].as_str().unwrap());
        let read = json!({ "client": "tab" }).to_string();
        all.push(visitor.send(Method::POST, &entries, &[], Some(read)).await.body["entries"].as_array().unwrap().len());
    }
    assert_eq!(all, [4, 4]);

    let ended = ada.send(Method::DELETE, "/api/session", &[], None).await;
    assert_eq!((ended.status, ada.cookie.clone()), (204, None));
    let mut thief = Visitor::with_cookie(&server, Some(token));
    assert_eq!(thief.get("/api/counts").await.status, 401, "a copy of the cookie has ended, too");
    assert_eq!(bob.get("/api/counts").await.status, 200);
}

fn refused_sign_in() -> serde_json::Value {
    json!({ "error": { "code": "wrong-password", "message": "the name or the password is wrong" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_and_a_removal_end_sessions() {
    let run = RunFolder::with_faces(1).await;
    add_users(run.path(), &[("ada", Role::Curator), ("bob", Role::Curator)]).await;
    let server = run.serve(&[]);
    let (mut ada, mut bob) = (Visitor::signed_in(&server, "ada").await, Visitor::signed_in(&server, "bob").await);
    users(&run, &["passwd", "ada"], "another password");
    assert_eq!(until_refused(&mut ada).await.code(), "sign-in");
    assert_eq!(bob.get("/api/counts").await.status, 200);
    assert_eq!(ada.sign_in_with("ada", PASSWORD, &[]).await.status, 401);
    assert_eq!(ada.sign_in_with("ada", "another password", &[]).await.status, 204);
    assert_eq!(ada.get("/api/counts").await.status, 200);
    users(&run, &["remove", "bob"], "");
    until_refused(&mut bob).await;
    // Somebody else with the same name does not get the sessions.
    let cookie = bob.cookie.clone();
    add_users(run.path(), &[("bob", Role::Viewer)]).await;
    let mut old = Visitor::with_cookie(&server, cookie);
    assert_eq!(old.get("/api/counts").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_users_only_this_machine_is_served() {
    let run = RunFolder::with_faces(1).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    let refused = command.args(["curate", "--listen", "0.0.0.0:0", "--out"]).arg(run.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains("cannot serve at 0.0.0.0:0: there are no users") && message.contains("facemill users add"),
        "{message}"
    );

    let server = run.serve(&[]);
    let mut local = Visitor::of(&server);
    assert_eq!(local.get("/api/session").await.body["person"]["name"], "ada");
    // A page of somebody else gives its own name the address of this machine.
    for host in ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example"] {
        let answer = local.send(Method::GET, "/api/counts", &[("Host", host)], None).await;
        assert_eq!((answer.status, answer.code()), (403, "foreign-host"), "{host}");
    }
    assert_eq!(local.send(Method::GET, "/api/counts", &[("Host", "localhost:9")], None).await.status, 200);
    // The first user ends this: from then on people sign in.
    add_users(run.path(), &[("ada", Role::Curator)]).await;
    until_refused(&mut local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_passwords_is_slow() {
    let run = RunFolder::with_faces(1).await;
    add_users(run.path(), &[("ada", Role::Curator), ("bob", Role::Curator)]).await;
    let server = run.serve(&[]);
    let mut ada = Visitor::signed_in(&server, "ada").await;
    let mut guesser = Visitor::of(&server);
    for name in ["ada", "nobody"] {
        let mut statuses = Vec::new();
        for _ in 0..12 {
            // The header of a client that is no named proxy does not count.
            let forged = format!("203.0.113.{}", statuses.len());
            let answer = guesser.sign_in_with(name, "wrong password", &[("X-Forwarded-For", &forged)]).await;
            statuses.push(answer.status);
            assert_eq!(answer.status == 429, !answer.header("retry-after").is_empty(), "{answer:?}");
        }
        assert_eq!(statuses[..10], [401; 10], "{name}");
        assert_eq!(statuses[10..], [429; 2], "{name}: whether the name exists does not show");
    }
    // Also for the right password; who has signed in is not concerned, and neither is another name.
    assert_eq!(guesser.sign_in_with("ada", PASSWORD, &[]).await.status, 429);
    assert_eq!(ada.get("/api/counts").await.status, 200);
    assert_eq!(guesser.sign_in_with("bob", PASSWORD, &[]).await.status, 204);
    // One address may not try many names either.
    let mut last = 0;
    for number in 0..30 {
        last = guesser.sign_in_with(&format!("name-{number}"), "wrong password", &[]).await.status;
    }
    assert_eq!(last, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reverse_proxy_names_the_person() {
    let run = RunFolder::with_faces(1).await;
    users(&run, &["add", "carol@example.org", "--without-password"], "");
    let header = ["--proxy-header", "X-Remote-User", "--trusted-proxy"];
    let server = run.serve(&[header[0], header[1], header[2], "127.0.0.1"]);
    let mut proxy = Visitor::of(&server);
    for (name, role) in [("carol@example.org", "curator"), ("dave", "viewer")] {
        let answer = proxy.send(Method::GET, "/api/session", &[("X-Remote-User", name)], None).await;
        assert_eq!(answer.body["person"], json!({ "name": name, "role": role }), "{answer:?}");
    }
    for headers in
        [&[("X-Remote-User", "<b>")][..], &[("X-Remote-User", "dave"), ("X-Remote-User", "carol@example.org")]]
    {
        let answer = proxy.send(Method::GET, "/api/session", headers, None).await;
        assert_eq!((answer.status, answer.code()), (401, "bad-proxy-header"));
    }
    for headers in [&[][..], &[("X-Remote-User", "")]] {
        assert_eq!(proxy.send(Method::GET, "/api/session", headers, None).await.status, 401);
    }
    // A user without a password cannot sign in with one.
    assert_eq!(proxy.sign_in_with("carol@example.org", PASSWORD, &[]).await.status, 401);
    // A page of somebody else cannot use the proxy's session.
    let foreign = [("X-Remote-User", "carol@example.org"), ("Sec-Fetch-Site", "cross-site")];
    let answer =
        proxy.send(Method::PUT, "/api/threshold", &foreign, Some(json!({ "threshold": 0.9 }).to_string())).await;
    assert_eq!((answer.status, answer.code()), (403, "foreign-origin"));
    // Behind a proxy with TLS, cookies are for TLS only.
    add_users(run.path(), &[("ada", Role::Curator)]).await;
    let begun = proxy.sign_in_with("ada", PASSWORD, &[("X-Forwarded-Proto", "https")]).await;
    let cookie = begun.header("set-cookie");
    assert!(cookie.starts_with("__Host-facemill=") && cookie.ends_with("; Secure"), "{begun:?}");
    assert_eq!(begun.header("strict-transport-security"), "max-age=31536000");
    assert_eq!(proxy.send(Method::GET, "/api/counts", &[("X-Forwarded-Proto", "https")], None).await.status, 200);

    // From any other address the headers do not count.
    let elsewhere = run.serve(&[header[0], header[1], header[2], "10.0.0.0/8"]);
    let mut stranger = Visitor::of(&elsewhere);
    assert_eq!(stranger.send(Method::GET, "/api/session", &[("X-Remote-User", "dave")], None).await.status, 401);
    let begun = stranger.sign_in_with("ada", PASSWORD, &[("X-Forwarded-Proto", "https")]).await;
    assert!(begun.header("set-cookie").starts_with("facemill="), "{begun:?}");
    // Without a proxy there is no header.
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    let refused =
        command.args(["curate", "--proxy-header", "X-Remote-User", "--out"]).arg(run.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_speaks_tls_itself() {
    let run = RunFolder::with_faces(1).await;
    add_users(run.path(), &[("ada", Role::Curator)]).await;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| run.path().join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = run.serve(&files);
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    let mut ada = Visitor::of(&server);
    let begun = ada.sign_in_with("ada", PASSWORD, &[]).await;
    let cookie = begun.header("set-cookie");
    assert!(cookie.starts_with("__Host-facemill=") && cookie.ends_with("; Secure"), "{begun:?}");
    let counts = ada.get("/api/counts").await;
    assert_eq!((counts.status, counts.header("strict-transport-security")), (200, "max-age=31536000"));

    std::fs::write(&key, "no key").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    let refused = command.arg("curate").args(files).arg("--out").arg(run.path()).output().unwrap();
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(message.contains("has no private key in PEM format"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_seen_while_a_large_body_is_under_way() {
    let run = RunFolder::with_faces(1).await;
    add_users(run.path(), &[("ada", Role::Curator)]).await;
    let server = run.serve(&[]);
    let mut stranger = Visitor::of(&server);
    let mut ada = Visitor::signed_in(&server, "ada").await;
    for megabytes in [1, 3] {
        let body = || Some("x".repeat(megabytes << 20));
        let answer = stranger.send(Method::POST, "/api/verdicts", &[], body()).await;
        assert_eq!((answer.status, answer.code()), (401, "sign-in"));
        let answer = ada.send(Method::POST, "/api/verdicts", &[], body()).await;
        assert_eq!((answer.status, answer.code()), (413, "too-large"));
    }
}
