//! One probe over time: waits until its check is due, makes it, and tells what changed.
//!
//! When it is due and what follows from its outcome is [`portway_core::health`]'s. Deliberately absent: how a check is
//! made ([`crate::socket`], [`crate::command`]).

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use portway_core::check::{Conversation, Pattern};
use portway_core::facts::Probe;
use portway_core::health::{Monitor, Outcome};
use portway_core::ruleset::{Check, CheckKind};
use tokio::sync::OwnedSemaphorePermit;

use crate::context::Context;
use crate::fault::{Fault, Made};
use crate::tls::Version;
use crate::{Event, ProbeReport, command, socket};

/// Makes the checks of `probe`, the first after `delay`, for ever.
pub(crate) async fn watch(
    context: Arc<Context>,
    probe: Probe,
    pattern: Result<Option<Pattern>, String>,
    delay: Duration,
) {
    let mut monitor = Monitor::new(Arc::clone(&probe.check));
    let mut due = Instant::now() + delay;
    loop {
        tokio::time::sleep_until(due.into()).await;
        // Queued while there are too many: the time limit and the schedule count from the start of the check.
        let places = match probe.check.kind {
            CheckKind::Command { .. } => &context.commands,
            _ => &context.checks,
        };
        let place =
            Arc::clone(places).acquire_owned().await.expect("invariant: the semaphores are never closed");
        let began = Instant::now();
        // Boxed, so that ten thousand probes that wait are small.
        let made = caught(Box::pin(check(&context, &probe, &pattern, place))).await;
        let ended = Instant::now();
        note(&context, &probe, &made, ended - began, ended);
        let outcome = match made {
            Ok(words) => Some(Outcome::Passed(words)),
            Err(Fault::Failed(words)) => Some(Outcome::Failed(words)),
            Err(Fault::NotMade(_)) => None,
        };
        let changed = outcome.and_then(|outcome| monitor.observe(outcome, context.moment(ended)));
        if let (Some(_), Some(health)) = (changed, monitor.verdict()) {
            context.send(Event::Health { probe: probe.clone(), health: health.clone(), at: ended });
        }
        due = context.instant(monitor.next(context.moment(began), context.random.next()));
    }
}

/// A check that panics was not made. Without this its probe would never be judged again, and nobody would know.
async fn caught(mut check: Pin<Box<impl Future<Output = Made>>>) -> Made {
    poll_fn(|task| match catch_unwind(AssertUnwindSafe(|| check.as_mut().poll(task))) {
        Ok(poll) => poll,
        Err(_) => Poll::Ready(Err(Fault::NotMade("a fault of the check itself".to_owned()))),
    })
    .await
}

fn note(context: &Context, probe: &Probe, made: &Made, took: Duration, at: Instant) {
    let (passed, outcome) = match made {
        Ok(words) => (Some(true), words),
        Err(Fault::Failed(words)) => (Some(false), words),
        Err(Fault::NotMade(words)) => (None, words),
    };
    context.note(|report| {
        let checks = report.probes.get(probe).map_or(0, |report| report.checks) + 1;
        let last = ProbeReport { checks, passed, outcome: outcome.clone(), took, at };
        report.probes.insert(probe.clone(), last);
    });
}

/// Makes one check, which ends in time, in its `place` among those at the same time.
async fn check(
    context: &Context,
    probe: &Probe,
    pattern: &Result<Option<Pattern>, String>,
    place: OwnedSemaphorePermit,
) -> Made {
    let Check { kind, timeout, source, .. } = &*probe.check;
    let pattern = pattern.as_ref().map_err(|error| Fault::Failed(error.clone()))?;
    if let CheckKind::Command { words } = kind {
        return command::check(place, words, probe.address, *timeout).await;
    }
    let deadline = tokio::time::Instant::now() + *timeout;
    let conversation = Conversation::new(probe, pattern.as_ref(), context.random.next());
    match (kind, conversation) {
        (CheckKind::Dns { .. } | CheckKind::Udp { .. }, Some(conversation)) => {
            socket::datagrams(probe.address, *source, conversation, deadline).await
        }
        (CheckKind::Tls(tls) | CheckKind::Http { tls: Some(tls), .. }, conversation) => {
            let stream = socket::connect(probe.address, *source, deadline).await?;
            let client = context.tls.client(tls, probe.host.as_ref(), probe.address, conversation.is_some());
            let stream = client.handshake(stream, deadline).await?;
            match conversation {
                Some(conversation) => socket::converse(stream, conversation, deadline).await,
                None => {
                    let words = format!("handshake done, {}", stream.version());
                    socket::close(stream, &[], deadline).await;
                    Ok(words)
                }
            }
        }
        (_, Some(conversation)) => {
            let stream = socket::connect(probe.address, *source, deadline).await?;
            socket::converse(stream, conversation, deadline).await
        }
        (_, None) => {
            let stream = socket::connect(probe.address, *source, deadline).await?;
            // By a reset: nothing was said that could be lost, and no socket stays behind for a minute.
            _ = stream.set_zero_linger();
            Ok("connected".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_panics_was_not_made() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let made = runtime.block_on(caught(Box::pin(async { panic!("a test of a panic") })));
        assert_eq!(made, Err(Fault::NotMade("a fault of the check itself".into())));
    }
}
