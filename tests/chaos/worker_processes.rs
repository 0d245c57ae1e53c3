//! Starts the processes, and starts killed workers again.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use facemill::domain::Candidate;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::child::{CHILD_SPEC, ChildSpec, Endpoints, Task};
use super::log::Log;
use super::plan::{Kill, ServerFault, WorkerSlot};

/// Longer than a worker's period of grace and RabbitMQ's answers take.
const ENDING: Duration = Duration::from_secs(120);

/// The workers of all slots.
pub struct WorkerProcesses {
    slots: JoinSet<()>,
    stop: CancellationToken,
}

/// What all processes share.
#[derive(Clone)]
pub struct Environment {
    pub endpoints: Endpoints,
    pub folder: PathBuf,
    pub log: Arc<Log>,
    /// The logs of the servers, which end with this process.
    pub server_logs: Vec<PathBuf>,
}

impl WorkerProcesses {
    pub fn start(slots: Vec<WorkerSlot>, environment: &Environment) -> Self {
        let stop = CancellationToken::new();
        let slots = slots.into_iter().map(|slot| supervise(slot, environment.clone(), stop.clone())).collect();
        Self { slots, stop }
    }

    /// Sends SIGTERM to all workers. Each must end regularly.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.slots.join_next().await {
            ended.expect("the supervisor of a slot does not panic");
        }
    }
}

/// Runs the workers of a slot, one after the other.
async fn supervise(mut slot: WorkerSlot, environment: Environment, stop: CancellationToken) {
    for life in 1.. {
        let name = format!("{}.{life}", slot.name);
        let kill = slot.kills.front().copied();
        let task = Task::Work(slot.stage);
        let mut process =
            environment.spawn(&ChildSpec { name: name.clone(), endpoints: environment.endpoints.clone(), kill, task });
        let ended = tokio::select! {
            ended = process.ended() => ended,
            () = stop.cancelled() => {
                process.terminate();
                process.ended_in_time(&name, &environment.log).await
            }
        };
        match kill {
            Some(kill) if ended.signal() == Some(libc::SIGKILL) => {
                environment.log.on_kill(&name, kill);
                slot.kills.pop_front();
            }
            _ if ended.signal() == Some(libc::SIGABRT) => environment.log.on_crash(&name),
            _ if ended.success() && stop.is_cancelled() => {}
            _ => environment.log.fault(format!("{name} ended unexpectedly: {ended}")),
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// A process that ends when this is dropped.
struct Process {
    child: Child,
    _stdin: Option<ChildStdin>,
}

impl Process {
    async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.expect("a child can be waited for")
    }

    /// Kills a process that does not end by itself.
    async fn ended_in_time(&mut self, name: &str, log: &Log) -> ExitStatus {
        if let Ok(ended) = tokio::time::timeout(ENDING, self.ended()).await {
            return ended;
        }
        log.fault(format!("{name} has not ended within {ENDING:?}; its threads: {}", self.threads()));
        self.child.start_kill().expect("a child can be killed");
        self.ended().await
    }

    /// The names of the threads, and the system calls in which they wait.
    fn threads(&self) -> String {
        let folder = format!("/proc/{}/task", self.child.id().unwrap_or_default());
        let read = |file: PathBuf| std::fs::read_to_string(file).unwrap_or_default().trim().to_owned();
        let threads = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let named = threads.map(|path| format!("{} in {}", read(path.join("comm")), read(path.join("wchan"))));
        named.collect::<Vec<_>>().join(", ")
    }

    fn terminate(&self) {
        if let Some(pid) = self.child.id() {
            // SAFETY: no memory is involved. The child has not been waited for, so the process id is still its own.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGTERM) };
        }
    }
}

impl Environment {
    /// Enqueues photos. The producer is killed as planned, then runs to its end.
    pub async fn produce(&self, candidates: &[Candidate], kills: &[Kill]) {
        for kill in kills.iter().copied().map(Some).chain([None]) {
            let task = Task::Produce(candidates.to_vec());
            let spec = ChildSpec { name: "producer".into(), endpoints: self.endpoints.clone(), kill, task };
            let ended = self.spawn(&spec).ended_in_time("the producer", &self.log).await;
            match kill {
                Some(kill) if ended.signal() == Some(libc::SIGKILL) => self.log.on_kill("producer", kill),
                _ if ended.success() => self.log.say(format_args!("{} photos enqueued", candidates.len())),
                _ => self.log.fault(format!("the producer ended unexpectedly: {ended}")),
            }
        }
    }

    /// Starts this program with a specification. The child ends when its standard input is closed, so with this
    /// process.
    fn spawn(&self, spec: &ChildSpec) -> Process {
        let file = self.folder.join(format!("{}.json", spec.name));
        std::fs::write(&file, serde_json::to_vec(spec).expect("JSON")).expect("a scratch folder");
        let log = std::fs::File::options().create(true).append(true).open(self.log_of(&spec.name));
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .env(CHILD_SPEC, &file)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log.expect("a scratch folder"))
            .kill_on_drop(true)
            .spawn()
            .expect("this program can be run");
        // Waiting for a child closes a standard input that it still holds.
        Process { _stdin: child.stdin.take(), child }
    }

    /// Copies the logs of the servers to those of the processes.
    pub fn keep_server_logs(&self) {
        for (number, log) in self.server_logs.iter().enumerate() {
            let _ = std::fs::copy(log, self.folder.join(format!("server-{number}.txt")));
        }
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// How many log lines of the processes mention the server of a fault.
    pub fn mentions(&self, fault: ServerFault) -> usize {
        let server = match fault {
            ServerFault::RestartRabbitMq => &["RabbitMQ"][..],
            ServerFault::RestartRedis => &["redis at"],
            // A bucket whose server is away is named by the address of the server.
            ServerFault::FreezeS3 | ServerFault::KillS3 => &["bucket", "cannot reach http://"],
        };
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
        let logs = files.filter(is_log).map(|path| std::fs::read_to_string(path).unwrap_or_default());
        logs.map(|log| log.lines().filter(|line| server.iter().any(|name| line.contains(name))).count()).sum()
    }
}
