//! A private S3 service: SeaweedFS with master, volume, filer and gateway in one process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use facemill::objects::s3::{Credentials, Keys, S3, S3Settings, Timeouts};

use super::process::{self, Process};

pub struct SeaweedFs {
    port: u16,
    pub process: Process,
}

impl SeaweedFs {
    pub const BUCKET: &'static str = "facemill-test";
    const ACCESS_KEY: &'static str = "test-access-key";
    const SECRET_KEY: &'static str = "test-secret-key";
    /// The keys of a user who may only read.
    pub const READER: (&'static str, &'static str) = ("reader-access-key", "reader-secret-key");

    /// The server that the tests of this process share.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<SeaweedFs> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    /// A service with a bucket, for one test, which may kill it.
    pub fn start() -> Self {
        for _ in 0..5 {
            if let Some(server) = Self::try_start() {
                return server;
            }
        }
        panic!("weed does not start");
    }

    /// Returns `None` if another process has taken a port, whose answer may be that of a healthy server.
    fn try_start() -> Option<Self> {
        let weed = crate::project().join(".cache/bin/weed");
        assert!(weed.is_file(), "weed is not installed: run `make setup-tests`");
        let folder = process::folder();
        let (access, secret) = (Self::ACCESS_KEY, Self::SECRET_KEY);
        let config = format!(
            r#"{{"identities":[{{"name":"app","credentials":[{{"accessKey":"{access}","secretKey":"{secret}"}}],
            "actions":["Admin","Read","Write","List","Tagging"]}},
            {{"name":"reader","credentials":[{{"accessKey":"{}","secretKey":"{}"}}],"actions":["Read","List"]}}]}}"#,
            Self::READER.0,
            Self::READER.1
        );
        std::fs::write(folder.join("s3.json"), config).unwrap();
        std::fs::create_dir(folder.join("data")).unwrap();
        let [master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc] = process::free_ports();
        let command = format!(
            "-logtostderr=true server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir={0}/data -master.telemetry=false \
             -master.electionTimeout=1s -master.heartbeatInterval=100ms -master.port={master} \
             -master.port.grpc={master_grpc} -master.volumeSizeLimitMB=64 -volume.port={volume} \
             -volume.port.grpc={volume_grpc} -volume.max=50 -volume.minFreeSpace=100MiB -volume.preStopSeconds=0 \
             -filer -filer.port={filer} -filer.port.grpc={filer_grpc} -s3 -s3.port={s3} -s3.port.grpc={s3_grpc} \
             -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false -s3.config={0}/s3.json",
            folder.display()
        );
        let command: Vec<String> =
            [weed.display().to_string()].into_iter().chain(command.split_whitespace().map(str::to_owned)).collect();
        let server = Self { port: s3, process: Process::start(&folder, command) };
        let is_up = server.process.wait_until_up(|| is_healthy(s3)) && server.make_bucket();
        (is_up && server.process.is_alive()).then_some(server)
    }

    /// Creates the bucket in its own runtime, because a shared service outlives the runtime of the test that started
    /// it. Returns whether it is created.
    fn make_bucket(&self) -> bool {
        let settings = self.settings();
        std::thread::spawn(move || {
            let keys = Self::keys();
            let config = aws_sdk_s3::Config::builder()
                .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
                .http_client(aws_smithy_http_client::Builder::new().build_http())
                .region(aws_sdk_s3::config::Region::new(settings.region))
                .endpoint_url(settings.endpoint.unwrap())
                .force_path_style(true)
                .credentials_provider(aws_sdk_s3::config::Credentials::new(
                    keys.access_key_id,
                    keys.secret_access_key,
                    None,
                    None,
                    "test",
                ))
                .build();
            let client = aws_sdk_s3::Client::from_conf(config);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(client.create_bucket().bucket(Self::BUCKET).send()).is_ok()
        })
        .join()
        .unwrap()
    }

    pub fn keys() -> Keys {
        Keys { access_key_id: Self::ACCESS_KEY.into(), secret_access_key: Self::SECRET_KEY.into(), session_token: None }
    }

    /// Settings with a prefix of their own.
    pub fn settings(&self) -> S3Settings {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let seconds = Duration::from_secs;
        S3Settings {
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            prefix: format!("test{}/", NUMBER.fetch_add(1, Ordering::Relaxed)),
            path_style: true,
            timeouts: Timeouts { connect: seconds(1), attempt: seconds(20), total: seconds(40) },
            ..S3Settings::new(Self::BUCKET, Credentials::Keys(Self::keys()))
        }
    }

    pub fn objects(&self) -> S3 {
        S3::new(self.settings())
    }

    /// Starts the service again with the same ports and data.
    pub fn restart(&mut self) {
        let port = self.port;
        self.process.restart(|| is_healthy(port));
    }

    /// Starts the service again without room for another object: no disk has so much left.
    pub fn restart_full(&mut self) {
        let port = self.port;
        self.process.restart_with(&["-volume.minFreeSpace=100"], || is_healthy(port));
    }
}

fn is_healthy(port: u16) -> bool {
    let response = process::send_request(port, "GET /healthz HTTP/1.0\r\n\r\n").unwrap_or_default();
    response.split(' ').nth(1) == Some("200")
}
