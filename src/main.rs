use std::process::ExitCode;

/// The allocator of glibc makes up to eight heaps a core, and each keeps what pictures have freed. Fewer take less memory,
/// and no more time: stages allocate seldom and much.
#[cfg(target_env = "gnu")]
fn limit_heaps() {
    if std::env::var_os("MALLOC_ARENA_MAX").is_some() {
        return;
    }
    let heaps = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    // SAFETY: the call only sets a number of the allocator.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps.try_into().unwrap_or(libc::c_int::MAX)) };
}

fn main() -> ExitCode {
    #[cfg(target_env = "gnu")]
    limit_heaps();
    // SAFETY: this process has started no thread. OpenBLAS has, while it was loaded, but its threads only wait for work
    // and do not read the environment.
    unsafe { facemill::inference::disable_telemetry() };
    facemill::cli::main()
}
