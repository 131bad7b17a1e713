//! `cargo xtask release`: the binary as it is given to users, laid out by what it does under load.
//!
//! The compiler is told which code runs, how often, and which never (profile-guided optimisation): an instrumented binary
//! serves every scenario of the bench and both sides of a mesh call, and the release is built with what it counted. What never
//! ran is made small and laid apart, so that a process maps less of the program. What a sidecar runs to start and to rest comes
//! first: there is one beside each workload, and the kernel maps 64 KiB around each page that is touched. The C library is a part
//! of the program: what is used of it is laid out like the rest, and the program runs where there is another or none.

use crate::run;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the release is made beside its profile. Blocks that never ran are cut out of functions that did and stand apart, and so
/// does what is hot, cold or only for the start; relocations take 10 KiB instead of 800 (glibc 2.36); functions that are the
/// same are there once.
const LAYOUT: &[&str] = &[
    "-Cllvm-args=-enable-split-machine-functions",
    // Cold is what never ran, not what ran seldom: that is what starts and rests.
    "-Cllvm-args=-mfs-psi-cutoff=0",
    "-Clink-arg=-Wl,-z,keep-text-section-prefix",
    "-Clink-arg=-Wl,-z,pack-relative-relocs",
    "-Clink-arg=-Wl,--icf=safe",
    // The name of what several crates have for themselves is there more than once.
    "-Clink-arg=-Wl,--no-warn-symbol-ordering",
];

/// The C library becomes a part of the program. As a library beside it, it is mapped and relocated by itself, with all that is not
/// used: 1.8 MiB of what a resting gateway had resident.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// How the learner is built beside its counters: as always.
const NOTHING: &[&str] = &[];

/// Builds the binary; returns where it is.
pub(crate) fn release() -> Result<PathBuf> {
    let target = run::target().join("trained");
    let profile = target.join("profile.profdata");
    let counted = target.join("counts");
    let profdata = tool("llvm-profdata")?;

    emptied(&counted)?;
    let learner =
        build(&target.join("learner"), &format!("-Cprofile-generate={}", counted.display()), NOTHING)?;
    run::ok(Command::new("sh").arg("bench/setup.sh"))?;
    let mut training = Command::new("python3");
    training.arg("bench/train.py").arg("--rhumb").arg(&learner);
    // Processes add to a few files instead of each leaving its own.
    run::ok(training.env("LLVM_PROFILE_FILE", counted.join("%4m.profraw")))?;
    run::ok(Command::new(&profdata).arg("merge").arg("-o").arg(&profile).arg(&counted))?;

    let flag = format!("-Cprofile-use={}", profile.display());
    let mut layout: Vec<String> = LAYOUT.iter().map(ToString::to_string).collect();
    let unordered = build(&target.join("build"), &flag, &layout)?;
    let names = order_of(&unordered, &target)?;
    // Cargo looks at the name alone.
    let mut hasher = DefaultHasher::new();
    names.hash(&mut hasher);
    let order = target.join(format!("order-{:016x}.txt", hasher.finish()));
    std::fs::write(&order, names)?;
    layout.push(format!("-Clink-arg=-Wl,--symbol-ordering-file={}", order.display()));
    let binary = build(&target.join("build"), &flag, &layout)?;
    eprintln!("{}", binary.display());
    Ok(binary)
}

/// What processes run that only start and rest, by the names of the linker, a line each. Seen under valgrind: it also sees what
/// comes compiled, of the standard library and of others, and which of the cut out parts ran after all.
fn order_of(binary: &Path, target: &Path) -> Result<String> {
    let seen = target.join("rested");
    emptied(&seen)?;
    let watcher = format!(
        "valgrind --tool=callgrind --dump-instr=yes --compress-pos=no --compress-strings=no --callgrind-out-file={}",
        seen.join("%p").display()
    );
    let mut resting = Command::new("python3");
    resting.args(["bench/train.py", "--rest", "--rhumb"]).arg(binary).env("RHUMB_UNDER", watcher);
    run::ok(&mut resting)?;

    let listed =
        run::stdout(Command::new(tool("llvm-nm")?).args(["--print-size", "--defined-only"]).arg(binary))?;
    let functions = functions(&String::from_utf8_lossy(&listed));
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(&seen)? {
        let text = std::fs::read_to_string(file?.path())?;
        names.extend(
            executed(&text, binary).filter_map(|place| name_at(&functions, place)).map(ToString::to_string),
        );
    }
    if names.is_empty() {
        bail!("nothing was seen of processes that rest");
    }
    let others = for_wider_processors(&names, functions.values().map(|(_, name)| name.as_str()));
    let names: Vec<_> = names.iter().map(String::as_str).chain(others).collect();
    Ok(names.join("\n"))
}

/// What runs instead of functions that were seen where the processor has more instructions than valgrind's: names of C and
/// assembler that differ in their end, of those that are there.
fn for_wider_processors<'f>(seen: &BTreeSet<String>, there: impl Iterator<Item = &'f str>) -> Vec<&'f str> {
    let is_seen = |stem: &str| {
        AES_GCM.iter().any(|end| stem.ends_with(end))
            || NARROWER.iter().any(|end| {
                let name = format!("{stem}{end}");
                seen.range(name.clone()..).next().is_some_and(|next| next.starts_with(&name))
            })
    };
    let stem = |name: &'f str| WIDER.iter().find_map(|end| name.find(end)).and_then(|at| name.get(..at));
    there.filter(|name| stem(name).is_some_and(is_seen)).collect()
}

/// What names of functions for wider processors end with.
const WIDER: [&str; 3] = ["_avx512", "_evex", "base_byte"];

/// The same for valgrind's.
const NARROWER: [&str; 4] = ["_avx", "_sse", "_ssse3", "_byte_alt"];

/// What encrypts with wider registers; with narrower ones it is called otherwise.
const AES_GCM: [&str; 4] = ["gcm_init", "gcm_gmult", "aes_gcm_encrypt", "aes_gcm_decrypt"];

/// The functions of a program by where they begin, with their size and name, from what `nm` lists.
fn functions(listed: &str) -> BTreeMap<u64, (u64, String)> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, size) = (number(words.next()?)?, number(words.next()?)?);
        let is_code = matches!(words.next()?, "t" | "T" | "w" | "W" | "i");
        is_code.then_some((start, (size, words.next()?.to_owned())))
    };
    listed.lines().filter_map(entry).collect()
}

fn name_at(functions: &BTreeMap<u64, (u64, String)>, place: u64) -> Option<&str> {
    let (start, (size, name)) = functions.range(..=place).next_back()?;
    (place - start < *size).then_some(name)
}

/// The places of instructions of a program in what callgrind has written.
fn executed<'s>(seen: &'s str, binary: &Path) -> impl Iterator<Item = u64> + 's {
    let own = format!("ob={}", binary.display());
    let mut base = None;
    seen.lines().filter_map(move |line| {
        if line.starts_with("ob=") {
            base = match line {
                // Of parts that are cut out it knows no names, and tells where they are in memory.
                "ob=???" => Some(LOADED_AT),
                line => (line == own).then_some(0),
            };
        }
        let place = line.strip_prefix("0x")?.split(' ').next()?;
        u64::from_str_radix(place, 16).ok()?.checked_sub(base?)
    })
}

/// Where valgrind puts programs that can be anywhere.
const LOADED_AT: u64 = 0x10_8000;

fn emptied(directory: &Path) -> Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    Ok(std::fs::create_dir_all(directory)?)
}

fn build<L: AsRef<std::ffi::OsStr>>(target: &Path, flag: &str, linking: &[L]) -> Result<PathBuf> {
    let machine = machine()?;
    let mut cargo = run::cargo();
    // With a target named, programs that only build run as always.
    cargo.args(["rustc", "--release", "-p", "rhumb-app", "--bin", "rhumb", "--target", &machine, "--"]);
    let flags = format!("{STATIC} {flag}");
    run::ok(cargo.args(linking).env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", flags))?;
    Ok(target.join(machine).join("release/rhumb"))
}

/// What the compiler calls this machine.
fn machine() -> Result<String> {
    printed("host-tuple")
}

/// What the compiler says of itself.
fn printed(what: &str) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = run::stdout(Command::new(rustc).args(["--print", what]))?;
    Ok(String::from_utf8(told).context("an answer that is not text")?.trim().to_owned())
}

/// A program of the compiler's own version, from its component `llvm-tools`.
fn tool(name: &str) -> Result<PathBuf> {
    let libraries = PathBuf::from(printed("target-libdir")?);
    let program = libraries.with_file_name("bin").join(name);
    if !program.exists() {
        if !run::installed("rustup") {
            bail!("{name} of this compiler is missing: install its component llvm-tools");
        }
        run::ok(Command::new("rustup").args(["component", "add", "llvm-tools"]))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_processor_runs_is_known_by_its_name() {
        let seen = ["__memmove_avx_unaligned_erms", "gcm_init_avx", "x25519_byte_alt", "__strlen_avx2"];
        let seen = seen.into_iter().map(str::to_owned).collect();
        let there = [
            "__memmove_evex_unaligned",
            "__memset_evex",
            "gcm_init_avx512",
            "x25519base_byte",
            "__strlen_evex",
            "f",
        ];
        let found = for_wider_processors(&seen, there.into_iter());
        assert_eq!(
            found,
            ["__memmove_evex_unaligned", "gcm_init_avx512", "x25519base_byte", "__strlen_evex"]
        );
    }

    #[test]
    fn functions_that_ran_are_found_in_what_callgrind_writes() {
        let functions = functions(
            "0000000000001000 0000000000000010 t _RNv1a\n0000000000001010 0000000000000020 T _RNv1b\n\
             0000000000002000 0000000000000040 t _RNv1a.cold\n0000000000003000 0000000000000008 d DATA\n",
        );
        let seen = "version: 1\nevents: Ir\n\nob=/rhumb\nfl=a.rs\nfn=a\n0x1004 16 3\ncfn=z\ncalls=1 0x9\n0x100f 16 3\n\
                    ob=/libc.so\nfn=y\n0x1010 0 1\nob=???\nfn=0x000000000010a010\n0x10a010 0 1\n0x10b000 0 1\n";
        let names: Vec<_> =
            executed(seen, Path::new("/rhumb")).filter_map(|place| name_at(&functions, place)).collect();
        assert_eq!(names, ["_RNv1a", "_RNv1a", "_RNv1a.cold"]);
    }
}
