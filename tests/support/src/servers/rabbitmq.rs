//! A private RabbitMQ for the tests of one process, from Debian's package, on free ports of the loopback interface.
//!
//! It ends with the test process, however that ends: a shell that holds one end of a pipe kills what is left when the
//! other end is gone.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
/// Far longer than the server takes to start.
const PATIENCE: Duration = Duration::from_secs(60);
const USER: &str = "mill";
const PASSWORD: &str = "geheim";

pub struct Server {
    folder: PathBuf,
    amqp: u16,
    management: u16,
    epmd: u16,
    distribution: u16,
    /// The server's process group. Nothing else may start or kill it meanwhile.
    running: Mutex<Child>,
    /// Erlang's name server, which RabbitMQ would start as a daemon.
    _names: Child,
    /// Its standard input is the pipe.
    reaper: Mutex<Child>,
    /// Held for writing by a test that disturbs the others.
    peace: RwLock<()>,
}

/// The server, shared with other tests that leave it in peace.
pub struct Shared {
    server: &'static Server,
    _peace: RwLockReadGuard<'static, ()>,
}

/// The server for one test alone, which may stop it or make it raise an alarm.
pub struct Alone {
    server: &'static Server,
    _peace: RwLockWriteGuard<'static, ()>,
}

impl std::ops::Deref for Shared {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.server
    }
}

impl std::ops::Deref for Alone {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.server
    }
}

pub async fn shared() -> Shared {
    let server = server().await;
    Shared { server, _peace: server.peace.read().await }
}

pub async fn alone() -> Alone {
    let server = server().await;
    Alone { server, _peace: server.peace.write().await }
}

async fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    tokio::task::spawn_blocking(|| SERVER.get_or_init(Server::start)).await.unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Server {
    fn start() -> Self {
        assert!(
            Path::new(SCRIPTS).join("rabbitmq-server").exists(),
            "rabbitmq-server is not installed: run `make setup`, which installs what the tests need"
        );
        let folder = tempfile::Builder::new().prefix("facemill-rabbitmq-").tempdir().unwrap().keep();
        let (amqp, management, epmd, distribution) = (free_port(), free_port(), free_port(), free_port());
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             default_user = {USER}\ndefault_pass = {PASSWORD}\nloopback_users = none\n\
             vm_memory_high_watermark.absolute = 512MiB\ndisk_free_limit.absolute = 50MB\n\
             collect_statistics_interval = 1000\n"
        );
        std::fs::write(folder.join("rabbitmq.conf"), config).unwrap();
        std::fs::write(folder.join("plugins"), "[rabbitmq_management].").unwrap();
        let mut reaper = reaper(&folder);
        let names = Command::new("epmd")
            .args(["-port", &epmd.to_string(), "-address", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("epmd, which comes with rabbitmq-server");
        tell(&mut reaper, &names);
        await_port(epmd, "epmd", &folder);
        let unstarted = Self {
            running: Mutex::new(launch(&folder, amqp, epmd, distribution, &mut reaper)),
            _names: names,
            reaper: Mutex::new(reaper),
            peace: RwLock::new(()),
            folder,
            amqp,
            management,
            epmd,
            distribution,
        };
        unstarted.await_up();
        unstarted
    }

    fn await_up(&self) {
        await_port(self.amqp, "RabbitMQ", &self.folder);
        await_port(self.management, "RabbitMQ's management API", &self.folder);
    }

    pub fn url(&self) -> String {
        self.url_of(USER, PASSWORD, "%2F")
    }

    pub fn url_of(&self, user: &str, password: &str, vhost: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", self.amqp)
    }

    pub fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management)
    }

    pub fn port(&self) -> u16 {
        self.amqp
    }

    /// Of the script that runs the server.
    pub fn pid(&self) -> u32 {
        self.running.lock().unwrap().id()
    }

    /// Asks the management API.
    pub async fn api(&self, method: reqwest::Method, path: &str, body: serde_json::Value) -> (u16, String) {
        let client = reqwest::Client::builder().tls_backend_preconfigured(no_tls()).no_proxy().build().unwrap();
        let request = client.request(method, format!("{}/api/{path}", self.management_url()));
        let request = request.basic_auth(USER, Some(PASSWORD)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Runs `rabbitmqctl` against this server.
    pub async fn ctl(&self, arguments: &[&str]) {
        let mut command = tokio::process::Command::from(self.script("rabbitmqctl"));
        let output = command.args(arguments).output().await.unwrap();
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn script(&self, name: &str) -> Command {
        script(&self.folder, name, self.amqp, self.epmd, self.distribution)
    }
}

impl Alone {
    /// As kill -9 does it; returns when nobody listens any more.
    pub fn kill(&self) {
        let mut running = self.running.lock().unwrap();
        kill_group(&running);
        running.wait().unwrap();
        // The script has ended; the server that it ran may take a moment longer.
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.amqp)).is_ok() {
            std::thread::yield_now();
        }
    }

    /// Starts it again after a kill; returns before it can be reached.
    pub fn start_again(&self) {
        *self.running.lock().unwrap() =
            launch(&self.folder, self.amqp, self.epmd, self.distribution, &mut self.reaper.lock().unwrap());
    }

    pub async fn is_up(&self) {
        let server = self.server;
        tokio::task::spawn_blocking(|| server.await_up()).await.unwrap();
    }
}

fn launch(folder: &Path, amqp: u16, epmd: u16, distribution: u16, reaper: &mut Child) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("console")).unwrap();
    let child = script(folder, "rabbitmq-server", amqp, epmd, distribution)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    tell(reaper, &child);
    child
}

fn script(folder: &Path, name: &str, amqp: u16, epmd: u16, distribution: u16) -> Command {
    let mut command = Command::new(Path::new(SCRIPTS).join(name));
    command
        // Mnesia dumps its core where it was started.
        .current_dir(folder)
        .env("HOME", folder)
        .env("RABBITMQ_NODENAME", format!("facemill-{amqp}@localhost"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", amqp.to_string())
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("ERL_EPMD_PORT", epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_PID_FILE", folder.join("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 -rabbit quorum_tick_interval 1000",
        );
    command
}

/// Kills the process groups it is told, and removes the folder, once this process is gone.
fn reaper(folder: &Path) -> Child {
    const SCRIPT: &str = "trap '' INT TERM HUP; groups=; while read -r group; do groups=\"$groups -$group\"; done; \
                          kill -s KILL -- $groups; until rm -rf \"$0\"; do :; done";
    Command::new("sh")
        .arg("-c")
        .arg(SCRIPT)
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

fn tell(reaper: &mut Child, child: &Child) {
    writeln!(reaper.stdin.as_mut().unwrap(), "{}", child.id()).unwrap();
}

fn kill_group(child: &Child) {
    let killed = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status().unwrap();
    assert!(killed.success());
}

fn await_port(port: u16, what: &str, folder: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > deadline {
            let console = std::fs::read_to_string(folder.join("console")).unwrap_or_default();
            panic!("{what} did not come up within {PATIENCE:?}: {console}");
        }
        // A port that opens tells nobody: knocking again, up to a deadline, is all there is.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The API is plain HTTP; the client wants a TLS backend all the same.
fn no_tls() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
