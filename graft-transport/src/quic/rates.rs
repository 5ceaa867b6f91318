//! How many handshakes an address may begin, and how often something is said.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// How many addresses are remembered. An address that is forgotten begins anew, and each one that is
/// remembered has begun a handshake not long ago.
const MAX_ADDRESSES: usize = 4096;

/// A bucket of handshakes for each address, filled at a steady rate.
///
/// Anybody can send a first packet in the name of any address. Were that all it takes, a stranger could use up what
/// a peer may begin. So half of each bucket, and of the room for addresses, is for those who have proven theirs.
#[derive(Debug)]
pub(super) struct Rates {
    per_second: u32,
    burst: u32,
    buckets: HashMap<IpAddr, Bucket>,
}

/// Whether a handshake may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    Granted,
    /// Once the sender has proven its address.
    Unproven,
    /// Its address has begun too many.
    Refused,
}

/// What may be used, filled at a steady rate.
#[derive(Debug)]
pub(super) struct Bucket {
    left: f64,
    filled: Instant,
}

impl Rates {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, buckets: HashMap::new() }
    }

    /// Whether `address` may begin another handshake now.
    pub(super) fn ask(&mut self, address: IpAddr, is_proven: bool, now: Instant) -> Leave {
        let (rate, burst) = (f64::from(self.per_second), f64::from(self.burst));
        let (room, kept, refusal) = if is_proven {
            (MAX_ADDRESSES, 0.0, Leave::Refused)
        } else {
            (MAX_ADDRESSES / 2, burst / 2.0, Leave::Unproven)
        };
        let address = origin(address);
        if !self.buckets.contains_key(&address) && self.buckets.len() >= room {
            self.buckets.retain(|_, bucket| bucket.fill(rate, burst, now) < burst);
            if self.buckets.len() >= room {
                return refusal;
            }
        }
        let bucket = self.buckets.entry(address).or_insert_with(|| Bucket::full(burst, now));
        if bucket.fill(rate, burst, now) < kept + 1.0 {
            return refusal;
        }
        bucket.take(1.0);
        Leave::Granted
    }
}

impl Bucket {
    pub(super) const fn full(burst: f64, now: Instant) -> Self {
        Self { left: burst, filled: now }
    }

    /// Uses so much, whether or not it is there.
    pub(super) fn take(&mut self, used: f64) {
        self.left -= used;
    }

    /// Fills it by what has come since, up to `burst`, and says what is in it: less than nothing where more was used.
    pub(super) fn fill(&mut self, rate: f64, burst: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.left = (self.left + passed * rate).min(burst);
        self.left
    }
}

/// What one sender can choose freely counts as one: the last half of an IPv6 address.
fn origin(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        },
    }
}

/// How many different things are remembered to have been said.
const MAX_TOPICS: usize = 1024;

/// Remembers what was said not long ago.
#[derive(Debug)]
pub(super) struct Said<K> {
    pause: Duration,
    topics: HashMap<K, Instant>,
}

impl<K: Eq + Hash> Said<K> {
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, topics: HashMap::new() }
    }

    /// Whether this may be said now; it then was.
    pub(super) fn may_say(&mut self, topic: K, now: Instant) -> bool {
        let pause = self.pause;
        let is_recent = |said: &Instant| now.saturating_duration_since(*said) < pause;
        if self.topics.get(&topic).is_some_and(is_recent) {
            return false;
        }
        if self.topics.len() >= MAX_TOPICS {
            self.topics.retain(|_, said| is_recent(said));
            if self.topics.len() >= MAX_TOPICS {
                return false;
            }
        }
        self.topics.insert(topic, now);
        true
    }
}

/// How long to wait before the next attempt: longer after each, and never the same for two who failed
/// together.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }

    /// Between half and all of the present pause, which is then doubled.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(rates: &mut Rates, address: IpAddr, is_proven: bool, now: Instant) -> usize {
        let leaves = (0..100).map(|_| rates.ask(address, is_proven, now));
        leaves.filter(|leave| *leave == Leave::Granted).count()
    }

    #[test]
    fn an_address_gets_its_burst_and_then_its_rate() {
        let mut rates = Rates::new(10, 5);
        let start = Instant::now();
        let address: IpAddr = [127, 0, 0, 1].into();
        assert_eq!(granted(&mut rates, address, true, start), 5);
        let later = |millis| start + Duration::from_millis(millis);
        assert_eq!(granted(&mut rates, address, true, later(350)), 3);
        assert_eq!(granted(&mut rates, address, true, later(60_000)), 5);
        assert_eq!(granted(&mut rates, [127, 0, 0, 2].into(), true, start), 5, "others, too");
    }

    #[test]
    fn who_has_not_proven_its_address_leaves_half_to_who_has() {
        let mut rates = Rates::new(10, 6);
        let start = Instant::now();
        let address: IpAddr = [127, 0, 0, 1].into();
        assert_eq!(granted(&mut rates, address, false, start), 3);
        assert_eq!(rates.ask(address, false, start), Leave::Unproven);
        assert_eq!(granted(&mut rates, address, true, start), 3);
        assert_eq!(rates.ask(address, true, start), Leave::Refused);
        // What comes back goes to who has proven it first.
        let later = start + Duration::from_millis(250);
        assert_eq!(granted(&mut rates, address, false, later), 0);
        assert_eq!(granted(&mut rates, address, true, later), 2);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_the_memory_is_bounded() {
        let mut rates = Rates::new(1, 1);
        let now = Instant::now();
        let address = |network: u128, host: u128| {
            IpAddr::V6(Ipv6Addr::from_bits(((0x2001_0db8 << 96) | network << 64) + host))
        };
        assert_eq!(rates.ask(address(1, 1), true, now), Leave::Granted);
        assert_eq!(rates.ask(address(1, 2), true, now), Leave::Refused);
        let mut many = |is_proven, networks: std::ops::Range<u128>| {
            let leaves = networks.map(|network| rates.ask(address(network, 1), is_proven, now));
            let granted = leaves.filter(|leave| *leave == Leave::Granted).count();
            (granted, rates.buckets.len())
        };
        let (granted, remembered) = many(false, 10..20_000);
        assert!(granted == 0 && remembered <= MAX_ADDRESSES / 2, "{remembered}");
        let (granted, remembered) = many(true, 20_000..40_000);
        assert!(granted >= MAX_ADDRESSES / 2, "there is room for who has proven its address");
        assert!(remembered <= MAX_ADDRESSES, "{remembered}");
        let later = now + Duration::from_secs(2);
        assert_eq!(
            rates.ask(address(1 << 20, 1), true, later),
            Leave::Granted,
            "old ones make room"
        );
    }

    #[test]
    fn the_same_thing_is_said_once_in_a_while() {
        let mut said = Said::new(Duration::from_secs(30));
        let now = Instant::now();
        assert!(said.may_say("a", now) && said.may_say("b", now));
        assert!(!said.may_say("a", now + Duration::from_secs(29)));
        assert!(said.may_say("a", now + Duration::from_secs(31)));
    }

    #[test]
    fn pauses_grow_to_their_most_and_start_over() {
        let (min, max) = (Duration::from_millis(50), Duration::from_millis(500));
        let mut backoff = Backoff::new(min, max);
        let first = backoff.pause();
        assert!(first >= min / 2 && first <= min);
        for _ in 0..10 {
            assert!(backoff.pause() <= max);
        }
        assert!(backoff.pause() >= max / 2);
        backoff.reset();
        assert!(backoff.pause() <= min);
    }
}
