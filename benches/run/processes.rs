//! CPU time and memory of a process, as the kernel counts them.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use facemill::telemetry::process::Stat;
use support::servers::process::wait_for;

#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// User and system time of all threads, and of the children that were waited for, in seconds.
    pub cpu: f64,
    /// Wall time in seconds.
    pub wall: f64,
    /// The largest resident memory in bytes.
    pub peak: u64,
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Cost {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a program");
    let cost = cost_until_end(&mut child, began);
    let output = child.wait_with_output().expect("an ended child");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    cost
}

/// Waits until a process ends. Its times are read before it is reaped.
pub fn cost_until_end(child: &mut Child, began: Instant) -> Cost {
    const PERIOD: Duration = Duration::from_millis(20);
    let mut cost = Cost::default();
    loop {
        cost.peak = cost.peak.max(peak(child.id()).unwrap_or(0));
        if has_ended(child.id()) {
            break;
        }
        std::thread::sleep(PERIOD);
    }
    Cost { cpu: cpu(child.id()), wall: began.elapsed().as_secs_f64(), ..cost }
}

/// A process that is killed when this is dropped.
pub struct Process {
    pub child: Child,
    began: Instant,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a program");
        Self { child, began: Instant::now() }
    }

    /// CPU seconds until now.
    pub fn cpu(&self) -> f64 {
        cpu(self.child.id())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn end(mut self) -> Cost {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let cost = cost_until_end(&mut self.child, self.began);
        assert_eq!(self.child.wait().expect("an ended child").code(), Some(0));
        cost
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a worker is ready.
pub fn wait_until_ready(port: u16) {
    wait_for("a worker that is ready", || {
        let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = support::servers::process::send_request(port, request)?;
        (answer.split(' ').nth(1) == Some("200")).then_some(())
    });
}

fn stat(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that was not reaped")
}

fn cpu(pid: u32) -> f64 {
    const TIMES: [usize; 4] = [Stat::USER, Stat::SYSTEM, Stat::SYSTEM + 1, Stat::SYSTEM + 2];
    let text = stat(pid);
    let stat = Stat::of(&text).expect("the kernel's format");
    TIMES.iter().filter_map(|field| stat.seconds(*field)).sum()
}

fn has_ended(pid: u32) -> bool {
    /// The number of the process's state.
    const STATE: usize = 3;
    Stat::of(&stat(pid)).and_then(|stat| stat.field(STATE).map(|state| state == "Z")).expect("the kernel's format")
}

/// None: the process has ended.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kilobytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
