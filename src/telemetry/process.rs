//! What this process costs: CPU time and memory, from the kernel's books.
//!
//! Names and units: <https://opentelemetry.io/docs/specs/semconv/system/process-metrics/>.

use std::fs::read_to_string;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// Counts from now on. `service`: the name of the process among the others, which its series carry so that a query
/// needs no `target_info`.
pub fn watch(meter: &Meter, service: &str) {
    let service = KeyValue::new("service.name", service.to_owned());
    let of_cpu = service.clone();
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("CPU time of this process and its threads.")
        .with_callback(move |observer| {
            let Some(cpu) = read_to_string("/proc/self/stat").ok().as_deref().and_then(Cpu::of) else { return };
            for (mode, seconds) in [("user", cpu.user), ("system", cpu.system)] {
                observer.observe(seconds, &[of_cpu.clone(), KeyValue::new("cpu.mode", mode)]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.memory.usage")
        .with_unit("By")
        .with_description("Memory of this process that is in RAM.")
        .with_callback(move |observer| {
            if let Some(bytes) = read_to_string("/proc/self/status").ok().as_deref().and_then(resident) {
                observer.observe(bytes, std::slice::from_ref(&service));
            }
        })
        .build();
}

/// Seconds, in hundredths.
#[derive(Debug, PartialEq)]
struct Cpu {
    user: f64,
    system: f64,
}

impl Cpu {
    /// From `/proc/self/stat`, proc(5).
    fn of(stat: &str) -> Option<Self> {
        /// What Linux counts in, whatever the machine.
        const TICKS_PER_SECOND: f64 = 100.0;
        // The second field is a name that may hold anything; those behind it are numbered from 3.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds = |number: usize| Some(fields.get(number - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self { user: seconds(14)?, system: seconds(15)? })
    }
}

/// Bytes, from `/proc/self/status`.
fn resident(status: &str) -> Option<i64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_books_are_read_by_number() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 1250 75 3 4 20 0 9 0 1 2 3";
        assert_eq!(Cpu::of(stat), Some(Cpu { user: 12.5, system: 0.75 }));
        assert_eq!(Cpu::of("7 (x) S 1"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn work_is_counted() {
        let used = || Cpu::of(&read_to_string("/proc/self/stat").unwrap()).unwrap();
        let (before, begun) = (used(), Instant::now());
        while used().user + used().system < before.user + before.system + 0.03 {
            assert!(begun.elapsed().as_secs() < 60, "a minute of work is not counted");
        }
        assert!(resident(&read_to_string("/proc/self/status").unwrap()).unwrap() > 1 << 20);
    }
}
