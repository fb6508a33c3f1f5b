//! Every operation, in the order of the route table.

mod events;
mod webhooks;

use serde_json::{Value, json};

use super::operation::{Operation, Tag, operation, schema};
use crate::http::terms;
use crate::limits::{PAGE_BUILD_COUNT_DEFAULT, PAGE_BUILD_COUNT_MAX};

/// All of them.
pub(super) fn all() -> Vec<Operation> {
    [
        service(),
        builds(),
        events::all(),
        lineages(),
        inspections(),
        blobs(),
        names(),
        templates(),
        webhooks::webhooks(),
    ]
    .concat()
}

fn service() -> Vec<Operation> {
    let get = |path, id, summary| operation(Tag::Service, "GET", path, id, summary);
    let head = |path, id, summary| operation(Tag::Service, "HEAD", path, id, summary);
    let up = schema("HealthStatus");
    vec![
        get("/healthz", "healthCheck", "Whether the process answers")
            .public()
            .answers(200, "It does", &up),
        head("/healthz", "healthCheckHead", "Whether the process answers")
            .public()
            .answers(200, "It does", &up),
        get("/readyz", "readyCheck", "Whether builds can begin")
            .public()
            .answers(200, "They can", &up),
        head("/readyz", "readyCheckHead", "Whether builds can begin")
            .public()
            .answers(200, "They can", &up),
        get("/openapi.json", "getOpenApi", "This description")
            .public()
            .answers(200, "OpenAPI 3.1", &json!({"type": "object"})),
        get("/metrics", "getMetrics", "Figures about the service")
            .answers_text("OpenMetrics", "application/openmetrics-text"),
        get(
            "/v1/machines",
            "listMachinesProbe",
            "Nothing, for whoever wants to know whether a key is good",
        )
        .query("limit", &json!({"type": "integer"}), "Means nothing.")
        .answers(
            200,
            "An empty list",
            &json!({"type": "array", "items": {"type": "object"}}),
        ),
    ]
}

/// What is said of `at`.
const AT: &str = "The answer as it was then: at a position that this service gave, or at a time as \
    in RFC 3339, which means the last event not later than that. 404 if it was not there yet; 400 if \
    it lies behind the last event or in the future.";

/// A moment of the past.
fn moment() -> Value {
    json!({"anyOf": [
        {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        {"type": "string", "format": "date-time"},
    ]})
}

fn builds() -> Vec<Operation> {
    let get = |path, id, summary| operation(Tag::Builds, "GET", path, id, summary);
    let post = |path, id, summary| operation(Tag::Builds, "POST", path, id, summary);
    let offset = json!({"type": "integer", "minimum": 0});
    vec![
        post("/v1/templates", "createTemplate", "Build, and wait for the end")
            .about(
                "Nothing is sent before the build is over, so that a proxy or a client may lose \
                 patience; the build goes on all the same. After half an hour (a setting) the answer \
                 is 503 with the build's id. A build that fails is refused with its own \
                 `error_detail`: 400 if the definition is to blame, 503 if another try may succeed.",
            )
            .deprecated()
            .body("CreateTemplateRequest")
            .answers(201, "The template", &schema("TemplateInfo"))
            .refuses(&[404, 409]),
        joinable(post("/v1/templates/build", "buildTemplate", "Build, and follow the log")
            .about("A client that goes away does not stop the build.")
            .body("CreateTemplateRequest")
            .streams("TemplateBuildLogEntry")
            .refuses(&[404, 409])),
        joinable(post("/v1/templates/builds", "startTemplateBuild", "Build in the background")
            .body("CreateTemplateRequest")
            .answers(202, "The build, which waits", &schema("TemplateBuild"))
            .refuses(&[404, 409])),
        get("/v1/templates/builds/{build_id}", "getTemplateBuildStatus", "A build and its log")
            .query("offset", &offset, "Entries from this one on; 0 if nothing is said.")
            .query("at", &moment(), AT)
            .answers(200, "The build", &schema("TemplateBuildStatusSnapshot"))
            .refuses(&[404]),
        get("/v1/templates/builds/{build_id}/logs", "streamTemplateBuildLogs", "The log of a build")
            .query("offset", &offset, "Entries from this one on; 0 if nothing is said.")
            .query("cursor", &offset, "The same as `offset`, and wins over it.")
            .query(
                "follow",
                &json!({"type": "boolean", "default": false}),
                "Wait for further entries until the build is over.",
            )
            .streams("TemplateBuildLogEntry")
            .refuses(&[404]),
        post("/v1/templates/builds/{build_id}/cancel", "cancelTemplateBuild", "Stop a build")
            .about("A build that is over stays as it is.")
            .optional_body("CancelTemplateBuildRequest")
            .answers(200, "The build", &schema("TemplateBuildStatusSnapshot"))
            .refuses(&[404, 409]),
        repeatable(post("/v1/templates/builds/{build_id}/retry", "retryTemplateBuild", "Build again")
            .about("Builds the stored definition of a build that is over, as a new build.")
            .optional_body("RetryTemplateBuildRequest")
            .answers(202, "The new build", &schema("TemplateBuild"))
            .refuses(&[404, 409])),
        post("/v1/templates/builds/{build_id}/promote", "promoteTemplateBuild", "Move tags to a build")
            .about("The build must be ready.")
            .body("PromoteTemplateBuildRequest")
            .answers(200, "The template", &schema("TemplateInfo"))
            .refuses(&[404, 409]),
    ]
}

fn lineages() -> Vec<Operation> {
    let get = |below: &str, id, summary| {
        let path = format!("/v1/templates/builds/{{build_id}}/{below}");
        operation(Tag::Builds, "GET", &path, id, summary).refuses(&[404])
    };
    vec![
        get(
            "lineage",
            "getTemplateBuildLineage",
            "The builds that a build repeats, and those that repeat it",
        )
        .answers(200, "The line", &schema("TemplateBuildLineage")),
        get(
            "diff",
            "diffTemplateBuilds",
            "What differs between two builds",
        )
        .about(
            "Of the caller's own builds, in any state. Values of variables are compared and not \
                 told.",
        )
        .needs_query("with", &json!({"type": "string"}), "The other build.")
        .answers(200, "Both, side by side", &schema("TemplateBuildDiff")),
        get(
            "timeline",
            "getTemplateBuildTimeline",
            "Where the time of a build went",
        )
        .about("Of a build that is not over, up to the moment of the answer.")
        .answers(200, "The timeline", &schema("TemplateBuildTimeline")),
    ]
}

/// It is done once for each key.
fn repeatable(operation: Operation) -> Operation {
    operation
        .header(
            terms::KEY,
            "A text of the caller's own, up to 255 visible ASCII characters. For 24 hours (a setting), \
             the same request with the same key is answered with the same build, and another request \
             with it is a conflict. Values of secrets do not count as part of a request.",
        )
        .answers_with_header(
            "Idempotency-Replayed",
            "`true` if the build is that of an earlier request with the same key.",
        )
}

/// It may be answered with a build that is under way.
fn joinable(operation: Operation) -> Operation {
    repeatable(operation)
        .header(
            terms::PREFER,
            "`single-flight`: a build of the caller that is under way will do, if definition, base, \
             name and tags are the same. Means nothing beside an idempotency key, for requests with \
             secret values or credentials, and without a name.",
        )
        .answers_with_header(
            "Preference-Applied",
            "`single-flight` if the build was under way for another request.",
        )
}

fn inspections() -> Vec<Operation> {
    const NOTHING_IS_KEPT: &str = "Nothing is recorded, and no file is kept. Contents may come \
        inline: the body may be as large as the largest context in base64.";
    let post = |path, id, summary| operation(Tag::Builds, "POST", path, id, summary);
    vec![
        post(
            "/v1/templates/validate",
            "validateTemplateBuild",
            "Whether a build would be accepted",
        )
        .about(NOTHING_IS_KEPT)
        .body("CreateTemplateRequest")
        .answers(
            200,
            "Whether it would be; any JSON object is answered so",
            &schema("TemplateBuildValidationResponse"),
        ),
        post(
            "/v1/templates/plan",
            "planTemplateBuild",
            "What a request would build",
        )
        .about(NOTHING_IS_KEPT)
        .body("CreateTemplateRequest")
        .answers(200, "The plan", &schema("TemplateBuildPlanResponse"))
        .refuses(&[404]),
    ]
}

fn blobs() -> Vec<Operation> {
    vec![
        operation(
            Tag::Blobs,
            "POST",
            "/v1/templates/blobs/preflight",
            "preflightTemplateBlobs",
            "Which files have to be sent",
        )
        .body("TemplateBlobPreflightRequest")
        .answers(
            200,
            "One result for each file",
            &schema("TemplateBlobPreflightResponse"),
        ),
        operation(
            Tag::Blobs,
            "PUT",
            "/v1/templates/blobs/{blob_id}",
            "uploadTemplateBlob",
            "Send a file",
        )
        .bytes_body()
        .answers_empty("It has arrived as it was announced")
        .refuses(&[404]),
    ]
}

fn names() -> Vec<Operation> {
    vec![
        operation(
            Tag::Names,
            "POST",
            "/v1/templates/claims",
            "reserveTemplateName",
            "Keep a name for a template to come",
        )
        .body("ReserveTemplateNameRequest")
        .answers(201, "It is kept", &schema("TemplateNameClaim"))
        .refuses(&[409]),
        operation(
            Tag::Names,
            "DELETE",
            "/v1/templates/claims/{claim_token}",
            "releaseTemplateNameClaim",
            "Let a name go",
        )
        .answers_empty("Others may have it")
        .refuses(&[404, 409]),
        operation(
            Tag::Names,
            "GET",
            "/v1/templates/namespaces/{slug}",
            "getTemplateNamespace",
            "A namespace",
        )
        .answers(200, "The namespace", &schema("TemplateNamespaceInfo"))
        .refuses(&[404]),
    ]
}

fn templates() -> Vec<Operation> {
    let list = operation(
        Tag::Templates,
        "GET",
        "/v1/templates",
        "listTemplates",
        "Templates that the caller can use",
    );
    let templates = json!({"type": "array", "items": shown_template()});
    let list = fields(list).answers(200, "The templates", &templates);
    let by_ref = parts("/v1/templates/refs/{ref}", "ByRef");
    let by_id = parts("/v1/templates/{id}", "");
    [vec![list], by_ref, by_id].concat()
}

/// What can be asked of the template at `base`.
#[expect(clippy::too_many_lines, reason = "a table, one entry an operation")]
fn parts(base: &str, by: &str) -> Vec<Operation> {
    let at = |method, below: &str, id: &str, summary| {
        let (path, id) = (format!("{base}{below}"), format!("{id}{by}"));
        operation(Tag::Templates, method, &path, &id, summary).refuses(&[404])
    };
    let (template, list) = (
        schema("TemplateInfo"),
        |name| json!({"type": "array", "items": schema(name)}),
    );
    vec![
        fields(at("GET", "", "getTemplate", "A template"))
            .query("at", &moment(), AT)
            .answers(200, "The template", &shown_template()),
        at(
            "DELETE",
            "",
            "deleteTemplate",
            "Delete a template, its names and its tags",
        )
        .about("Its builds can still be looked at by their ids.")
        .answers_empty("It is gone")
        .refuses(&[409]),
        at(
            "GET",
            "/tags",
            "listTemplateTags",
            "Where the tags of a template point to",
        )
        .answers(200, "The tags", &list("TemplateTagInfo")),
        at(
            "POST",
            "/tags",
            "assignTemplateTags",
            "Move tags to the build that is named",
        )
        .body("AssignTagsRequest")
        .answers(200, "The template", &template)
        .refuses(&[409]),
        at(
            "DELETE",
            "/tags/{tag}",
            "removeTemplateTag",
            "Take a tag away",
        )
        .answers_empty("It is gone")
        .refuses(&[409]),
        paged(at(
            "GET",
            "/tags/{tag}/history",
            "listTemplateTagMoves",
            "Where a tag has pointed to, the latest first",
        ))
        .about("Of the caller's own templates; also of a tag that was removed.")
        .answers(200, "A page", &schema("TemplateTagHistory")),
        at(
            "POST",
            "/tags/{tag}/rollback",
            "rollBackTemplateTag",
            "Take a tag back to where it pointed before",
        )
        .body("RollbackTagRequest")
        .answers(200, "The template", &template)
        .refuses(&[409]),
        at(
            "GET",
            "/aliases",
            "listTemplateAliases",
            "What a template was called before",
        )
        .answers(200, "The aliases", &list("TemplateAliasInfo")),
        at(
            "DELETE",
            "/aliases/{alias}",
            "removeTemplateAlias",
            "Take an alias away",
        )
        .answers_empty("It is gone"),
        at(
            "POST",
            "/rename",
            "renameTemplate",
            "Call a template otherwise",
        )
        .about("The old name stays as an alias.")
        .body("RenameTemplateRequest")
        .answers(200, "The template", &template)
        .refuses(&[409]),
        at(
            "PATCH",
            "/visibility",
            "updateTemplateVisibility",
            "Show a template to everybody, or no longer",
        )
        .body("UpdateTemplateVisibilityRequest")
        .answers(200, "The template", &template),
        history_filters(at(
            "GET",
            "/builds",
            "listTemplateBuilds",
            "Builds of a template, the newest first",
        ))
        .about(
            "The caller's own builds of the template as a whole, whichever tag is named; a page \
                 may be shorter than was asked for.",
        )
        .answers(200, "A page", &schema("TemplateBuildListResponse")),
    ]
}

/// A template as a whole, or the keys of it that were asked for.
fn shown_template() -> Value {
    json!({"anyOf": [schema("TemplateInfo"), schema("TemplateInfoProjection")]})
}

fn fields(operation: Operation) -> Operation {
    operation.query(
        "fields",
        &json!({"type": "string"}),
        "Keys of a template, with commas between them: answer with these alone.",
    )
}

fn history_filters(operation: Operation) -> Operation {
    let filtered = operation
        .query(
            "status",
            &schema("TemplateBuildStatus"),
            "Only builds in this state.",
        )
        .query(
            "backend",
            &schema("TemplateBuildBackend"),
            "Only builds by this engine.",
        )
        .query(
            "source_type",
            &schema("TemplateBuildSourceType"),
            "Only builds from this.",
        );
    paged(filtered)
}

fn paged(operation: Operation) -> Operation {
    let limit = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": PAGE_BUILD_COUNT_MAX,
        "default": PAGE_BUILD_COUNT_DEFAULT,
    });
    let text: Value = json!({"type": "string"});
    operation
        .query("limit", &limit, "How many, at most.")
        .query("cursor", &text, "The `next_cursor` of the page before.")
}
