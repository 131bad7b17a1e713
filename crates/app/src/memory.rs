//! How much memory the process has and may have (proc(5), cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};

/// Resident memory of this process. Unit: bytes. `None` when the kernel does not tell.
pub(crate) fn resident() -> Option<u64> {
    // The second number; cheaper to make than /proc/self/status, which is asked for several times per second.
    let pages = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// What the process may use: the smallest limit of its cgroups, else the memory of the machine. Unit: bytes.
pub(crate) fn limit() -> Option<u64> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = machine(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let limits = files(&cgroups, Path::new("/sys/fs/cgroup"));
    let limits = limits.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    limits.chain(machine).min()
}

/// Files that may have a limit: of each cgroup from that of the process up to the root. In a container the path may be
/// one of the host's, while the root that is seen is the container's own.
fn files(cgroups: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = vec![root.join("memory.max"), root.join("memory/memory.limit_in_bytes")];
    for line in cgroups.lines() {
        // hierarchy:controllers:path; version 2 has hierarchy 0 and no controllers.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (base, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().filter(|at| *at != Path::new("")).map(|at| base.join(at).join(file)));
    }
    files
}

fn machine(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_smaller_than_what_it_may_be() {
        let (resident, limit) = (resident().unwrap(), limit().unwrap());
        assert!(resident > 500_000 && resident < limit, "{resident} of {limit}");
    }

    #[test]
    fn every_cgroup_above_the_process_is_asked() {
        let names = |cgroups: &str| -> Vec<String> {
            let files = files(cgroups, Path::new("/c"));
            files.iter().skip(2).map(|file| file.display().to_string()).collect()
        };
        assert_eq!(names("0::/a/b\n"), ["/c/a/b/memory.max", "/c/a/memory.max"]);
        assert_eq!(
            names("12:cpu,cpuacct:/x\n5:memory:/docker/1\n0::/\n"),
            ["/c/memory/docker/1/memory.limit_in_bytes", "/c/memory/docker/memory.limit_in_bytes"]
        );
        assert!(names("nonsense").is_empty());
    }

    #[test]
    fn the_machine_has_what_it_says() {
        assert_eq!(machine("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 << 10));
        assert_eq!(machine(""), None);
    }
}
