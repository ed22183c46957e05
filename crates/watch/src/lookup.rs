//! One name over time: waits until it is due, asks, and tells what changed.
//!
//! When it is due and which answer holds is [`portway_core::names`]'s. Deliberately absent: questions and answers on the
//! wire ([`crate::resolver`]).

use std::sync::{Arc, Mutex};
use std::time::Instant;

use portway_core::facts::{Answer, Lookup};
use portway_core::names::Resolution;

use crate::context::Context;
use crate::lock::locked;
use crate::resolver::{Kept, Resolver};
use crate::{Event, LookupReport};

/// The last answer to a lookup, which outlives the task that got it.
pub(crate) type Last = Arc<Mutex<Option<Answer>>>;

/// Asks for `lookup`, at once and then for ever.
pub(crate) async fn watch(context: Arc<Context>, lookup: Lookup, resolver: Arc<Resolver>, last: Last) {
    let mut resolution = match locked(&last).clone() {
        Some(answer) => Resolution::known(resolver.dns(), answer),
        None => Resolution::new(resolver.dns()),
    };
    let mut kept = Kept::default();
    loop {
        let place = context.lookups.acquire().await;
        let began = Instant::now();
        let (outcome, trouble) = Box::pin(resolver.resolve(&lookup, &mut kept)).await;
        drop(place);
        let at = Instant::now();
        if let Some(answer) = resolution.answered(outcome, context.moment(at)) {
            locked(&last).replace(answer.clone());
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
