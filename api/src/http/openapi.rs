//! `GET /openapi.json`: the service describes itself.
//!
//! `operations` has one entry for each route and method, and `schemas/*.json` what travels. Neither
//! is trusted: tests compare the entries with the route table in both directions, the whole with the
//! published contract, and every answer that other tests get with the schemas.

mod operation;
mod operations;
#[cfg(test)]
pub(super) mod tests;

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::{Map, Value, json};

use super::reply;
use operation::Operation;

/// What travels, by noun. Each file is an object of schemas by name.
const SCHEMAS: [&str; 14] = [
    include_str!("openapi/schemas/blobs.json"),
    include_str!("openapi/schemas/builds.json"),
    include_str!("openapi/schemas/errors.json"),
    include_str!("openapi/schemas/events.json"),
    include_str!("openapi/schemas/lineage.json"),
    include_str!("openapi/schemas/logs.json"),
    include_str!("openapi/schemas/names.json"),
    include_str!("openapi/schemas/plans.json"),
    include_str!("openapi/schemas/requests.json"),
    include_str!("openapi/schemas/secrets.json"),
    include_str!("openapi/schemas/service.json"),
    include_str!("openapi/schemas/steps.json"),
    include_str!("openapi/schemas/templates.json"),
    include_str!("openapi/schemas/webhooks.json"),
];

/// What refusals mean.
const REFUSALS: [(u16, &str); 12] = [
    (400, "The request is wrong, or what it asked to build is"),
    (401, "No key, or one that opens nothing"),
    (403, "The key may not do this"),
    (404, "There is no such thing, or it is somebody else's"),
    (405, "The path does not take this method"),
    (408, "The body did not arrive"),
    (409, "Something else is in the way"),
    (413, "Something is larger than allowed"),
    (429, "Too much was asked for"),
    (500, "The service has failed"),
    (501, "This version cannot do it"),
    (
        503,
        "Something that is needed is not there, or too much is under way",
    ),
];

static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| document().to_string().into_bytes());

/// The description, an OpenAPI 3.1 document. It is the same for everybody.
pub fn get() -> HttpResponse {
    reply::json_bytes(StatusCode::OK, DOCUMENT.clone())
}

fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Nullspace Build",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Turns template definitions into root file systems and snapshots of machines.",
            "description": "Values that are not there are left out of answers, never null, and answers \
                may have more keys than are named here. A template is named by `name`, `name:tag`, \
                `name:tb_…` (one exact build), any of these behind `namespace/`, or `tmpl_…`; in a path \
                it is one segment, with `/` as `%2F`, though an unescaped `/` is understood.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearerAuth": []}],
        "tags": operation::tags(),
        "paths": paths(&operations::all()),
        "components": {
            "securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}},
            "headers": headers(),
            "responses": refusals(),
            "schemas": schemas(),
        },
    })
}

fn paths(operations: &[Operation]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let path = paths
            .entry(operation.path.as_str())
            .or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(operation.method.to_ascii_lowercase(), operation.to_json());
        }
    }
    Value::Object(paths)
}

fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The request, as the service's own log names it.",
            "required": true,
            "schema": {"type": "string"},
        },
        "RetryAfter": {
            "description": "In how many seconds to try again.",
            "schema": {"type": "string", "pattern": "^[0-9]+([.][0-9]+)?$"},
        },
    })
}

fn refusals() -> Value {
    let refusals = REFUSALS.iter().map(|(status, description)| {
        let header = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
        let mut headers = Map::from_iter([("x-request-id".to_owned(), header("RequestId"))]);
        if matches!(status, 429 | 503) {
            headers.insert("Retry-After".to_owned(), header("RetryAfter"));
        }
        let refusal = json!({
            "description": description,
            "headers": headers,
            "content": {"application/json": {"schema": operation::schema("ErrorResponse")}},
        });
        (operation::refusal_name(*status), refusal)
    });
    Value::Object(refusals.collect())
}

/// The schemas.
///
/// # Panics
/// If a file is no JSON object, which a test would have found.
fn schemas() -> Value {
    let mut schemas = Map::new();
    for text in SCHEMAS {
        let file: Map<String, Value> =
            serde_json::from_str(text).expect("the files of schemas are JSON objects");
        schemas.extend(file);
    }
    Value::Object(schemas)
}
