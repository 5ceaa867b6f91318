//! How soon a server answers at best: what no request can be without, whatever else is in.

use std::time::Duration;

use tokio::time::Instant;

/// What was measured so long ago says nothing any more; it is remembered for up to three times as long.
const SPAN: Duration = Duration::from_secs(10);

/// The shortest time between a request and its answer in this and the last span.
#[derive(Default, Debug)]
pub(super) struct Fastest {
    begun: Option<Instant>,
    now: Option<Duration>,
    before: Option<Duration>,
}

impl Fastest {
    /// An answer took so long.
    pub(super) fn note(&mut self, took: Duration, now: Instant) {
        let spans = self.begun.map_or(2, |begun| spans(begun, now));
        if spans > 0 {
            let last = self.now.take();
            self.before = if spans == 1 { last } else { None };
            self.begun = Some(now);
        }
        self.now = Some(self.now.map_or(took, |least| least.min(took)));
    }

    /// How long the fastest took that is remembered, if one is.
    pub(super) fn get(&self, now: Instant) -> Option<Duration> {
        match spans(self.begun?, now) {
            0 => [self.now, self.before].into_iter().flatten().min(),
            1 => self.now,
            _ => None,
        }
    }
}

fn spans(begun: Instant, now: Instant) -> u128 {
    now.saturating_duration_since(begun).as_nanos() / SPAN.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_of_this_and_the_last_span_counts() {
        let mut fastest = Fastest::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let millis = Duration::from_millis;
        assert_eq!(fastest.get(at(0)), None);
        fastest.note(millis(9), at(0));
        fastest.note(millis(3), at(1));
        fastest.note(millis(5), at(2));
        assert_eq!(fastest.get(at(9)), Some(millis(3)));
        fastest.note(millis(4), at(11));
        assert_eq!(fastest.get(at(12)), Some(millis(3)), "of the last span");
        fastest.note(millis(7), at(21));
        assert_eq!(fastest.get(at(22)), Some(millis(4)));
        assert_eq!(fastest.get(at(32)), Some(millis(7)), "of the last span, and nothing since");
        assert_eq!(fastest.get(at(41)), None, "none of the last two spans");
        fastest.note(millis(8), at(100));
        assert_eq!(fastest.get(at(100)), Some(millis(8)));
    }
}
