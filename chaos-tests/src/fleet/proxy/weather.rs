//! What the network between two nodes is like, each way by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

/// What happens to everything that goes from one node to another.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    /// Nothing arrives, and nobody is told.
    pub cut: bool,
    pub delay: Duration,
    /// Share of the packets that are lost. A datagram is gone; a stream repeats what was lost, later.
    pub loss: f64,
}

/// A direction: from the first node to the second, by number.
pub type Way = (usize, usize);

#[derive(Clone, Debug, Default, PartialEq)]
struct Table {
    ways: BTreeMap<Way, Weather>,
    /// Streams of an earlier generation are broken off.
    generation: u64,
}

/// The weather of all ways; fine where nothing else was said. Clones are the same.
#[derive(Clone, Debug)]
pub struct Forecast {
    table: watch::Sender<Table>,
}

impl Default for Forecast {
    fn default() -> Self {
        Self { table: watch::Sender::new(Table::default()) }
    }
}

impl Forecast {
    pub fn now(&self, way: Way) -> Weather {
        self.table.borrow().ways.get(&way).copied().unwrap_or_default()
    }

    pub fn set(&self, ways: impl IntoIterator<Item = Way>, weather: Weather) {
        self.table.send_modify(|table| table.ways.extend(ways.into_iter().map(|way| (way, weather))));
    }

    /// Fine everywhere. With `break_off`, streams that are open end, as they do when a cut outlasts their time-outs; else they go on where they were.
    pub fn clear(&self, break_off: bool) {
        self.table.send_modify(|table| {
            table.ways.clear();
            table.generation += u64::from(break_off);
        });
    }

    pub fn generation(&self) -> u64 {
        self.table.borrow().generation
    }

    /// Until something goes that way.
    pub async fn passable(&self, way: Way) {
        let passable = |table: &Table| !table.ways.get(&way).is_some_and(|weather| weather.cut);
        // The sender is `self`.
        let _ = self.table.subscribe().wait_for(passable).await;
    }

    /// Until streams of this generation are broken off.
    pub async fn broken_off(&self, generation: u64) {
        let _ = self.table.subscribe().wait_for(|table| table.generation != generation).await;
    }
}

/// Both ways between every node of one side and every one of the other.
pub fn between(one: &[usize], other: &[usize]) -> Vec<Way> {
    one.iter().flat_map(|&a| other.iter().flat_map(move |&b| [(a, b), (b, a)])).filter(|(a, b)| a != b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_is_not_the_other_and_fine_is_the_rule() {
        let forecast = Forecast::default();
        let cut = Weather { cut: true, ..Weather::default() };
        forecast.set([(0, 1)], cut);
        assert_eq!((forecast.now((0, 1)), forecast.now((1, 0))), (cut, Weather::default()));
        forecast.clear(true);
        assert_eq!((forecast.now((0, 1)), forecast.generation()), (Weather::default(), 1));
    }

    #[test]
    fn a_side_is_not_cut_from_itself() {
        assert_eq!(between(&[0], &[0, 1, 2]), [(0, 1), (1, 0), (0, 2), (2, 0)]);
    }
}
