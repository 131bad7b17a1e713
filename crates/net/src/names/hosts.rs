//! Hosts that this machine names itself: hosts(5).

use std::net::IpAddr;

/// Where every program looks for them.
pub(super) const PATH: &str = "/etc/hosts";

/// The addresses that lines of a text give to a name, in their order, each once.
pub(super) fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        if let Some(address) = words.next()
            && words.any(|alias| alias.trim_end_matches('.').eq_ignore_ascii_case(name))
            && let Ok(address) = address.parse()
            && !found.contains(&address)
        {
            found.push(address);
        }
        if found.len() >= super::MOST_ADDRESSES {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_count_that_have_the_name() {
        let text = "127.0.0.1\tlocalhost\n10.0.0.1 db db.example # 10.0.0.9 db\n#10.0.0.2 db\nfd00::1 DB.\nx db\n\
                    10.0.0.1 db\n10.0.0.3 dbx\n10.0.0.4\n\n";
        let shown = |name: &str| addresses(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown("db"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(shown("DB.example"), ["10.0.0.1"]);
        assert_eq!(shown("10.0.0.4"), [""; 0]);
    }

    #[test]
    fn no_more_are_taken_than_are_tried() {
        let text: String = (0..100).map(|last| format!("10.0.0.{last} many\n")).collect();
        assert_eq!(addresses(&text, "many").len(), super::super::MOST_ADDRESSES);
    }
}
