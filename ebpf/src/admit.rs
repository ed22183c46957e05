//! New flows: whom the client meets, by which address and port of ours, and the record of it.

use core::ffi::c_void;
use core::sync::atomic::Ordering::Relaxed;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use portway_datapath::abi::{
    Drop, Member, Persist, PersistKey, Refusal, Rule, TICKS_PER_SECOND, Tuple, choose, member_flags,
    rule_flags, state,
};
use portway_datapath::balance;
use portway_datapath::record::Flow;
use portway_datapath::table::{self, Memory};
use portway_datapath::tcp;

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::carry::is_over;
use crate::clock::ticks;
use crate::cookie;
use crate::count;
use crate::listen::listener;
use crate::maps::{MEMBERS, PERSIST, RECORDS, RULES, SLOTS, SOURCES, TURNS};
use crate::memory::{self, DONE, FULL, Maps};
use crate::packet::Packet;
use crate::parse::{Headers, Parsed, parse};
use crate::rate;
use crate::skb::Skb;

/// How many of a member's source addresses are tried, and how many ports of each, the client's own first.
const ADDRESSES: u32 = 4;
/// See [`ADDRESSES`].
const PORTS: u32 = 17;

/// What [`begin`] answers, beside a verdict: the packet has a flow now.
pub const BEGUN: i32 = 1200;

/// What [`begin`] answers, beside that: the client is to be told that nobody is there.
pub const REFUSED: i32 = 1202;

/// What [`begin`] answers, beside that: the SYN is to be answered by a cookie.
pub const COOKIE: i32 = 1203;

/// What [`admit`] answers, beside that: what was chosen is to be entered into the table.
const CHOSEN: i32 = 1201;

/// Begins the flow of a packet, if a listener waits for it.
#[inline(always)]
pub fn begin<const LINK: u32>(packet: Skb) -> i32 {
    let Some(new) = SCRATCH.get_ptr_mut(0) else { return Skb::PASS };
    // SAFETY: this processor's; programs of both hooks do not interrupt each other.
    let new: &mut New = unsafe { &mut *new };
    if !matches!(parse::<Skb, LINK>(packet, &mut new.headers), Parsed::Plain) {
        return Skb::PASS;
    }
    new.now = ticks();
    match admit(packet, new) {
        CHOSEN => enter(new),
        verdict => verdict,
    }
}

/// Chooses whom the client meets and by which address and port of ours.
#[inline(never)]
fn admit(packet: Skb, new: &mut New) -> i32 {
    let Some(maps) = Maps::open() else { return Skb::PASS };
    let now = new.now;
    let Some(listener) = listener(packet, &new.headers.tuple, maps.config()) else {
        disown(&new.headers);
        return Skb::PASS;
    };
    new.former = 0;
    new.cookie = 0;
    new.initial = 0;
    let begins_not = new.headers.tcp && !tcp::begins(new.headers.flags);
    if let Some(found) = memory::find(&new.headers.tuple) {
        let bits = found.record.state.load(Relaxed);
        if begins_not && bits & state::ENDED != 0 {
            return Skb::PASS;
        }
        if !is_over(&maps, &new.headers, found.record, bits, now) {
            // Another processor has just begun it.
            return BEGUN;
        }
        new.former = found.index.wrapping_add(1);
    }
    let id = listener.rule;
    let Some(rule) = RULES.get_ptr(&id) else { return Skb::PASS };
    // SAFETY: the map's value, which the loader replaces as a whole.
    let rule: &'static Rule = unsafe { &*rule };
    if begins_not && (rule.slots == 0 || !cookie::returned(packet, new, rule, id)) {
        return Skb::PASS;
    }
    if rule.slots == 0 {
        count::refused(id, Refusal::Empty);
        return if rule.flags & rule_flags::REFUSE != 0 { REFUSED } else { Skb::DROP };
    }
    // Of a client whose last connection is still remembered no new memory is needed.
    if new.headers.tcp
        && !begins_not
        && rule.flags & rule_flags::COOKIES != 0
        && rate::count(id, rate::Of::Syns) > rule.cookies_above
        && new.former == 0
    {
        rate::cookie_sent(id);
        count::cookie(id);
        return COOKIE;
    }
    if rule.new_flows != 0 && rate::count(id, rate::Of::Flows) > rule.new_flows {
        return refuse(id, Refusal::Rate);
    }
    let Some((chosen, member)) = live(choose(rule, id, &new.headers.tuple, now)) else {
        return refuse(id, Refusal::Empty);
    };
    new.state = if new.headers.tcp { state::SYN } else { state::UDP };
    if new.headers.tcp && rule.flags & rule_flags::TOA != 0 {
        new.state |= state::TOA;
    }
    if begins_not {
        new.state |= state::COOKIE;
    }
    if let Some(record) = maps.record(new.former.wrapping_sub(1))
        && record.member.load(Relaxed) == chosen
    {
        record.sequence.store(new.cookie, Relaxed);
        record.initial.store(new.initial, Relaxed);
        if !table::restart(record, new.state, now) {
            return drop(chosen, Drop::Race);
        }
        count::begun(chosen);
        return BEGUN;
    }
    if member.sources == 0 {
        return drop(chosen, Drop::Unreachable);
    }
    let called = u16::from_be(new.headers.tuple.destination_port);
    let port = if member.flags & member_flags::SAME_PORT != 0 {
        called
    } else if member.flags & member_flags::SHIFTED != 0 {
        member.port.wrapping_add(called.wrapping_sub(listener.first_port))
    } else {
        member.port
    };
    new.flow.client = new.headers.tuple.source;
    new.flow.listener = new.headers.tuple.destination;
    new.flow.backend = member.address;
    new.flow.client_port = new.headers.tuple.source_port;
    new.flow.listener_port = new.headers.tuple.destination_port;
    new.flow.backend_port = port.to_be();
    new.flow.member = chosen;
    new.flow.rule = id;
    new.reverse.source = member.address;
    new.reverse.source_port = port.to_be();
    new.reverse.protocol = new.headers.tuple.protocol;
    new.first_source = member.first_source;
    new.sources = member.sources;
    new.hash = balance::client_hash(new.headers.tuple.source, Some(new.headers.tuple.source_port), now);
    new.found = 0;
    search(packet, new);
    if new.found == 0 {
        return drop(chosen, Drop::NoPort);
    }
    new.flow.source = new.reverse.destination;
    new.flow.source_port = new.reverse.destination_port;
    CHOSEN
}

/// Ends what is left of a connection whose client begins anew where nobody of ours listens any more: its further segments
/// are the kernel's, as this SYN is, and must not find the former record.
#[inline(never)]
fn disown(headers: &Headers) {
    if headers.tcp
        && let Some(found) = memory::find(&headers.tuple)
    {
        found.record.state.fetch_or(state::ENDED, Relaxed);
    }
}

/// Counts a packet that would begin a flow of this member and is not carried.
#[inline(always)]
fn drop(member: u32, reason: Drop) -> i32 {
    count::dropped(member, reason);
    Skb::DROP
}

/// Counts one that meets no member.
#[inline(always)]
fn refuse(rule: u32, reason: Refusal) -> i32 {
    count::refused(rule, reason);
    Skb::DROP
}

/// Enters the flow into the table.
#[inline(never)]
fn enter(new: &New) -> i32 {
    let claimed = memory::table_claim(new.hash, new.now) as u32;
    let Some(record) = RECORDS.get(claimed) else { return drop(new.flow.member, Drop::TableFull) };
    record.fill(&new.flow, new.state, new.now);
    record.sequence.store(new.cookie, Relaxed);
    record.initial.store(new.initial, Relaxed);
    let entered = match new.former {
        0 => memory::table_publish(claimed),
        former => memory::table_replace(former - 1, claimed),
    };
    match entered {
        DONE => {
            count::begun(new.flow.member);
            BEGUN
        }
        FULL => drop(new.flow.member, Drop::TableFull),
        _ => drop(new.flow.member, Drop::Race),
    }
}

/// The id of the member that a client meets; [`NOBODY`] if there is none.
#[inline(never)]
fn choose(rule: &'static Rule, id: u32, tuple: &Tuple, now: u32) -> u32 {
    chosen(rule, id, tuple, now).unwrap_or(NOBODY)
}

/// No member's id.
const NOBODY: u32 = u32::MAX;

#[inline(always)]
fn chosen(rule: &'static Rule, id: u32, tuple: &Tuple, now: u32) -> Option<u32> {
    let key = PersistKey { client: tuple.source, rule: id, reserved: 0 };
    if rule.persist != 0
        && let Some(kept) = PERSIST.get_ptr_mut(&key)
    {
        // SAFETY: the map's value.
        let kept: &mut Persist = unsafe { &mut *kept };
        if (kept.until.wrapping_sub(now) as i32) > 0
            && let Some(found) = live(kept.member)
            && found.1.rule == id
        {
            kept.until = now.wrapping_add(rule.persist.saturating_mul(TICKS_PER_SECOND));
            return Some(found.0);
        }
    }
    let nth = match rule.choose {
        choose::IN_TURN => {
            let turn = TURNS.get_ptr_mut(id)?;
            // SAFETY: the map's value, aligned, and accessed by atomic instructions only.
            let turn = unsafe { &*turn.cast::<portway_datapath::atomic::AtomicU64>() };
            (turn.fetch_add(1, Relaxed) as u32).checked_rem(rule.slots)?
        }
        choose::SOURCE => balance::slot(balance::client_hash(tuple.source, None, rule.seed), rule.slots),
        choose::SOURCE_PORT => {
            let hash = balance::client_hash(tuple.source, Some(tuple.source_port), rule.seed);
            balance::slot(hash, rule.slots)
        }
        _ => 0,
    };
    let found = live(*SLOTS.get(rule.first_slot.wrapping_add(nth))?)?;
    if rule.persist != 0 {
        let until = now.wrapping_add(rule.persist.saturating_mul(TICKS_PER_SECOND));
        // A full map lets the oldest go: that client chooses again.
        let _ = PERSIST.insert(&key, &Persist { member: found.0, until }, 0);
    }
    Some(found.0)
}

/// A member that takes new flows.
#[inline(always)]
fn live(id: u32) -> Option<(u32, &'static Member)> {
    // SAFETY: the map's value, which the loader replaces as a whole.
    let member = unsafe { &*MEMBERS.get_ptr(&id)? };
    (member.flags & member_flags::LIVE != 0).then_some((id, member))
}

/// A flow that is to begin, and the search for an address and a port of ours for it. Too large for the stack.
pub struct New {
    /// What its record will say.
    flow: Flow,
    /// What the backend's answers will look like.
    reverse: Tuple,
    /// The packet's headers.
    pub headers: Headers,
    /// The number, plus 1, of a record that still has the client's tuple.
    former: u32,
    /// [`state`].
    state: u32,
    now: u32,
    first_source: u32,
    sources: u32,
    hash: u32,
    /// The cookie that was brought back, if one was, and the client's first sequence number.
    pub cookie: u32,
    /// See [`Self::cookie`].
    pub initial: u32,
    /// Whether the search has come to an end.
    found: u32,
}

/// One for each processor.
#[map(name = "scratch")]
static SCRATCH: PerCpuArray<New> = PerCpuArray::with_max_entries(1, 0);

/// What the body of the search's loop works with.
struct Search<'a> {
    packet: Skb,
    new: &'a mut New,
}

/// Leaves an address and a port in `reverse`, and says so in `found`. The loop is the kernel's, so that the verifier
/// follows its body only once.
#[inline(never)]
fn search(packet: Skb, new: &mut New) {
    let attempts = new.sources.min(ADDRESSES) * PORTS;
    let mut search = Search { packet, new };
    let body = attempt as unsafe extern "C" fn(u32, *mut Search<'_>) -> i64;
    // SAFETY: the function and what it is called with.
    unsafe { bpf_loop(attempts, body as *mut c_void, (&raw mut search).cast(), 0) };
}

/// The body of the search's loop: 1 ends it.
unsafe extern "C" fn attempt(nth: u32, search: *mut Search<'_>) -> i64 {
    // SAFETY: `search` passes its own.
    let search = unsafe { &mut *search };
    match suits(nth, search.new) {
        Some(true) if !is_of_host(search.packet, &search.new.reverse) => {
            search.new.found = 1;
            1
        }
        Some(_) => 0,
        None => 1,
    }
}

/// Whether nobody has the port of this attempt.
#[inline(always)]
fn suits(nth: u32, new: &mut New) -> Option<bool> {
    let maps = Maps::open()?;
    let config = maps.config();
    let start = new.hash.checked_rem(new.sources)?;
    let address = start.wrapping_add(nth / PORTS).checked_rem(new.sources)?;
    new.reverse.destination = *SOURCES.get(new.first_source.wrapping_add(address))?;
    let within = |port: u16, first: u16, last: u16| port >= first && port <= last;
    let port = if nth % PORTS == 0 {
        let port = u16::from_be(new.flow.client_port);
        if !within(port, config.first_port, config.last_port)
            && within(port, config.first_ephemeral, config.last_ephemeral)
        {
            return Some(false);
        }
        port
    } else {
        let room = u32::from(config.last_port.wrapping_sub(config.first_port)) + 1;
        let step = (new.hash >> 8).wrapping_add(nth.wrapping_mul(0x9e3b));
        config.first_port.wrapping_add(step.checked_rem(room)? as u16)
    };
    new.reverse.destination_port = port.to_be();
    // A backend that is its own client may call by the very port that it serves: the answers would look like its own packets.
    let called = &new.headers.tuple;
    let alike = new.reverse.source == called.source
        && new.reverse.destination == called.destination
        && new.reverse.ports() == called.ports();
    if port == 0 || alike {
        return Some(false);
    }
    Some(match memory::find(&new.reverse) {
        Some(other) => memory::table_reclaim(other.index, new.now) == DONE,
        None => true,
    })
}

/// Whether a socket of this host would get what `tuple` arrives with.
#[inline(always)]
fn is_of_host(packet: Skb, tuple: &Tuple) -> bool {
    /// `BPF_F_CURRENT_NETNS`.
    const HERE: u64 = u64::MAX;
    let ports = u32::from(tuple.source_port) | u32::from(tuple.destination_port) << 16;
    // `struct bpf_sock_tuple`: two addresses and the ports behind them, of either family.
    let mut words = [0u32; 9];
    let size = if tuple.source.is_ipv4() {
        words[0] = tuple.source.last_word();
        words[1] = tuple.destination.last_word();
        words[2] = ports;
        12
    } else {
        [words[0], words[1], words[2], words[3]] = tuple.source.words();
        [words[4], words[5], words[6], words[7]] = tuple.destination.words();
        words[8] = ports;
        36
    };
    let at = (&raw mut words).cast();
    // SAFETY: the context, and a tuple of the size that is said; what is found is released.
    unsafe {
        let socket = if tuple.protocol == 6 {
            bpf_skc_lookup_tcp(packet.context(), at, size, HERE, 0)
        } else {
            bpf_sk_lookup_udp(packet.context(), at, size, HERE, 0)
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
        true
    }
}
