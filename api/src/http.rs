//! HTTP: one entry for every request, one file a group of endpoints.

pub mod admin;
pub mod aliases;
pub mod auth;
pub mod blobs;
pub mod body;
pub mod builds;
pub mod claims;
pub mod create;
pub mod diff;
pub mod entry;
pub mod error;
pub mod events;
pub mod history;
pub mod inspect;
pub mod lineage;
pub mod logs;
pub mod metrics;
pub mod namespaces;
pub mod openapi;
pub mod promote;
pub mod query;
pub mod reply;
pub mod request_id;
pub mod route;
pub mod tag_history;
pub mod tags;
pub mod templates;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod webhooks;

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App as Router, HttpServer, web};
use domain::causes::chain;
use tokio::net::TcpStream;

use crate::service::App;

/// How long a client may take to send the head of a request.
const REQUEST_HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long written answers have to reach their clients when the service stops, in seconds. Open
/// requests were waited for before; idle connections use up this time, too.
const LAST_BYTES_SECS: u64 = 1;

/// The service, listening on `listener`.
///
/// # Errors
/// If the listener cannot be used.
pub fn server(app: &Arc<App>, listener: TcpListener) -> io::Result<(Server, SocketAddr)> {
    let address = listener.local_addr()?;
    let limits = app.config.limits.clone();
    let data = web::Data::from(Arc::clone(app));
    let server = HttpServer::new(move || {
        Router::new()
            .app_data(data.clone())
            .default_service(web::to(entry::entry))
    })
    .on_connect(move |connection, _| give_up_unread(connection, limits.unread_answer_ms_max))
    .workers(app.config.http.workers)
    .max_connections(limits.connection_count_max)
    .keep_alive(Duration::from_secs(limits.idle_connection_secs_max))
    .client_request_timeout(REQUEST_HEAD_PATIENCE)
    .shutdown_timeout(LAST_BYTES_SECS)
    .disable_signals()
    .listen(listener)?
    .run();
    Ok((server, address))
}

/// Has the kernel close a connection whose other side takes nothing of what was sent for this long: a
/// response that cannot be written is not looked at by anybody else.
fn give_up_unread(connection: &dyn Any, after_ms: u32) {
    let Some(connection) = connection.downcast_ref::<TcpStream>() else {
        return;
    };
    if let Err(err) = rustix::net::sockopt::set_tcp_user_timeout(connection, after_ms) {
        tracing::warn!(
            error = chain(&err),
            "a connection has no bound on unread answers"
        );
    }
}

/// The operator's door, listening on `listener`.
///
/// # Errors
/// If the listener cannot be used.
pub fn admin_server(app: &Arc<App>, listener: UnixListener) -> io::Result<Server> {
    let data = web::Data::from(Arc::clone(app));
    let server = HttpServer::new(move || {
        Router::new()
            .app_data(data.clone())
            .default_service(web::to(admin::entry))
    })
    .workers(1)
    .shutdown_timeout(LAST_BYTES_SECS)
    .disable_signals()
    .listen_uds(listener)?
    .run();
    Ok(server)
}
