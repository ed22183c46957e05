//! A hashed timer wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987, scheme 6).
//!
//! Pure: time is an argument, in milliseconds since a start of the caller's choice. One timer per key, keys
//! are slab indices. Insert, move and remove are O(1) and allocate only when a key is larger than any before.
//! Deliberately coarse: a timer fires up to one tick (64 ms) late, never early. Deliberately lazy: callers do
//! not move a timer on every byte, they let it fire, look whether the flow has been quiet and set it again.

/// Milliseconds per slot.
const TICK: u64 = 64;
/// Slots; one turn of the wheel is 262 s, later deadlines wait in their slot for further turns.
const SLOTS: usize = 4096;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    previous: u32,
    /// The tick it is due, or 0 for a key that has no timer.
    due: u64,
}

/// The wheel.
pub struct Wheel {
    heads: Box<[u32; SLOTS]>,
    /// One bit per slot that is not empty, so that finding the next deadline costs at most 64 loads.
    occupied: [u64; SLOTS / 64],
    nodes: Vec<Node>,
    /// The last tick that was fired.
    current: u64,
}

impl Wheel {
    /// An empty wheel at time 0.
    pub fn new() -> Self {
        Self { heads: Box::new([NONE; SLOTS]), occupied: [0; SLOTS / 64], nodes: Vec::new(), current: 0 }
    }

    /// Sets the timer of `key` to `deadline`, replacing an earlier one.
    pub fn set(&mut self, key: u32, deadline: u64) {
        self.remove(key);
        let index = key as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Node { next: NONE, previous: NONE, due: 0 });
        }
        let due = deadline.div_ceil(TICK).max(self.current + 1);
        let slot = due as usize % SLOTS;
        let head = self.heads[slot];
        self.nodes[index] = Node { next: head, previous: NONE, due };
        if head != NONE {
            self.nodes[head as usize].previous = key;
        }
        self.heads[slot] = key;
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// Removes the timer of `key`, if there is one.
    pub fn remove(&mut self, key: u32) {
        let Some(node) = self.nodes.get_mut(key as usize) else { return };
        let Node { next, previous, due } = *node;
        if due == 0 {
            return;
        }
        node.due = 0;
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
            return;
        }
        let slot = due as usize % SLOTS;
        self.heads[slot] = next;
        if next == NONE {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }

    /// Milliseconds from `now` until the next slot that holds a timer, at most one turn of the wheel; `None`
    /// when there is no timer.
    pub fn next(&self, now: u64) -> Option<u64> {
        let first = (self.current + 1) as usize % SLOTS;
        let word = |step: usize| {
            let index = (first / 64 + step) % self.occupied.len();
            let keep = match step {
                0 => u64::MAX << (first % 64),
                64 => !(u64::MAX << (first % 64)),
                _ => u64::MAX,
            };
            (index, self.occupied[index] & keep)
        };
        let (index, bits) = (0..=self.occupied.len()).map(word).find(|(_, bits)| *bits != 0)?;
        let slot = index * 64 + bits.trailing_zeros() as usize;
        let ticks = (slot + SLOTS - first) % SLOTS + 1;
        Some(((self.current + ticks as u64) * TICK).saturating_sub(now))
    }

    /// Moves to `now` and appends the keys whose timers are due to `fired`; they have no timer afterwards.
    pub fn advance(&mut self, now: u64, fired: &mut Vec<u32>) {
        let until = now / TICK;
        // After a long sleep every slot needs one look, not one per turn that was missed.
        let from = self.current.max(until.saturating_sub(SLOTS as u64));
        for tick in from + 1..=until {
            let slot = tick as usize % SLOTS;
            if self.occupied[slot / 64] & 1 << (slot % 64) == 0 {
                continue;
            }
            let mut key = self.heads[slot];
            while key != NONE {
                let node = self.nodes[key as usize];
                if node.due <= until {
                    self.remove(key);
                    fired.push(key);
                }
                key = node.next;
            }
        }
        self.current = self.current.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut keys = Vec::new();
        wheel.advance(now, &mut keys);
        keys.sort_unstable();
        keys
    }

    #[test]
    fn fires_late_by_at_most_a_tick_and_never_early() {
        let mut wheel = Wheel::new();
        wheel.set(3, 1000);
        assert!(fired(&mut wheel, 999).is_empty());
        assert_eq!(fired(&mut wheel, 1000 + TICK), [3]);
        assert!(fired(&mut wheel, 5000).is_empty());
        assert_eq!(wheel.next(5000), None);
    }

    #[test]
    fn many_turns_ahead() {
        let mut wheel = Wheel::new();
        let far = TICK * SLOTS as u64 * 3 + 500;
        wheel.set(0, far);
        let mut now = 0;
        while let Some(wait) = wheel.next(now) {
            assert!(wait <= TICK * SLOTS as u64);
            now += wait.max(1);
            if !fired(&mut wheel, now).is_empty() {
                break;
            }
        }
        assert!((far..=far + TICK).contains(&now), "{now}");
    }

    #[test]
    fn a_long_sleep_fires_everything_once() {
        let mut wheel = Wheel::new();
        for key in 0..1000 {
            wheel.set(key, u64::from(key) * 700);
        }
        assert_eq!(fired(&mut wheel, 100_000_000).len(), 1000);
        assert!(fired(&mut wheel, 200_000_000).is_empty());
    }

    #[test]
    fn agrees_with_a_model() {
        // A linear congruential generator, so that a failure repeats.
        let mut seed = 1u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        let mut wheel = Wheel::new();
        let mut model = std::collections::BTreeMap::new();
        let mut now = 0;
        for _ in 0..20_000 {
            let key = random(64) as u32;
            match random(4) {
                0 | 1 => {
                    let deadline = now + random(600_000);
                    wheel.set(key, deadline);
                    model.insert(key, deadline);
                }
                2 => {
                    wheel.remove(key);
                    model.remove(&key);
                }
                _ => {
                    now += random(3000);
                    let early: Vec<u32> =
                        model.iter().filter(|(_, d)| **d + TICK <= now).map(|(k, _)| *k).collect();
                    let keys = fired(&mut wheel, now);
                    assert!(early.iter().all(|k| keys.contains(k)), "overdue");
                    for key in keys {
                        assert!(model.remove(&key).expect("fired once") <= now, "early");
                    }
                }
            }
            assert_eq!(wheel.next(now).is_none(), model.is_empty());
        }
    }
}
