//! CPU time and memory of this process, read from /proc.
//!
//! Names and units: <https://opentelemetry.io/docs/specs/semconv/system/process-metrics/>.

use std::fs::read_to_string;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// Registers the metrics. `service`: the process's service name, which its series carry so that queries need no
/// `target_info`.
pub fn watch(meter: &Meter, service: &str) {
    let service = KeyValue::new("service.name", service.to_owned());
    let of_cpu = service.clone();
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("CPU time of this process and its threads.")
        .with_callback(move |observer| {
            let text = read_to_string("/proc/self/stat").unwrap_or_default();
            let Some(stat) = Stat::of(&text) else { return };
            for (mode, field) in [("user", Stat::USER), ("system", Stat::SYSTEM)] {
                if let Some(seconds) = stat.seconds(field) {
                    observer.observe(seconds, &[of_cpu.clone(), KeyValue::new("cpu.mode", mode)]);
                }
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.memory.usage")
        .with_unit("By")
        .with_description("Resident memory of this process.")
        .with_callback(move |observer| {
            if let Some(bytes) = read_to_string("/proc/self/status").ok().as_deref().and_then(resident) {
                observer.observe(bytes, std::slice::from_ref(&service));
            }
        })
        .build();
}

/// The fields of `/proc/PID/stat`, numbered as in proc(5).
pub struct Stat<'a>(Vec<&'a str>);

impl<'a> Stat<'a> {
    pub const PARENT: usize = 4;
    pub const USER: usize = 14;
    pub const SYSTEM: usize = 15;

    /// None: the text has another format.
    pub fn of(text: &'a str) -> Option<Self> {
        // The second field is a name with arbitrary characters. The fields after it are numbered from 3.
        Some(Self(text.rsplit_once(')')?.1.split_whitespace().collect()))
    }

    /// None: the field does not exist, or its number is below 3.
    pub fn field(&self, number: usize) -> Option<&'a str> {
        self.0.get(number.checked_sub(3)?).copied()
    }

    /// Returns a time field in seconds.
    pub fn seconds(&self, number: usize) -> Option<f64> {
        /// Linux's unit, on every architecture.
        const TICKS_PER_SECOND: f64 = 100.0;
        Some(self.field(number)?.parse::<f64>().ok()? / TICKS_PER_SECOND)
    }
}

/// Parses the resident memory of `/proc/self/status`, in bytes.
fn resident(status: &str) -> Option<i64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn stat_fields_are_found_by_number() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 1250 75 3 4 20 0 9 0 1 2 3";
        let stat = Stat::of(stat).unwrap();
        assert_eq!((stat.seconds(Stat::USER), stat.seconds(Stat::SYSTEM)), (Some(12.5), Some(0.75)));
        assert_eq!((stat.field(Stat::PARENT), stat.field(2)), (Some("1"), None));
        assert_eq!(Stat::of("7 (x) S 1").unwrap().seconds(Stat::USER), None);
        assert!(Stat::of("7 x S 1").is_none());
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn cpu_time_is_counted() {
        let used = || {
            let text = read_to_string("/proc/self/stat").unwrap();
            let stat = Stat::of(&text).unwrap();
            stat.seconds(Stat::USER).unwrap() + stat.seconds(Stat::SYSTEM).unwrap()
        };
        let (before, begun) = (used(), Instant::now());
        while used() < before + 0.03 {
            assert!(begun.elapsed().as_secs() < 60, "the CPU time does not grow");
        }
        assert!(resident(&read_to_string("/proc/self/status").unwrap()).unwrap() > 1 << 20);
    }
}
