//! A private Redis server.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use facemill::ledger::redis::Redis;
use facemill::redis::{RedisClient, RedisSettings};

use super::process::{self, Process};

pub struct RedisServer {
    pub port: u16,
    pub process: Process,
}

impl RedisServer {
    /// The server that the tests of this process share.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<RedisServer> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(&[]))
    }

    /// A server for one test, which may kill it.
    pub fn start(settings: &[&str]) -> Self {
        for _ in 0..5 {
            if let Some(server) = Self::try_start(settings) {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Returns `None` if another process has taken the port.
    fn try_start(settings: &[&str]) -> Option<Self> {
        let folder = process::folder();
        // The binary acts according to its name. `redis-tools` installs it under another name.
        let program = folder.join("redis-server");
        std::os::unix::fs::symlink(binary(), &program).unwrap();
        let [port] = process::free_ports();
        let mut command = vec![program.display().to_string()];
        let fixed = [
            ("--port", port.to_string()),
            ("--bind", "127.0.0.1".into()),
            ("--dir", folder.display().to_string()),
            ("--appendonly", "yes".into()),
            ("--appendfsync", "always".into()),
            ("--save", String::new()),
        ];
        command.extend(fixed.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        command.extend(settings.iter().map(|&setting| setting.to_owned()));
        let server = Self { port, process: Process::start(&folder, command) };
        server.process.wait_until_up(|| responds(port)).then_some(server)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// A ledger with its own key prefix.
    pub fn ledger(&self) -> Redis {
        Self::ledger_with(self.settings())
    }

    pub fn ledger_with(settings: RedisSettings) -> Redis {
        Redis::new(Arc::new(RedisClient::new(settings).unwrap()))
    }

    pub fn settings(&self) -> RedisSettings {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        RedisSettings { prefix, ..RedisSettings::new(self.url()) }
    }

    /// Starts the server again with the same port and data.
    pub fn restart(&mut self) {
        let port = self.port;
        self.process.restart(|| responds(port));
    }
}

/// Whether the server accepts commands. A server with a password responds with NOAUTH.
fn responds(port: u16) -> bool {
    let response = process::send_request(port, "PING\r\n").unwrap_or_default();
    response.starts_with("+PONG") || response.starts_with("-NOAUTH")
}

fn binary() -> &'static Path {
    ["/usr/bin/redis-server", "/usr/local/bin/redis-server", "/usr/bin/redis-check-rdb"]
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .expect("redis-server is not installed: run `make setup-tests`")
}
