//! Servers that a test starts, and that end with it whatever happens.
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts the server, tells its pid, and kills it when nobody holds the other end of standard input any more: that is
/// so too when the test process panics, is killed, or keeps the server in a static.
const WARDEN: &str = r#"
    trap '' INT TERM HUP
    folder=$1; shift
    "$@" </dev/null >>"$folder/log" 2>&1 &
    echo $!
    exec >/dev/null
    read -r _
    kill -9 $! 2>/dev/null
    wait
    rm -rf "$folder"
"#;

/// A server in a folder of its own, which is removed with it.
pub struct Process {
    _warden: Child,
    _leash: ChildStdin,
    pid: u32,
}

impl Process {
    pub fn start(folder: &Path, command: &[String]) -> Self {
        let mut warden = Command::new("sh")
            .args(["-c", WARDEN, "warden"])
            .arg(folder)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let leash = warden.stdin.take().unwrap();
        let mut pid = String::new();
        BufReader::new(warden.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        Self { _warden: warden, _leash: leash, pid: pid.trim().parse().expect("the shell tells the pid") }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.pid.to_string()]).status().unwrap();
        assert!(sent.success(), "kill -{signal} {}", self.pid);
    }

    pub fn is_alive(&self) -> bool {
        // A zombie is no server any more; its warden waits for it only at the end.
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&self) {
        self.signal("KILL");
        wait_for("the end of a killed server", || (!self.is_alive()).then_some(()));
    }
}

/// A scratch folder for a server, removed by its warden.
pub fn folder() -> PathBuf {
    tempfile::Builder::new().prefix("facemill-server-").tempdir().unwrap().keep()
}

/// Ports of the loopback that are free now.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Asks again and again until there is an answer; panics after half a minute.
pub fn wait_for<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        // The server tells nobody when this becomes true: asking again, up to a deadline, is all there is.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of the server's log, for a test that fails at its start.
pub fn log_tail(folder: &Path) -> String {
    let log = std::fs::read(folder.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned()
}

/// Sends `request` to a port of the loopback and answers what comes back, if anybody is there.
pub fn ask(port: u16, request: &str) -> Option<String> {
    use std::io::Read;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}
