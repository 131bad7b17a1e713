//! How this machine's programs ask for names, as resolv.conf(5) says it.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

/// Where every program looks for it.
pub const PATH: &str = "/etc/resolv.conf";

/// Domains of a search list that are read; more are left out.
pub const MOST_SEARCHED: usize = 32;

/// What a text of resolv.conf says. Options that are not here are not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers, in order, at least one. An address with a scope (`fe80::1%eth0`) is left out: it means nothing without
    /// its interface. **Default**: the one on this machine.
    pub nameservers: Vec<IpAddr>,
    /// Domains that are put behind names with few dots, without dots at their ends; an empty one is the root.
    pub search: Vec<String>,
    /// Names with so many dots are asked for as they are before the search list. **Default**: 1, at most 15.
    pub ndots: usize,
    /// How long one name server may take. **Default**: 5 s, at most 30.
    pub timeout: Duration,
    /// How often each is asked. **Default**: 2, at most 5.
    pub attempts: usize,
}

impl ResolvConf {
    /// Reads a text; what it does not say, or not well, is as by default.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self {
            nameservers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.add_nameserver(words.next()),
                // The last of these lines counts.
                Some("search") => conf.search = domains(words),
                Some("domain") => conf.search = domains(words.take(1)),
                Some("options") => words.for_each(|option| conf.set(option)),
                _ => {}
            }
        }
        if conf.nameservers.is_empty() {
            conf.nameservers.push(Ipv4Addr::LOCALHOST.into());
        }
        conf
    }

    fn add_nameserver(&mut self, word: Option<&str>) {
        if let Some(Ok(address)) = word.map(str::parse::<IpAddr>)
            && !self.nameservers.contains(&address)
        {
            self.nameservers.push(address);
        }
    }

    fn set(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        match name {
            "ndots" => self.ndots = number(value, 0, 15).unwrap_or(self.ndots),
            "timeout" => self.timeout = number(value, 1, 30).map_or(self.timeout, Duration::from_secs),
            "attempts" => self.attempts = number(value, 1, 5).unwrap_or(self.attempts),
            _ => {}
        }
    }
}

fn domains<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    words.take(MOST_SEARCHED).map(|domain| domain.trim_matches('.').to_owned()).collect()
}

fn number<T: FromStr + Ord>(text: &str, least: T, most: T) -> Option<T> {
    text.parse().ok().map(|number: T| number.clamp(least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_come_in_their_order_and_once() {
        let text = "# nameserver 1.1.1.1\nsearch a b\n nameserver 10.0.0.53 # first\nnameserver fd00::53\nnameserver\n\
                    nameserver fe80::1%eth0\nnameserver 10.0.0.53\nnameserver x\n";
        let expected = ["10.0.0.53".parse::<IpAddr>().unwrap(), "fd00::53".parse().unwrap()];
        assert_eq!(ResolvConf::parse(text).nameservers, expected);
    }

    #[test]
    fn without_any_the_machine_itself_is_asked() {
        let conf = ResolvConf::parse("options edns0\n");
        assert_eq!(conf.nameservers, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (1, Duration::from_secs(5), 2));
        assert!(conf.search.is_empty());
    }

    #[test]
    fn the_last_search_list_counts() {
        let search = |text: &str| ResolvConf::parse(text).search;
        assert_eq!(
            search("domain old.example\nsearch a.example. .b.example ."),
            ["a.example", "b.example", ""]
        );
        assert_eq!(search("search a.example b.example\ndomain c.example d.example"), ["c.example"]);
        assert_eq!(search(&format!("search{}", " x".repeat(40))).len(), MOST_SEARCHED);
    }

    #[test]
    fn options_are_kept_within_their_bounds() {
        let options = |text: &str| {
            let conf = ResolvConf::parse(&format!("options {text}\n"));
            (conf.ndots, conf.timeout.as_secs(), conf.attempts)
        };
        assert_eq!(options("ndots:5 timeout:1 rotate attempts:3 # ndots:2"), (5, 1, 3));
        assert_eq!(options("ndots:99 timeout:0 attempts:99"), (15, 1, 5));
        assert_eq!(options("ndots:x timeout: attempts"), (1, 5, 2));
    }
}
