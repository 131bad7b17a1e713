//! Names of series and the numbers that frames have for them.

use std::collections::{BTreeMap, HashMap, HashSet};

use rhumb_telemetry::signals::{Dimension, Name, OTHER};

use super::{HOUR, MINUTES_KEPT};
use crate::shelf::{Kind, Shelf, Write};

/// Names that are kept at most; a series that comes then is counted as `other`.
const NAMES: usize = 65_536;

/// Names by number.
#[derive(Default)]
pub(super) struct Names {
    numbers: HashMap<(Dimension, Name), u32>,
    names: BTreeMap<u32, ((Dimension, Name), u64)>,
    next: u32,
}

impl Names {
    /// Those that were kept.
    pub(super) fn load(shelf: &Shelf) -> Self {
        let mut names = Self::default();
        shelf.range(Kind::Names, 0, u64::from(u32::MAX), |number, bytes| {
            let (Ok(number), Some((&dimension, text))) = (u32::try_from(number), bytes.split_first()) else {
                return;
            };
            let dimension = Dimension::ALL.get(usize::from(dimension)).copied();
            let (Some(dimension), Ok(text)) = (dimension, std::str::from_utf8(text)) else { return };
            let key = (dimension, Name::from_text(text));
            names.numbers.insert(key.clone(), number);
            // It is not known when it was last used: as of its first look it is.
            names.names.insert(number, (key, 0));
            names.next = names.next.max(number.saturating_add(1));
        });
        names
    }

    /// What a number stands for.
    pub(super) fn name(&self, number: u32) -> Option<(Dimension, &Name)> {
        self.names.get(&number).map(|((dimension, name), _)| (*dimension, name))
    }

    /// The number of a name, a new one where it has none.
    pub(super) fn number(
        &mut self,
        dimension: Dimension,
        name: &Name,
        now: u64,
        writes: &mut Vec<Write>,
    ) -> u32 {
        let mut key = (dimension, name.clone());
        if !self.numbers.contains_key(&key) && self.names.len() >= NAMES {
            key.1 = Name::new(&vec![OTHER; dimension.names()]);
        }
        if let Some(&number) = self.numbers.get(&key) {
            if let Some((_, used)) = self.names.get_mut(&number) {
                *used = now;
            }
            return number;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let mut bytes = vec![dimension as u8];
        bytes.extend_from_slice(key.1.as_str().as_bytes());
        writes.push(Write::Put(Kind::Names, u64::from(number), bytes));
        self.numbers.insert(key.clone(), number);
        self.names.insert(number, (key, now));
        number
    }

    /// Gives up names that no frame can have any more.
    pub(super) fn forget(&mut self, now: u64, writes: &mut Vec<Write>) {
        let oldest = now.saturating_sub(MINUTES_KEPT + HOUR);
        let mut gone = HashSet::new();
        for (number, (key, used)) in &mut self.names {
            if *used == 0 {
                *used = now;
            } else if *used < oldest {
                gone.insert(*number);
                self.numbers.remove(key);
                writes.push(Write::Remove(Kind::Names, u64::from(*number)));
            }
        }
        self.names.retain(|number, _| !gone.contains(number));
    }
}
