//! Who is put out, and how they come back: scripted stories.

use std::sync::Arc;
use std::time::Duration;

use rhumb_balance::{
    Algorithm, Ask, Check, Endpoint, EndpointSet, EndpointSpec, Endpoints, Gate, Nanos, Outcome, Outlier,
    Phase, Settings, Why,
};
use rhumb_base::rng::Rng;

use crate::world::specs;

const MS: u64 = 1_000_000;

/// A backend and its clock.
struct Story {
    cell: Endpoints,
    rng: Rng,
    now: Nanos,
}

impl Story {
    fn new(count: usize, algorithm: Algorithm) -> Self {
        Self::with(count, algorithm, Settings::default())
    }

    fn with(count: usize, algorithm: Algorithm, settings: Settings) -> Self {
        let set = EndpointSet::new(specs(&vec![1; count]), algorithm);
        let mut story = Self { cell: Endpoints::with(set, settings, None), rng: Rng::new(7), now: Nanos(0) };
        story.cell.tick(story.now);
        // Whoever has peers is compared with what they did.
        for index in 0..count {
            for _ in 0..3 {
                story.tell(index, Outcome::Success);
            }
        }
        story
    }

    fn endpoint(&self, index: usize) -> Arc<Endpoint> {
        Arc::clone(self.cell.load().members()[index].endpoint())
    }

    fn phase(&self, index: usize) -> Phase {
        self.cell.state(&self.endpoint(index)).phase
    }

    /// One request, which ends as `outcome` says for the endpoint that has it. Gives the endpoint's index.
    fn ask(&mut self, outcome: impl Fn(usize) -> Outcome) -> usize {
        self.now.0 += MS;
        let ask = Ask { key: Some(self.rng.next_u64()), now: self.now, may_probe: true, tried: &[] };
        let load = self.cell.begin(ask, &mut self.rng).unwrap();
        let set = self.cell.load();
        let index = set.members().iter().position(|m| Arc::ptr_eq(m.endpoint(), load.endpoint())).unwrap();
        self.cell.finish(load, Duration::from_millis(1), outcome(index), self.now);
        index
    }

    /// A request that a certain endpoint has.
    fn tell(&mut self, index: usize, outcome: Outcome) {
        self.now.0 += MS;
        let load = self.endpoint(index).start();
        self.cell.finish(load, Duration::from_millis(1), outcome, self.now);
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.0 + u64::try_from(time.as_nanos()).unwrap();
        while self.now.0 < until {
            self.now.0 += 100 * MS;
            self.cell.tick(self.now);
        }
    }
}

#[test]
fn an_endpoint_that_fails_half_of_its_requests_is_out_within_ten() {
    for algorithm in Algorithm::ALL {
        for failure in [Outcome::ServerError, Outcome::GatewayError, Outcome::LocalFailure] {
            let mut story = Story::new(3, algorithm);
            for _ in 0..300 {
                story.ask(|_| Outcome::Success);
            }
            let mut had = 0;
            while story.phase(0) == Phase::Full {
                had += 1;
                story.tell(0, if had % 2 == 0 { failure } else { Outcome::Success });
                for _ in 0..2 {
                    story.ask(|index| if index == 0 { failure } else { Outcome::Success });
                }
                assert!(had <= 10, "{algorithm:?} {failure:?}");
            }
            let state = story.cell.state(&story.endpoint(0));
            assert!(state.phase == Phase::Ejected && state.share == 0.0, "{state:?}");
            for _ in 0..200 {
                assert_ne!(story.ask(|_| Outcome::Success), 0, "{algorithm:?}: it is out");
            }
        }
    }
}

#[test]
fn what_all_fail_alike_puts_nobody_out() {
    for count in [2, 3, 10] {
        let mut story = Story::new(count, Algorithm::RoundRobin);
        for _ in 0..500 {
            story.ask(|_| Outcome::Success);
        }
        // A burst of requests that no endpoint can answer, spread as requests are.
        for _ in 0..500 {
            story.ask(|_| Outcome::ServerError);
        }
        story.wait(Duration::from_secs(30));
        assert!((0..count).all(|index| story.phase(index) == Phase::Full), "{count}");
        assert_eq!(story.cell.tally().ejections, [0; Why::KINDS.len()]);
    }
}

#[test]
fn failures_that_are_usual_put_nobody_out() {
    let mut story = Story::new(5, Algorithm::LeastBusy);
    let mut chance = Rng::new(3);
    // Two of a hundred fail, wherever they go.
    let outcomes: Vec<_> = (0..100_000).map(|_| chance.below(100) < 2).collect();
    for (i, fails) in outcomes.into_iter().enumerate() {
        story.ask(|_| if fails { Outcome::ServerError } else { Outcome::Success });
        if i % 100 == 0 {
            story.cell.tick(story.now);
        }
    }
    let ejections: u64 = story.cell.tally().ejections.iter().sum();
    assert!(ejections <= 2, "{:?}", story.cell.tally());
}

#[test]
fn the_only_endpoint_stays() {
    let mut story = Story::new(1, Algorithm::LeastBusy);
    for _ in 0..100 {
        story.tell(0, Outcome::LocalFailure);
    }
    assert_eq!(story.phase(0), Phase::Full);
}

#[test]
fn an_endpoint_comes_back_by_probes_and_a_ramp() {
    for algorithm in Algorithm::ALL {
        let mut story = Story::new(4, algorithm);
        for _ in 0..100 {
            story.ask(|_| Outcome::Success);
        }
        for _ in 0..3 {
            story.tell(1, Outcome::LocalFailure);
        }
        assert_eq!(story.phase(1), Phase::Ejected);
        story.wait(Duration::from_millis(1900));
        assert_eq!(story.phase(1), Phase::Ejected, "not before its time");
        story.wait(Duration::from_millis(800));
        assert_eq!(story.phase(1), Phase::Probing);

        // While one request tries it, no other does.
        let probe = loop {
            let ask = Ask { key: Some(story.rng.next_u64()), now: story.now, may_probe: true, tried: &[] };
            let load = story.cell.begin(ask, &mut story.rng).unwrap();
            if load.is_probe() {
                break load;
            }
        };
        for _ in 0..200 {
            assert_ne!(story.ask(|_| Outcome::Success), 1, "{algorithm:?}");
        }
        story.cell.finish(probe, Duration::from_millis(1), Outcome::Success, story.now);
        let mut probes = 1;
        while story.phase(1) == Phase::Probing {
            probes += u32::from(story.ask(|_| Outcome::Success) == 1);
        }
        assert_eq!((probes, story.phase(1)), (3, Phase::Ramping));

        let share = |story: &mut Story| {
            let hits = (0..4000).filter(|_| {
                // The clock of the ramp stands still.
                story.now.0 -= MS;
                story.ask(|_| Outcome::Success) == 1
            });
            hits.count() as f64 / 1000.0
        };
        let early = share(&mut story);
        story.wait(Duration::from_secs(5));
        let half = share(&mut story);
        story.wait(Duration::from_secs(6));
        assert_eq!(story.phase(1), Phase::Full);
        let full = share(&mut story);
        assert!((0.02..0.3).contains(&early), "{algorithm:?}: {early}");
        assert!((0.3..0.85).contains(&half) && half > early, "{algorithm:?}: {half}");
        assert!((0.7..1.3).contains(&full), "{algorithm:?}: {full}");
    }
}

#[test]
fn who_fails_again_stays_out_longer_and_longer() {
    let mut story = Story::new(3, Algorithm::RoundRobin);
    let mut times = Vec::new();
    for _ in 0..3 {
        story.tell(2, Outcome::LocalFailure);
    }
    for _ in 0..6 {
        let begun = story.now;
        while story.phase(2) == Phase::Ejected {
            story.wait(Duration::from_millis(100));
        }
        times.push((story.now.0 - begun.0) as f64 / 1e9);
        while story.phase(2) == Phase::Probing {
            story.ask(|index| if index == 2 { Outcome::GatewayError } else { Outcome::Success });
        }
    }
    for (time, least) in times.iter().zip([2.0, 4.0, 8.0, 16.0, 32.0, 64.0]) {
        assert!((least - 0.1..least * 1.25 + 0.3).contains(time), "{times:?}");
    }
    assert_eq!(story.cell.state(&story.endpoint(2)).relapses, 6);
    // Evidence that it is well again shortens it: time alone does not.
    story.wait(Duration::from_secs(3600));
    while story.phase(2) != Phase::Full {
        story.ask(|_| Outcome::Success);
        story.cell.tick(story.now);
    }
    for _ in 0..400 {
        story.tell(2, Outcome::Success);
    }
    for _ in 0..3 {
        story.tell(2, Outcome::LocalFailure);
    }
    assert_eq!(story.cell.state(&story.endpoint(2)).relapses, 2);
}

#[test]
fn where_nothing_may_be_repeated_an_endpoint_is_tried_all_the_same() {
    let mut story = Story::new(2, Algorithm::RoundRobin);
    for _ in 0..3 {
        story.tell(0, Outcome::LocalFailure);
    }
    let probe = |story: &mut Story| {
        (0..10).any(|_| {
            let load = story.cell.begin(Ask { now: story.now, ..Ask::default() }, &mut story.rng).unwrap();
            load.is_probe()
        })
    };
    story.wait(Duration::from_secs(3));
    assert!(story.phase(0) == Phase::Probing && !probe(&mut story), "at first it waits for a better one");
    story.wait(Duration::from_secs(3));
    assert!(probe(&mut story));
}

#[test]
fn at_most_half_are_out() {
    let mut story = Story::new(6, Algorithm::Random);
    for _ in 0..600 {
        story.ask(|_| Outcome::Success);
    }
    for _ in 0..20 {
        for index in 0..4 {
            story.tell(index, Outcome::LocalFailure);
        }
        for index in 4..6 {
            story.tell(index, Outcome::Success);
        }
    }
    let out = (0..6).filter(|&index| story.phase(index).is_out()).count();
    assert!(out == 3 && story.cell.tally().spared > 0, "{out} {:?}", story.cell.tally());
    // Those that are well leave: who is out has to help.
    story.cell.publish(specs(&[1; 6])[0..4].to_vec(), story.now);
    assert_eq!((0..4).filter(|&index| story.phase(index).is_out()).count(), 2);
}

#[test]
fn failures_within_the_window_are_compared_with_those_of_peers() {
    let limits = Outlier { recent_failures: 0, consecutive_5xx: 0, ..Outlier::default() };
    let settings = Settings { outlier: Some(limits), ..Settings::default() };
    let mut story = Story::with(3, Algorithm::RoundRobin, settings);
    for i in 0..3000 {
        story.ask(|index| if index == 1 && i % 2 == 0 { Outcome::ServerError } else { Outcome::Success });
        if i % 100 == 99 {
            story.cell.tick(story.now);
        }
    }
    let events = story.cell.take_events();
    assert!(matches!(events[0].why, Some(Why::Percentage { .. })), "{events:?}");
}

#[test]
fn a_success_rate_far_below_the_others_puts_out() {
    let limits = Outlier { recent_failures: 0, failure_percent: 0, consecutive_5xx: 0, ..Outlier::default() };
    let settings = Settings { outlier: Some(limits), ..Settings::default() };
    let mut story = Story::with(8, Algorithm::RoundRobin, settings);
    for i in 0..6000 {
        story.ask(|index| if index == 1 && i % 5 == 0 { Outcome::ServerError } else { Outcome::Success });
        if i % 100 == 99 {
            story.cell.tick(story.now);
        }
    }
    let events = story.cell.take_events();
    assert!(matches!(events[0].why, Some(Why::SuccessRate { .. })), "{events:?}");
    assert!((0..8).all(|index| index == 1 || story.phase(index) == Phase::Full));
}

#[test]
fn who_asks_for_less_gets_less_until_then() {
    for algorithm in Algorithm::ALL {
        let mut story = Story::new(2, algorithm);
        let wish = Outcome::Throttled(Some(Duration::from_secs(20)));
        story.tell(0, wish);
        let share = |story: &mut Story| (0..4000).filter(|_| story.ask(|_| Outcome::Success) == 0).count();
        let less = share(&mut story);
        assert!((900..1900).contains(&less), "{algorithm:?}: {less}");
        story.now.0 += 300 * MS;
        story.tell(0, wish);
        let even_less = share(&mut story);
        assert!((400..1400).contains(&even_less) && even_less < less, "{algorithm:?}: {even_less}");
        story.wait(Duration::from_secs(21));
        assert_eq!(story.endpoint(0).gate(), Gate::OPEN);
        assert_eq!((story.phase(0), story.endpoint(0).failed()), (Phase::Full, 0), "it is not ill");
    }
}

#[test]
fn an_endpoint_that_comes_to_others_starts_slowly() {
    let settings = Settings { slow_start: Duration::from_secs(10), ..Settings::default() };
    let mut story = Story::with(3, Algorithm::RoundRobin, settings);
    assert!((0..3).all(|index| story.phase(index) == Phase::Full), "the first ones have nobody to lean on");
    story.cell.publish(specs(&[1; 4]), story.now);
    assert_eq!(story.phase(3), Phase::Warming);
    let early = (0..4000).filter(|_| story.ask(|_| Outcome::Success) == 3).count();
    assert!((30..250).contains(&early), "{early}");
    story.wait(Duration::from_secs(10));
    assert_eq!(story.phase(3), Phase::Full);
}

#[test]
fn who_fails_its_check_is_not_used_unless_too_few_are_left() {
    let settings = Settings { is_checked: true, ..Settings::default() };
    let mut story = Story::with(10, Algorithm::LeastBusy, settings);
    for index in 0..10 {
        let endpoint = story.endpoint(index);
        story.cell.checked(&endpoint, Check::Failing("connection refused".into()), story.now);
        let hits: Vec<_> = (0..2000).map(|_| story.ask(|_| Outcome::Success)).collect();
        let left = 10 - index - 1;
        let is_panicking = left < 2;
        assert_eq!(story.cell.tally().is_panicking, is_panicking, "{left} left");
        assert_eq!(hits.iter().any(|&hit| hit <= index), is_panicking, "{left} left");
    }
    let endpoint = story.endpoint(4);
    story.cell.checked(&endpoint, Check::Passing, story.now);
    let other = story.endpoint(5);
    story.cell.checked(&other, Check::Passing, story.now);
    assert!((0..2000).all(|_| [4, 5].contains(&story.ask(|_| Outcome::Success))));
}

#[test]
fn a_checked_endpoint_is_tried_after_its_check_has_passed() {
    let settings = Settings { is_checked: true, ..Settings::default() };
    let mut story = Story::with(3, Algorithm::LeastBusy, settings);
    let endpoint = story.endpoint(0);
    story.cell.checked(&endpoint, Check::Passing, story.now);
    for _ in 0..3 {
        story.tell(0, Outcome::LocalFailure);
    }
    story.wait(Duration::from_secs(10));
    assert_eq!(story.phase(0), Phase::Ejected, "the check passed before, not since");
    story.cell.checked(&endpoint, Check::Passing, story.now);
    story.wait(Duration::from_millis(100));
    assert_eq!(story.phase(0), Phase::Probing);
}

#[test]
fn an_unchecked_endpoint_waits_where_that_is_wanted() {
    let settings =
        Settings { is_checked: true, is_well_at_first: false, panic_percent: 0, ..Settings::default() };
    let mut story = Story::with(2, Algorithm::LeastBusy, settings);
    assert!(story.cell.begin(Ask::default(), &mut story.rng).is_err());
    let endpoint = story.endpoint(1);
    story.cell.checked(&endpoint, Check::Passing, story.now);
    assert!((0..50).all(|_| story.ask(|_| Outcome::Success) == 1));
}

#[test]
fn a_backup_takes_over_at_once_and_gives_back() {
    for algorithm in Algorithm::ALL {
        let specs: Vec<_> = specs(&[1; 4])
            .into_iter()
            .enumerate()
            .map(|(i, spec)| EndpointSpec { priority: u32::from(i >= 2), ..spec })
            .collect();
        let settings = Settings { is_checked: true, ..Settings::default() };
        let cell = Endpoints::with(EndpointSet::new(specs, algorithm), settings, None);
        cell.tick(Nanos(0));
        let mut story = Story { cell, rng: Rng::new(1), now: Nanos(0) };
        assert!((0..500).all(|_| story.ask(|_| Outcome::Success) < 2), "{algorithm:?}");
        let first = [story.endpoint(0), story.endpoint(1)];
        story.cell.checked(&first[0], Check::Failing("x".into()), story.now);
        // Half of the first level carries 70 %.
        let backup = (0..4000).filter(|_| story.ask(|_| Outcome::Success) >= 2).count();
        assert!((700..1700).contains(&backup), "{algorithm:?}: {backup}");
        story.cell.checked(&first[1], Check::Failing("x".into()), story.now);
        assert!((0..500).all(|_| story.ask(|_| Outcome::Success) >= 2), "{algorithm:?}");
        for endpoint in &first {
            story.cell.checked(endpoint, Check::Passing, story.now);
        }
        assert!((0..500).all(|_| story.ask(|_| Outcome::Success) < 2), "{algorithm:?}");
    }
}

#[test]
fn a_revision_with_other_settings_goes_on_with_what_is_known() {
    let mut story = Story::new(3, Algorithm::RoundRobin);
    for _ in 0..3 {
        story.tell(0, Outcome::LocalFailure);
    }
    let set = story.cell.load().next(specs(&[1; 3]), Algorithm::Maglev, story.now);
    let next = Endpoints::with(set, Settings::default(), Some(&story.cell));
    next.tick(story.now);
    story.cell = next;
    assert_eq!((story.phase(0), story.cell.tally().ejections.iter().sum::<u64>()), (Phase::Ejected, 1));
    // Switched off, nobody is kept out.
    let set = story.cell.load().next(specs(&[1; 3]), Algorithm::Maglev, story.now);
    let next = Endpoints::with(set, Settings { outlier: None, ..Settings::default() }, Some(&story.cell));
    next.tick(story.now);
    story.cell = next;
    assert_eq!(story.phase(0), Phase::Full);
}

#[test]
fn requests_beyond_the_limit_are_refused() {
    let settings = Settings { max_requests: Some(2), ..Settings::default() };
    let mut story = Story::with(3, Algorithm::LeastBusy, settings);
    let loads: Vec<_> = (0..3).map(|_| story.cell.begin(Ask::default(), &mut story.rng)).collect();
    assert!(loads[1].is_ok() && loads[2].is_err());
    drop(loads);
    assert!(story.cell.begin(Ask::default(), &mut story.rng).is_ok());
    assert_eq!((story.cell.tally().requests, story.cell.tally().refused), (0, 1));
}

#[test]
fn who_is_out_is_tried_early_when_another_has_to_go() {
    let mut story = Story::new(3, Algorithm::RoundRobin);
    let fails = |story: &mut Story, index: usize| {
        for _ in 0..3 {
            story.tell(index, Outcome::LocalFailure);
        }
    };
    fails(&mut story, 0);
    // It relapses twice, so that it would be out for long.
    for _ in 0..2 {
        while story.phase(0) != Phase::Probing {
            story.wait(Duration::from_millis(100));
        }
        while story.ask(|index| if index == 0 { Outcome::LocalFailure } else { Outcome::Success }) != 0 {}
    }
    let out_until = story.cell.state(&story.endpoint(0)).until.unwrap();
    // Another one fails at once: too soon to ask again.
    fails(&mut story, 1);
    assert_eq!([0, 1].map(|index| story.phase(index)), [Phase::Ejected, Phase::Full]);
    story.wait(Duration::from_millis(300));
    fails(&mut story, 1);
    assert_eq!([0, 1].map(|index| story.phase(index)), [Phase::Probing, Phase::Full]);
    // It is not well yet, which is no relapse: out until it would have been.
    while story.ask(|index| if index == 2 { Outcome::Success } else { Outcome::LocalFailure }) != 0 {}
    let state = story.cell.state(&story.endpoint(0));
    assert_eq!((state.phase, state.relapses, state.until), (Phase::Ejected, 2, Some(out_until)));
    // The next time it is, and makes room.
    story.wait(Duration::from_millis(300));
    fails(&mut story, 1);
    while story.phase(0) == Phase::Probing {
        story.ask(|index| if index == 1 { Outcome::LocalFailure } else { Outcome::Success });
    }
    assert!(story.now < out_until && story.phase(0) == Phase::Ramping);
    while story.phase(1) != Phase::Ejected {
        story.ask(|index| if index == 1 { Outcome::LocalFailure } else { Outcome::Success });
    }
    assert_eq!([0, 1].map(|index| story.phase(index)), [Phase::Ramping, Phase::Ejected]);
}
