//! One name over time: waits until it is due, asks, and tells what changed.
//!
//! When it is due and which answer holds is [`portway_core::names`]'s. Deliberately absent: questions and answers on the
//! wire ([`crate::resolver`]).

use std::sync::Arc;
use std::time::Instant;

use portway_core::facts::Lookup;
use portway_core::names::Resolution;
use portway_core::ruleset::Dns;

use crate::resolver::{Kept, Resolver};
use crate::thread::Context;
use crate::{Event, LookupReport};

/// Asks for `lookup`, at once and then for ever.
pub(crate) async fn watch(context: Arc<Context>, lookup: Lookup, resolver: Arc<Resolver>, dns: Dns) {
    let mut resolution = Resolution::new(&dns);
    let mut kept = Kept::default();
    loop {
        let place = context.lookups.acquire().await;
        let began = Instant::now();
        let (outcome, trouble) = Box::pin(resolver.resolve(&lookup, &mut kept)).await;
        drop(place);
        let at = Instant::now();
        if let Some(answer) = resolution.answered(outcome, context.moment(at)) {
            context.send(Event::Names { lookup: lookup.clone(), answer, at });
        }
        let next = context.instant(resolution.next(context.random.next()));
        let error = resolution.problem().map(str::to_owned).or(trouble);
        context.note(|report| {
            let asked = report.lookups.get(&lookup).map_or(0, |report| report.asked) + 1;
            report.lookups.insert(lookup.clone(), LookupReport { asked, error, took: at - began, at, next });
        });
        tokio::time::sleep_until(next.into()).await;
    }
}
