use std::process::ExitCode;

fn main() -> ExitCode {
    // SAFETY: this process has started no thread. OpenBLAS has, while it was loaded, but its threads only wait for work
    // and do not read the environment.
    unsafe { facemill::inference::disable_telemetry() };
    facemill::cli::main()
}
