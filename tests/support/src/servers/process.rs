//! Servers that a test starts. They end with the test process, even if that is killed.

use crate::PATIENCE;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Starts the server, prints its process id, and kills it at the end of standard input. Standard input also ends if the
/// test process panics or is killed.
const WATCHDOG: &str = r#"
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

/// A server and its folder. It can be killed and started again.
pub struct Process {
    folder: PathBuf,
    command: Vec<String>,
    /// The server runs in the last. The first removes the folder when it is dropped, so all are kept.
    started: Vec<Watched>,
}

/// A server process and the shell that kills it at the end of the test process.
struct Watched {
    _watchdog: Child,
    _stdin: ChildStdin,
    pid: u32,
}

impl Watched {
    fn start(folder: &Path, command: &[String]) -> Self {
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh is installed");
        let stdin = watchdog.stdin.take().unwrap();
        let mut pid = String::new();
        BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        Self { _watchdog: watchdog, _stdin: stdin, pid: pid.trim().parse().expect("the shell prints the process id") }
    }
}

/// The letter of the state of a process or thread, given its folder in `/proc`. `None`: it has ended.
fn state(folder: PathBuf) -> Option<char> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

impl Process {
    pub fn start(folder: &Path, command: Vec<String>) -> Self {
        let started = vec![Watched::start(folder, &command)];
        Self { folder: folder.to_owned(), command, started }
    }

    pub fn pid(&self) -> u32 {
        self.started.last().expect("a server is started at once").pid
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(sent.success(), "kill -{signal} {pid}");
    }

    pub fn is_alive(&self) -> bool {
        // A killed server is a zombie until its watchdog waits for it at the end.
        state(Path::new("/proc").join(self.pid().to_string())).is_some_and(|state| state != 'Z')
    }

    /// Stops the server with SIGSTOP and waits until no thread runs: one that does not know of the signal yet would
    /// answer the next request.
    pub fn freeze(&self) {
        self.signal("STOP");
        let threads = Path::new("/proc").join(self.pid().to_string()).join("task");
        wait_for("a server to stand still", || {
            let mut threads = std::fs::read_dir(&threads).unwrap();
            threads.all(|thread| state(thread.unwrap().path()).is_none_or(|state| state == 'T')).then_some(())
        });
    }

    /// Continues a frozen server.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Kills the server with SIGKILL and waits until it has ended.
    pub fn kill(&self) {
        self.signal("KILL");
        wait_for("the end of a killed server", || (!self.is_alive()).then_some(()));
    }

    /// Starts the server again with the same command, so with the same ports and data. Waits until `is_up`.
    pub fn restart(&mut self, is_up: impl Fn() -> bool) {
        self.restart_with(&[], is_up);
    }

    /// The same with further arguments, which override earlier ones.
    pub fn restart_with(&mut self, more: &[&str], is_up: impl Fn() -> bool) {
        let command: Vec<String> =
            self.command.iter().cloned().chain(more.iter().map(|word| word.to_string())).collect();
        self.started.push(Watched::start(&self.folder, &command));
        assert!(self.wait_until_up(is_up), "{}", self.log_tail());
    }

    /// Waits until `is_up`. Returns false if the server has ended.
    pub fn wait_until_up(&self, is_up: impl Fn() -> bool) -> bool {
        wait_for(&self.command[0], || is_up().then_some(true).or_else(|| (!self.is_alive()).then_some(false)))
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The end of the log, for the message of a failed start.
    pub fn log_tail(&self) -> String {
        log_tail(&self.folder)
    }
}

/// A folder for a server. Its watchdog removes it.
pub fn folder() -> PathBuf {
    tempfile::Builder::new().prefix("facemill-server-").tempdir().unwrap().keep()
}

/// Free ports of the loopback interface, which no other caller gets as long as this process runs.
///
/// A server takes seconds to bind its port, and the system could give it to somebody else meanwhile. So these lie below
/// the ports that Linux gives to whoever asks for any, and locked files reserve them among test processes.
pub fn free_ports<const N: usize>() -> [u16; N] {
    const PORTS: std::ops::Range<u16> = 20_000..30_000;
    static ASKED: AtomicU32 = AtomicU32::new(0);
    static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    // SAFETY: the call has no conditions.
    let folder = std::env::temp_dir().join(format!("facemill-test-ports-{}", unsafe { libc::geteuid() }));
    std::fs::create_dir_all(&folder).unwrap();
    // Each process begins elsewhere.
    let first = std::process::id().wrapping_mul(61);
    let next = || {
        let asked = ASKED.fetch_add(1, Ordering::Relaxed);
        PORTS.start + (first.wrapping_add(asked) % PORTS.len() as u32) as u16
    };
    let reserve = |port: u16| {
        let lock = File::create(folder.join(port.to_string())).unwrap();
        lock.try_lock().ok()?;
        TcpListener::bind(("127.0.0.1", port)).ok()?;
        RESERVED.lock().unwrap().push(lock);
        Some(port)
    };
    std::array::from_fn(|_| std::iter::repeat_with(next).take(PORTS.len()).find_map(reserve).expect("a free port"))
}

/// Polls until there is a result. Panics when [`PATIENCE`] has run out.
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = poll() {
            return result;
        }
        assert!(Instant::now() < deadline, "timeout: {what}");
        // There is no signal to wait for, so this polls up to a deadline.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of the log of a server, for the message of a failed start.
pub fn log_tail(folder: &Path) -> String {
    let log = std::fs::read(folder.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned()
}

/// Sends a request to a port of the loopback interface. Returns the response, or `None` if the port is closed.
pub fn send_request(port: u16, request: &str) -> Option<String> {
    use std::io::Read;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = [0; 64];
    let length = stream.read(&mut response).ok()?;
    Some(String::from_utf8_lossy(&response[..length]).into_owned())
}
