//! Events: subscriptions to the caller's part of the log, and the trail of one build.

mod batch;
mod feed;
mod question;
mod trail;

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::HeaderMap;

pub use trail::trail;

use super::error::ApiError;
use super::query::Parameters;
use super::{logs, reply};
use crate::service::App;
use crate::service::keys::Caller;
use feed::{Bounds, Subscription};
use question::{Answer, Question};

/// `GET /v1/events`: the caller's events behind a position, as a stream of server-sent events; with
/// `follow`, also those that are to come. As a batch of CloudEvents if that is what is asked for.
///
/// # Errors
/// [`ApiError::Invalid`], naming the parameter or header; [`ApiError::Busy`].
pub async fn get(
    app: &Arc<App>,
    caller: &Caller,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let head = app.pages.head();
    let question = Question::read(caller, headers, parameters, head)?;
    match question.answer {
        Answer::Batch { count_max } => batch::answer(app, question, count_max, head).await,
        Answer::Stream { form, follow } => {
            let limits = &app.config.limits;
            let room = logs::room(app)?;
            let subscription = Subscription {
                pages: app.pages.clone(),
                filter: question.filter,
                form,
                from: question.from,
                until: (!follow).then_some(head),
                bounds: Bounds {
                    keepalive: Duration::from_millis(limits.keepalive_ms),
                    patience: Duration::from_millis(limits.slow_reader_ms_max),
                    frame_count_max: limits.event_queue_count_max,
                },
                stopping: app.stopping.clone(),
            };
            let frames = feed::open(subscription, (room, app.open.token()));
            Ok(reply::event_stream(frames))
        }
    }
}
