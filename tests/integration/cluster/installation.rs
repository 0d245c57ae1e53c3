//! An installation and its worker processes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use support::collection::Collection;
use support::servers::rabbitmq;
use support::servers::redis::RedisServer;
use support::servers::seaweedfs::SeaweedFs;

/// An installation on servers that other tests use, too, with a prefix of its own.
pub struct Installation {
    pub rabbit: &'static rabbitmq::RabbitServer,
    pub environment: Vec<(&'static str, String)>,
    /// The cache folder of the program.
    pub cache: tempfile::TempDir,
}

impl Installation {
    pub fn new() -> Self {
        Self::on(RedisServer::shared())
    }

    /// An installation on the given Redis server.
    pub fn on(redis: &RedisServer) -> Self {
        Self::on_servers(redis, SeaweedFs::shared())
    }

    /// An installation on the given Redis server and object store.
    pub fn on_servers(redis: &RedisServer, store: &SeaweedFs) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let rabbit = tokio::runtime::Runtime::new().unwrap().block_on(rabbitmq::shared());
        let store = store.settings();
        let cache = tempfile::tempdir().unwrap();
        let environment = vec![
            ("XDG_CACHE_HOME", cache.path().to_str().unwrap().to_owned()),
            ("FACEMILL_AMQP_URL", rabbit.url()),
            ("FACEMILL_REDIS_URL", redis.url()),
            ("FACEMILL_S3_BUCKET", store.bucket.clone()),
            ("FACEMILL_S3_ENDPOINT", store.endpoint.clone().unwrap()),
            ("AWS_ACCESS_KEY_ID", SeaweedFs::keys().access_key_id),
            ("AWS_SECRET_ACCESS_KEY", SeaweedFs::keys().secret_access_key),
            ("FACEMILL_PREFIX", format!("cluster-{}-{number}", std::process::id())),
            // The installations share a bucket, so each needs another run.
            ("FACEMILL_RUN", format!("faces-{number}")),
        ];
        Self { rabbit, environment, cache }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn facemill(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.facemill(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn worker(&self, stages: &[&str], collection: &Collection) -> Worker {
        self.worker_with(stages, collection, &[])
    }

    pub fn worker_with(&self, stages: &[&str], collection: &Collection, more: &[&str]) -> Worker {
        let arguments = [&["work"], stages, &collection.stage_arguments()[..], &["--concurrency", "1"], more].concat();
        // Nobody reads what it writes, as after its terminal was closed: it works and ends all the same.
        let closed = || Stdio::from(std::io::pipe().unwrap().1);
        Worker(self.command(&arguments).stdout(closed()).stderr(closed()).spawn().unwrap())
    }

    /// A worker of stages that fetch nothing.
    pub fn worker_without_photos(&self, stages: &[&str]) -> Worker {
        let arguments = [&["work"], stages, &["--concurrency", "1"]].concat();
        Worker(self.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Waits until the status of the run satisfies the condition.
    pub fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            // A server that has just started may not answer: the status then lacks a part, and the exit code is 3.
            let output = self.facemill(&["status", "--json"]);
            let status = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
            if condition(&status) {
                return status;
            }
            assert!(began.elapsed() < support::PATIENCE, "timeout: {what}: {status:#}");
            // The workers give no signal, so this polls. Without a pause the commands would take the workers' CPU.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A worker process that is killed when this is dropped.
pub struct Worker(pub Child);

impl Worker {
    /// Sends SIGTERM. Returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal("-TERM")
    }

    /// Sends a signal. Returns the exit code.
    pub fn signal(&mut self, signal: &str) -> Option<i32> {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.0.wait().unwrap().code()
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a request. Returns status and body, or `None` if the port is closed.
pub fn send_request(port: u16, request: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    send_request(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}
