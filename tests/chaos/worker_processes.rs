//! Keeps the processes running: who dies is followed by the next.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use facemill::domain::Candidate;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::log::Log;
use super::orders::{ORDERS, Orders, Place, Task};
use super::plan::{Act, Fate, Post};

/// Workers at their posts.
pub struct Crew {
    posts: JoinSet<()>,
    stop: CancellationToken,
}

/// What all processes need.
#[derive(Clone)]
pub struct Ground {
    pub place: Place,
    pub folder: PathBuf,
    pub log: Arc<Log>,
}

impl Crew {
    pub fn start(posts: Vec<Post>, ground: &Ground) -> Self {
        let stop = CancellationToken::new();
        let posts = posts.into_iter().map(|post| keep(post, ground.clone(), stop.clone())).collect();
        Self { posts, stop }
    }

    /// SIGTERM to all; each has to end in order.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.posts.join_next().await {
            ended.expect("whoever keeps a post does not panic");
        }
    }
}

async fn keep(mut post: Post, ground: Ground, stop: CancellationToken) {
    for life in 1.. {
        let name = format!("{}.{life}", post.name);
        let fate = post.fates.front().copied();
        let task = Task::Work(post.stage);
        let mut process = ground.spawn(&Orders { name: name.clone(), place: ground.place.clone(), fate, task });
        let ended = tokio::select! {
            ended = process.ended() => ended,
            () = stop.cancelled() => {
                process.terminate();
                process.ended().await
            }
        };
        match fate {
            Some(fate) if ended.signal() == Some(libc::SIGKILL) => {
                ground.log.death(&name, fate);
                post.fates.pop_front();
            }
            _ if ended.signal() == Some(libc::SIGABRT) => ground.log.killed(&name),
            _ if ended.success() && stop.is_cancelled() => {}
            _ => ground.log.fault(format!("{name} ended by itself: {ended}")),
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// A process that ends when this is dropped.
struct Process {
    child: Child,
    _leash: Option<ChildStdin>,
}

impl Process {
    async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.expect("a child can be waited for")
    }

    fn terminate(&self) {
        if let Some(pid) = self.child.id() {
            // SAFETY: no memory is involved. NullObserver has waited for the child's end, so the number is still its own.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGTERM) };
        }
    }
}

impl Ground {
    /// Enqueues photos; the producer dies `fates` before it lives.
    pub async fn produce(&self, candidates: &[Candidate], fates: &[Fate]) {
        for fate in fates.iter().copied().map(Some).chain([None]) {
            let task = Task::Produce(candidates.to_vec());
            let orders = Orders { name: "producer".into(), place: self.place.clone(), fate, task };
            let ended = self.spawn(&orders).ended().await;
            match fate {
                Some(fate) if ended.signal() == Some(libc::SIGKILL) => self.log.death("producer", fate),
                _ if ended.success() => self.log.say(format_args!("{} photos enqueued", candidates.len())),
                _ => self.log.fault(format!("the producer ended by itself: {ended}")),
            }
        }
    }

    /// This very program, with orders. It ends with its standard input, and so with this process.
    fn spawn(&self, orders: &Orders) -> Process {
        let file = self.folder.join(format!("{}.json", orders.name));
        std::fs::write(&file, serde_json::to_vec(orders).expect("JSON")).expect("a scratch folder");
        let log = std::fs::File::options().create(true).append(true).open(self.log_of(&orders.name));
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .env(ORDERS, &file)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log.expect("a scratch folder"))
            .kill_on_drop(true)
            .spawn()
            .expect("this program can be run");
        // Waiting for a child closes what is left in it.
        Process { _leash: child.stdin.take(), child }
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Lines in which the processes have complained of the server that `act` is about.
    pub fn mentions(&self, act: Act) -> usize {
        let server = match act {
            Act::RestartRabbitMq => "RabbitMQ",
            Act::RestartRedis => "redis at",
            Act::FreezeS3 | Act::KillS3 => "bucket",
        };
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
        let logs = files.filter(is_log).map(|path| std::fs::read_to_string(path).unwrap_or_default());
        logs.map(|log| log.lines().filter(|line| line.contains(server)).count()).sum()
    }
}
