//! Routes that a session has found and may use again.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_types::session::{RecordedRoute, Route, RouteGeneration, RouteRequest};
use warren_types::{AmqpError, QueueRef};

use crate::auth::{Access, Resource};
use crate::place::Place;
use crate::queue_arguments::TIME_MS_MAX;

/// The queues for (exchange, routing key) pairs. A hit also means that the user may write to the exchange, and
/// that it exists and takes messages from clients: all that is in the generation.
#[derive(Debug, Default)]
pub(crate) struct RouteCache {
    generation: u64,
    routes: HashMap<Box<[u8]>, Arc<[QueueRef]>, RandomState>,
    key: Vec<u8>,
    found: Vec<QueueRef>,
}

impl RouteCache {
    /// Most routes remembered; beyond, all are forgotten at once.
    const ROUTES_MAX: usize = 4096;

    /// Finds the queues for a message, checking what `basic.publish` must check, in RabbitMQ's order
    /// (features.md M14). The virtual host was of this generation before the place's permissions were looked up.
    pub(crate) fn find(
        &mut self,
        place: &Place,
        generation: u64,
        request: &RouteRequest<'_>,
    ) -> Result<(Route, Option<RouteGeneration>), AmqpError> {
        if generation != self.generation || self.routes.len() >= Self::ROUTES_MAX {
            self.routes.clear();
            self.generation = generation;
        }
        self.key.clear();
        self.key.push(request.exchange.len() as u8);
        self.key.extend_from_slice(request.exchange);
        self.key.extend_from_slice(request.routing_key);
        let known =
            if request.extra_keys.is_empty() { self.routes.get(&self.key[..]).cloned() } else { None };
        if known.is_none() {
            check_exchange(place, request.exchange)?;
        }
        check_properties(place, request)?;
        match known {
            Some(queues) => Ok((Route::Queues(queues), Some(RouteGeneration(self.generation)))),
            None => self.search(place, request),
        }
    }

    fn search(
        &mut self,
        place: &Place,
        request: &RouteRequest<'_>,
    ) -> Result<(Route, Option<RouteGeneration>), AmqpError> {
        self.found.clear();
        let (single, several);
        let keys: &[&[u8]] = if request.extra_keys.is_empty() {
            single = [request.routing_key];
            &single
        } else {
            several = [&[request.routing_key], request.extra_keys].concat();
            &several
        };
        let routed = place
            .vhost
            .read()
            .router
            .route(request.exchange, keys, request.content, &mut self.found)
            .ok_or_else(|| place.not_found(Resource::Exchange(request.exchange)))?;
        let queues: Arc<[QueueRef]> = Arc::from(&self.found[..]);
        if !routed.histories.is_empty() {
            let recorded = RecordedRoute { queues, histories: routed.histories };
            return Ok((Route::Recorded(Box::new(recorded)), None));
        }
        if !routed.cacheable || !request.extra_keys.is_empty() {
            return Ok((Route::Queues(queues), None));
        }
        self.routes.insert(Box::from(&self.key[..]), Arc::clone(&queues));
        Ok((Route::Queues(queues), Some(RouteGeneration(self.generation))))
    }
}

fn check_exchange(place: &Place, exchange: &[u8]) -> Result<(), AmqpError> {
    let resource = Resource::Exchange(exchange);
    place.check(Access::Write, resource)?;
    let tables = place.vhost.read();
    let definition = tables.router.exchange(exchange).ok_or_else(|| place.not_found(resource))?;
    if definition.internal {
        let label = place.label(resource);
        return Err(AmqpError::access_refused(format!("cannot publish to internal {label}")));
    }
    Ok(())
}

fn check_properties(place: &Place, request: &RouteRequest<'_>) -> Result<(), AmqpError> {
    if let Some(expiration) = request.expiration {
        check_expiration(expiration)?;
    }
    match request.user_id {
        Some(claimed) if claimed != place.user.name.as_bytes() && !place.user.is_impersonator() => {
            Err(AmqpError::precondition_failed(format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(claimed),
                place.user.name
            )))
        }
        _ => Ok(()),
    }
}

/// A decimal number of milliseconds (`rabbit_basic:parse_expiration/1`).
fn check_expiration(text: &[u8]) -> Result<(), AmqpError> {
    let shown = String::from_utf8_lossy(text);
    let refuse =
        |cause: String| Err(AmqpError::precondition_failed(format!("invalid expiration '{shown}': {cause}")));
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let digits = text[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return refuse("no_integer".into());
    }
    let (number, rest) = shown.split_at(sign + digits);
    if !rest.is_empty() {
        return refuse(format!("{{leftover_string,\"{rest}\"}}"));
    }
    match number.parse::<i128>() {
        Ok(value) if value < 0 => refuse(format!("{{value_negative,{value}}}")),
        Ok(value) if value <= TIME_MS_MAX.into() => Ok(()),
        _ => refuse(format!("{{value_too_large,{}}}", number.trim_start_matches('+'))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations() {
        let cause = |text: &str| {
            check_expiration(text.as_bytes())
                .map_err(|error| error.explanation.rsplit(": ").next().unwrap_or_default().to_owned())
        };
        assert_eq!(cause("0"), Ok(()));
        assert_eq!(cause("315360000000"), Ok(()));
        assert_eq!(cause("315360000001"), Err("{value_too_large,315360000001}".into()));
        assert_eq!(cause("-1"), Err("{value_negative,-1}".into()));
        assert_eq!(cause(""), Err("no_integer".into()));
        assert_eq!(cause("soon"), Err("no_integer".into()));
        assert_eq!(cause("10s"), Err("{leftover_string,\"s\"}".into()));
    }
}
