//! What chance alone would seldom bring together: several things that happen to one proxy right after each other.

use super::Simulation;
use super::truth::NODES;

/// More than whatever is on its way between a proxy and its control plane takes.
const TURNS: usize = 12;

impl Simulation {
    /// A proxy is told of changes one after the other. Then its process ends, or it goes to the other control plane, which
    /// has heard of none of them; and whoever knows it goes on calling it.
    pub(super) fn rush(&mut self, number: usize) {
        let Some(plane) = self.nodes[number].stream.as_ref().map(|stream| stream.plane) else { return };
        self.exchange(number);
        self.nodes[number].save();
        for _ in 0..=self.rng.below(3) {
            self.change();
            self.catch_up(plane);
            self.exchange(number);
            if self.rng.below(2) == 0 {
                self.nodes[number].save();
                self.exchange(number);
            }
        }
        match self.rng.below(3) {
            0 => {}
            1 => {
                self.cut(number);
                self.restart_node_at(number, self.nodes[number].address);
            }
            _ => {
                self.cut(number);
                self.connect(number, 1 - plane);
                self.exchange(number);
            }
        }
        self.call_to_and_from(number);
    }

    /// An identity is revoked. A proxy hears of it with a certificate that it gets of one issuer, and goes on hearing from the
    /// other, which has not looked since.
    pub(super) fn shut_out(&mut self, number: usize, plane: usize) {
        let account = (number + 1 + self.pick(NODES - 1)) % NODES;
        self.nodes[number].trusted = None;
        self.hear(number, 1 - plane);
        self.revoke(account, plane);
        self.obtain(number, plane);
        self.hear(number, 1 - plane);
        self.call_to_and_from(number);
    }

    /// Everything that is on its way between a proxy and its control plane comes; nothing is written to disk meanwhile.
    fn exchange(&mut self, number: usize) {
        for _ in 0..TURNS {
            for what in [0, 1, 3, 4, 5] {
                self.deliver(number, what);
            }
        }
    }

    fn call_to_and_from(&mut self, number: usize) {
        let service = self.nodes[number].serves();
        for caller in 0..NODES {
            for called in self.nodes[caller].calls().collect::<Vec<_>>() {
                if caller == number || called == service {
                    for _ in 0..3 {
                        self.ask(caller, called);
                    }
                }
            }
        }
    }
}
