//! What the kernel says about this process (proc(5)).

use std::fs;

/// Numbers of `/proc/self`. What cannot be read is `None`.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// User and system time. Unit: clock ticks, [`TICKS_PER_SECOND`].
    pub(super) cpu_ticks: Option<u64>,
    /// Unit: seconds since the Unix epoch.
    pub(super) start_unix_secs: Option<u64>,
    /// Unit: bytes.
    pub(super) resident: Option<u64>,
    /// Unit: bytes.
    pub(super) virtual_size: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let text = |name| fs::read_to_string(name).unwrap_or_default();
        let mut process =
            Self::parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/stat"));
        // The listing itself is open while it is read.
        process.open_fds =
            fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1));
        process.max_fds = soft_fd_limit(&text("/proc/self/limits"));
        process
    }

    fn parse(stat: &str, status: &str, system: &str) -> Self {
        // The second field is the name of the program, in parentheses, and may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<_> = after_name.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let kib = |name| first_number_after(status, name).map(|kib| kib * 1024);
        let booted = first_number_after(system, "btime");
        Self {
            cpu_ticks: field(14).zip(field(15)).map(|(user, system)| user + system),
            start_unix_secs: booted.zip(field(22)).map(|(booted, ticks)| booted + ticks / TICKS_PER_SECOND),
            resident: kib("VmRSS:"),
            virtual_size: kib("VmSize:"),
            threads: first_number_after(status, "Threads:"),
            open_fds: None,
            max_fds: None,
        }
    }
}

fn soft_fd_limit(limits: &str) -> Option<u64> {
    first_number_after(limits, "Max open files")
}

fn first_number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// `USER_HZ`, which is 100 on every Linux architecture that Rust's tier 1 and 2 know.
pub(super) const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known_to_the_kernel() {
        let process = Process::read();
        assert!(process.cpu_ticks.is_some());
        assert!(process.start_unix_secs > Some(1_700_000_000));
        assert!(process.resident > Some(100_000) && process.virtual_size >= process.resident);
        assert!(process.threads >= Some(1));
        assert!(process.open_fds >= Some(1) && process.open_fds < process.max_fds);
    }

    #[test]
    fn a_program_name_cannot_shift_the_fields() {
        let numbers: String = (4..=52).map(|number| format!(" {number}")).collect();
        let process = Process::parse(&format!("7 (a) S 1 (b)) R{numbers}"), "", "cpu 1\nbtime 1000\n");
        assert_eq!(process.cpu_ticks, Some(29));
        assert_eq!(process.start_unix_secs, Some(1000));
        assert_eq!(process.resident, None);
    }

    #[test]
    fn no_proc_is_no_numbers() {
        let process = Process::parse("", "", "");
        assert_eq!((process.cpu_ticks, process.start_unix_secs, process.threads), (None, None, None));
        assert_eq!(soft_fd_limit("Max open files            unlimited"), None);
    }
}
