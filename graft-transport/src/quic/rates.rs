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
#[derive(Debug)]
pub(super) struct Rates {
    per_second: u32,
    burst: u32,
    buckets: HashMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    filled: Instant,
}

impl Rates {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, buckets: HashMap::new() }
    }

    /// Whether `address` may begin another handshake now.
    pub(super) fn allow(&mut self, address: IpAddr, now: Instant) -> bool {
        let (rate, burst) = (f64::from(self.per_second), f64::from(self.burst));
        let address = origin(address);
        if !self.buckets.contains_key(&address) && self.buckets.len() >= MAX_ADDRESSES {
            self.buckets.retain(|_, bucket| bucket.fill(rate, burst, now) < burst);
            if self.buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let bucket =
            self.buckets.entry(address).or_insert_with(|| Bucket { left: burst, filled: now });
        let allowed = bucket.fill(rate, burst, now) >= 1.0;
        if allowed {
            bucket.left -= 1.0;
        }
        allowed
    }
}

impl Bucket {
    fn fill(&mut self, rate: f64, burst: f64, now: Instant) -> f64 {
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

    #[test]
    fn an_address_gets_its_burst_and_then_its_rate() {
        let mut rates = Rates::new(10, 5);
        let start = Instant::now();
        let address: IpAddr = [127, 0, 0, 1].into();
        let count = |rates: &mut Rates, address, now| {
            (0..100).filter(|_| rates.allow(address, now)).count()
        };
        assert_eq!(count(&mut rates, address, start), 5);
        assert_eq!(count(&mut rates, address, start + Duration::from_millis(350)), 3);
        assert_eq!(count(&mut rates, address, start + Duration::from_secs(60)), 5);
        assert_eq!(count(&mut rates, [127, 0, 0, 2].into(), start), 5, "others have their own");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_the_memory_is_bounded() {
        let mut rates = Rates::new(1, 1);
        let now = Instant::now();
        let address = |network: u128, host: u128| {
            IpAddr::V6(Ipv6Addr::from_bits(((0x2001_0db8 << 96) | network << 64) + host))
        };
        assert!(rates.allow(address(1, 1), now));
        assert!(!rates.allow(address(1, 2), now));
        let allowed = (0..10_000).filter(|network| rates.allow(address(*network, 1), now)).count();
        assert!(allowed <= MAX_ADDRESSES && rates.buckets.len() <= MAX_ADDRESSES);
        assert!(
            rates.allow(address(1 << 20, 1), now + Duration::from_secs(2)),
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
