//! Builds the C++ shim around dlib's face detector, once for AVX2 and once for any processor.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "hog.cpp";
const DETECTOR_SOURCE: &str = "detector.cpp";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-changed={DETECTOR_SOURCE}");
    let x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");

    let mut archive = cc::Build::new();
    archive.cpp(true);
    archive.object(variant("facemill_hog_base", &[]));
    if x86 {
        // With -mavx alone dlib takes a path that is slower than SSE2.
        archive.object(variant("facemill_hog_avx2", &["-mavx2", "-mfma"]));
    }
    archive.compile("facemill_hog");
    println!("cargo:rustc-link-lib=dlib");
    write_detector();
}

/// Writes dlib's detector, decompressed, to `detector.bin`. The format is portable, so the program that does it is
/// built for this machine even when the target is another one.
fn write_detector() {
    let host = env::var("HOST").expect("cargo sets HOST");
    let program = out_dir().join("detector");
    let compiler = cc::Build::new().cpp(true).target(&host).opt_level(0).warnings(false).get_compiler();
    run(compiler.to_command().args(["-std=c++14", DETECTOR_SOURCE, "-o"]).arg(&program).arg("-ldlib"));
    let output = Command::new(&program).output().unwrap_or_else(|error| panic!("cannot run {program:?}: {error}"));
    assert!(output.status.success() && !output.stdout.is_empty(), "{program:?} failed: {output:?}");
    let file = out_dir().join("detector.bin");
    fs::write(&file, output.stdout).unwrap_or_else(|error| panic!("cannot write {file:?}: {error}"));
}

fn out_dir() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
}

/// Compiles the shim with all its functions named `prefix…` and all other symbols hidden.
fn variant(prefix: &str, flags: &[&str]) -> PathBuf {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .file(SOURCE)
        .define("HOG", prefix)
        .flag("-std=c++14")
        .flag("-fno-gnu-unique")
        .opt_level(2)
        .debug(false);
    // dlib's headers cause warnings that are not ours, and are too slow without optimisation.
    build.warnings(false).define("NDEBUG", None);
    for flag in flags {
        build.flag(flag);
    }
    let objects = build.try_compile_intermediates().unwrap_or_else(|error| {
        panic!("{SOURCE} does not compile: {error}\nis libdlib-dev installed? run `make setup`");
    });
    hide_symbols(&objects[0], prefix)
}

/// Makes every symbol local to the object, except those that start with `prefix`.
///
/// Templates and inline functions have the same names in both builds, in libdlib and in libstdc++, and a linker keeps
/// one copy of each: a processor without AVX2 could get code of the other build. Dissolving the groups first makes the
/// copies ordinary functions, which can be local.
fn hide_symbols(object: &Path, prefix: &str) -> PathBuf {
    let folder = out_dir();
    let merged = folder.join(format!("{prefix}.merged.o"));
    let local = folder.join(format!("{prefix}.o"));
    run(Command::new("ld").args(["-r", "--force-group-allocation", "-o"]).arg(&merged).arg(object));
    let keep = format!("--keep-global-symbol={prefix}*");
    run(Command::new("objcopy").args(["--wildcard", &keep]).arg(&merged).arg(&local));
    local
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| {
        panic!("cannot run {command:?}: {error}\nis binutils installed? run `make setup`");
    });
    assert!(status.success(), "{command:?} failed: {status}");
}
