//! Answers of a name server. It runs, with the fetcher, in a network namespace of its own, where it is the only one.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::Command;

use super::*;

/// Set in the process that runs in the namespace.
const INSIDE: &str = "FACEMILL_TEST_NAMESPACE";
const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

/// The response code for a name, and its address if it has one.
fn answer_for(name: &str) -> (u8, Option<[u8; 4]>) {
    match name {
        "broken.example" => (SERVFAIL, None),
        "refused.example" => (REFUSED, None),
        "empty.example" => (NOERROR, None),
        "metadata.example" => (NOERROR, Some([169, 254, 169, 254])),
        "wireserver.example" => (NOERROR, Some([168, 63, 129, 16])),
        _ => (NXDOMAIN, None),
    }
}

/// Answers every query. `alias.` before a name makes it a CNAME of that name.
fn serve(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let query = &query[..length];
        let (mut name, mut at) = (Vec::new(), 12);
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            name.push(String::from_utf8_lossy(&query[at + 1..end]).into_owned());
            at = end;
        }
        let wants_v4 = query[at + 2] == 1;
        let question = &query[12..at + 5];
        let is_alias = name[0] == "alias";
        let target = name[usize::from(is_alias)..].join(".");
        let (code, address) = answer_for(&target);
        let address = address.filter(|_| wants_v4);
        let answers = u8::from(is_alias) + u8::from(address.is_some());
        // Id, response with recursion, code, and the numbers of questions and answers.
        let mut response = [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0], question].concat();
        // Pointers to the name in the question: whole, or after the label `alias`.
        let (whole, rest) = ([0xc0, 12], [0xc0, 18]);
        if is_alias {
            response.extend_from_slice(&[&whole[..], &[0, 5, 0, 1, 0, 0, 0, 9, 0, 2], &rest].concat());
        }
        if let Some(address) = address {
            let owner = if is_alias { rest } else { whole };
            response.extend_from_slice(&[&owner[..], &[0, 1, 0, 1, 0, 0, 0, 9, 0, 4], &address].concat());
        }
        socket.send_to(&response, from).unwrap();
    }
}

/// Switches the loopback interface of the namespace on.
fn enable_loopback() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the socket is open, and the request is valid for the duration of the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn failures_of_name_servers_are_passing() {
    if std::env::var_os(INSIDE).is_none() {
        return run_in_namespace("fetch::dns::failures_of_name_servers_are_passing");
    }
    enable_loopback();
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || serve(&socket));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let host = host([("/x", HostResponse::photo(photo()))]).await;
        let rules = rules(host.address());
        for (name, expected) in [
            ("broken.example", "dns-failed"),
            ("alias.broken.example", "dns-failed"),
            ("refused.example", "dns-failed"),
            ("unknown.example", "dns"),
            ("empty.example", "dns"),
        ] {
            // One fetcher each: several hosts without an answer are an outage of the network.
            let code = failed(fetcher(rules.clone()).fetch(&format!("http://{name}/x")).await);
            assert_eq!(code, expected, "{name}");
            let is_gone = CauseCode::from(code.as_str()).means_gone_when_lasting();
            assert_eq!(is_gone, expected == "dns", "{name}");
        }
        for name in ["metadata.example", "alias.metadata.example", "wireserver.example", "alias.wireserver.example"] {
            for allow_private_addresses in [false, true] {
                let rules = Rules { allow_private_addresses, ..rules.clone() };
                let code = rejected(fetcher(rules).fetch(&format!("http://{name}/x")).await);
                assert_eq!(code, "forbidden-address", "{name}");
            }
        }
    });
}

/// Runs one test of this program in namespaces of its own, with a `resolv.conf` that names the loopback address.
fn run_in_namespace(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let resolv = folder.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n").unwrap();
    let script = "mount --bind \"$1\" \"$(readlink -f /etc/resolv.conf)\" && shift && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--net", "sh", "-c", script, "sh"])
        .arg(&resolv)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare of util-linux");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let hint = "the test needs user and network namespaces";
    assert!(output.status.success() && out.contains("1 passed"), "{hint}:\n{out}\n{err}");
}
