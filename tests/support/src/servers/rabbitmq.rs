//! Private servers of RabbitMQ for the tests of one process, on free ports of the loopback interface.
//!
//! `FACEMILL_TEST_RABBITMQ_ROOT` names a folder with another system, whose RabbitMQ is started by chroot instead of the
//! installed one. The server ends with the test process, even if that is killed: a shell waits for the end of a pipe
//! and kills the server then.

use crate::PATIENCE;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::MutexGuard;

use super::process::free_ports;

const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
const ROOT: &str = "FACEMILL_TEST_RABBITMQ_ROOT";
/// Runs a program in the folder `$2`, with the system in the folder `$1` as its root.
const CHROOT: &str = r#"
    root=$1 folder=$2; shift 2
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/tmp"
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    exec chroot "$root" env --chdir="$folder" "$@"
"#;
const USER: &str = "mill";
const PASSWORD: &str = "geheim";

pub struct RabbitServer {
    folder: PathBuf,
    amqp: u16,
    management: u16,
    epmd: u16,
    distribution: u16,
    /// Further variables of the server.
    environment: &'static [(&'static str, &'static str)],
    /// The process group of the server.
    running: Mutex<Child>,
    /// The name server of Erlang. RabbitMQ would start it as a daemon.
    _epmd: Child,
    /// The shell that kills the process groups written to its standard input.
    reaper: Mutex<Child>,
}

/// A server for one test at a time, which may stop it or make it raise an alarm.
pub struct ExclusiveServer {
    server: &'static RabbitServer,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for ExclusiveServer {
    type Target = RabbitServer;

    fn deref(&self) -> &RabbitServer {
        self.server
    }
}

/// The server of all tests that do not disturb each other.
pub async fn shared() -> &'static RabbitServer {
    static SERVER: OnceLock<RabbitServer> = OnceLock::new();
    started(&SERVER).await
}

/// Another server than the shared one, whose tests would have to end before this one could begin.
pub async fn exclusive() -> ExclusiveServer {
    static SERVER: OnceLock<RabbitServer> = OnceLock::new();
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let turn = TURN.lock().await;
    ExclusiveServer { server: started(&SERVER).await, _turn: turn }
}

async fn started(server: &'static OnceLock<RabbitServer>) -> &'static RabbitServer {
    tokio::task::spawn_blocking(|| server.get_or_init(|| RabbitServer::start(&[], ""))).await.unwrap()
}

impl RabbitServer {
    /// A server of RabbitMQ 3 with quorum queues disabled, as after an upgrade from 3.7.
    pub fn without_quorum_queues() -> Self {
        Self::start(&[("RABBITMQ_FEATURE_FLAGS", "")], "")
    }

    /// A server that accepts TLS as well, and the port for it. `certificate` and `key` are PEM files.
    pub fn with_tls(certificate: &str, key: &str) -> (Self, u16) {
        let [port] = free_ports();
        let config = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n"
        );
        (Self::start(&[], &config), port)
    }

    /// `more` is added to the configuration.
    fn start(environment: &'static [(&'static str, &'static str)], more: &str) -> Self {
        let root = std::env::var_os(ROOT).map_or_else(|| PathBuf::from("/"), PathBuf::from);
        assert!(
            root.join(SCRIPTS.trim_start_matches('/')).join("rabbitmq-server").exists(),
            "rabbitmq-server is not installed in {}: run `make setup-tests`",
            root.display()
        );
        let folder = tempfile::Builder::new().prefix("facemill-rabbitmq-").tempdir().unwrap().keep();
        let [amqp, management, epmd_port, distribution] = free_ports();
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             default_user = {USER}\ndefault_pass = {PASSWORD}\nloopback_users = none\n\
             vm_memory_high_watermark.absolute = 512MiB\ndisk_free_limit.absolute = 50MB\n\
             collect_statistics_interval = 1000\n{more}"
        );
        std::fs::write(folder.join("rabbitmq.conf"), config).unwrap();
        std::fs::write(folder.join("plugins"), "[rabbitmq_management].").unwrap();
        let mut reaper = reaper(&folder);
        let epmd = program(&folder, Path::new("epmd"))
            .args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("epmd is installed with rabbitmq-server");
        register(&mut reaper, &epmd);
        await_port(epmd_port, "epmd", &folder);
        let server = Self {
            running: Mutex::new(launch(&folder, amqp, epmd_port, distribution, environment, &mut reaper)),
            environment,
            _epmd: epmd,
            reaper: Mutex::new(reaper),
            folder,
            amqp,
            management,
            epmd: epmd_port,
            distribution,
        };
        server.await_up();
        server
    }

    fn await_up(&self) {
        await_port(self.amqp, "RabbitMQ", &self.folder);
        await_port(self.management, "the management API of RabbitMQ", &self.folder);
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

    /// The process id of the script that runs the server.
    pub fn pid(&self) -> u32 {
        self.running.lock().unwrap().id()
    }

    /// Sends a request to the management API. Returns status and body.
    pub async fn api(&self, method: reqwest::Method, path: &str, body: serde_json::Value) -> (u16, String) {
        let client = reqwest::Client::builder().tls_backend_preconfigured(no_tls()).no_proxy().build().unwrap();
        let request = client.request(method, format!("{}/api/{path}", self.management_url()));
        let request = request.basic_auth(USER, Some(PASSWORD)).header("content-type", "application/json");
        let response = request.body(body.to_string()).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Runs `rabbitmqctl` against this server. Returns its output.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = tokio::process::Command::from(self.script("rabbitmqctl"));
        let output = command.args(arguments).output().await.unwrap();
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn logs(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.join("log")).unwrap().map(|file| file.unwrap().path());
        let mut logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        logs.sort();
        logs
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        self.logs().iter().map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()).collect()
    }

    fn script(&self, name: &str) -> Command {
        script(&self.folder, name, self.amqp, self.epmd, self.distribution)
    }
}

impl ExclusiveServer {
    /// Kills the server with SIGKILL. Returns once its port is closed.
    pub fn kill(&self) {
        let mut running = self.running.lock().unwrap();
        kill_group(&running);
        running.wait().unwrap();
        // The script has ended, but the server may take a moment longer.
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.amqp)).is_ok() {
            std::thread::yield_now();
        }
    }

    /// Starts the killed server again. Returns before it is reachable.
    pub fn restart(&self) {
        let mut reaper = self.reaper.lock().unwrap();
        *self.running.lock().unwrap() =
            launch(&self.folder, self.amqp, self.epmd, self.distribution, self.environment, &mut reaper);
    }

    /// Waits until the server is reachable.
    pub async fn wait_until_up(&self) {
        let server = self.server;
        tokio::task::spawn_blocking(|| server.await_up()).await.unwrap();
    }
}

fn launch(
    folder: &Path,
    amqp: u16,
    epmd: u16,
    distribution: u16,
    environment: &[(&str, &str)],
    reaper: &mut Child,
) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("console")).unwrap();
    let child = script(folder, "rabbitmq-server", amqp, epmd, distribution)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    register(reaper, &child);
    child
}

fn script(folder: &Path, name: &str, amqp: u16, epmd: u16, distribution: u16) -> Command {
    let mut command = program(folder, &Path::new(SCRIPTS).join(name));
    command
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
            // A message whose wait ended while the server was down comes after at most 20 s, not three minutes.
            "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 -rabbit quorum_tick_interval 1000 \
             -rabbit dead_letter_worker_publisher_confirm_timeout 20000",
        );
    command
}

/// A command that runs a program of the system with RabbitMQ. Its working folder is `folder`, because Mnesia writes its
/// core dumps there.
fn program(folder: &Path, program: &Path) -> Command {
    let Some(root) = std::env::var_os(ROOT) else {
        let mut command = Command::new(program);
        command.current_dir(folder);
        return command;
    };
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", CHROOT, "sh"]);
    command.arg(root).arg(folder).arg(program);
    command
}

/// Starts the shell that kills the registered process groups and removes the folder once this process has ended.
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

fn register(reaper: &mut Child, child: &Child) {
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
            panic!("{what} did not start within {PATIENCE:?}: {console}");
        }
        // There is no signal for a port that opens, so this polls up to a deadline.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The API is plain HTTP, but the client needs a TLS backend.
pub(super) fn no_tls() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
