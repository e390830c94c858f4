//! Runs every case against the broker at HOST PORT and reports one line per case.

mod consuming;
mod content;
mod failures;
mod proxy;
mod publishing;
mod scope;
mod support;
mod topology;
mod tutorials;

use futures_lite::FutureExt;
use scope::Scope;
use std::{
    any::Any,
    panic::AssertUnwindSafe,
    process::ExitCode,
    time::{Duration, Instant},
};
use support::{Error, Outcome};
use tokio::time::timeout;

const CASE_LIMIT: Duration = Duration::from_secs(20);
const TOTAL_LIMIT: Duration = Duration::from_secs(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(host), Some(port), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: run HOST PORT");
        return ExitCode::from(2);
    };
    let address = format!("{host}:{port}");

    let end = Instant::now() + TOTAL_LIMIT;
    let (mut passed, mut failed) = (0, 0);
    macro_rules! case {
        ($name:literal, $body:path) => {
            let scope = Scope::new(&address, $name);
            let limit = CASE_LIMIT.min(end.saturating_duration_since(Instant::now()));
            let result = match timeout(limit, AssertUnwindSafe($body(&scope)).catch_unwind()).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => Err(message(panic).into()),
                Err(_) => Err("not done within its time limit".into()),
            };
            match result.and(clean_up(&scope).await) {
                Ok(()) => {
                    passed += 1;
                    println!("ok {}", $name);
                }
                Err(error) => {
                    failed += 1;
                    let reason = error.to_string();
                    println!("FAIL {}: {}", $name, reason.split_whitespace().collect::<Vec<_>>().join(" "));
                }
            }
        };
    }
    case!("publish_confirms", publishing::publish_confirms);
    case!("consume_acks", consuming::consume_acks);
    case!("prefetch", consuming::prefetch);
    case!("get", consuming::get);
    case!("reject_requeue", consuming::reject_requeue);
    case!("returns", publishing::returns);
    case!("exclusive_auto_delete", topology::exclusive_auto_delete);
    case!("tables", content::tables);
    case!("exchanges", topology::exchanges);
    case!("large_message", content::large_message);
    case!("errors", failures::errors);
    case!("transactions", publishing::transactions);
    case!("reconnect", failures::reconnect);
    case!("tutorials", tutorials::all);
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn clean_up(scope: &Scope) -> Outcome {
    timeout(Duration::from_secs(5), scope.clean_up())
        .await
        .map_err(|_| Error::from("the broker objects could not be deleted in time"))?
}

/// The text of a failed assertion.
fn message(payload: Box<dyn Any + Send>) -> String {
    match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => text.to_string(),
        _ => "panic".into(),
    }
}
