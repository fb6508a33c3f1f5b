//! One operation of the API, and how it is written down.

use serde_json::{Map, Value, json};

/// What an operation belongs to, and what that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Builds,
    Events,
    Templates,
    Blobs,
    Names,
    Webhooks,
    Service,
}

const TAGS: [(Tag, &str, &str); 7] = [
    (
        Tag::Builds,
        "builds",
        "Asking for builds, and following them",
    ),
    (Tag::Events, "events", "What happened, and who caused it"),
    (Tag::Templates, "templates", "What builds made"),
    (Tag::Blobs, "blobs", "Files of contexts"),
    (Tag::Names, "names", "Namespaces and reserved names"),
    (Tag::Webhooks, "webhooks", "Events sent to a URL"),
    (Tag::Service, "service", "The service itself"),
];

/// A method of a path.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: String,
    id: String,
    tag: Tag,
    summary: &'static str,
    description: Option<&'static str>,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Vec<(u16, Value)>,
    refusals: Vec<u16>,
    is_public: bool,
    is_deprecated: bool,
}

/// An operation of `method` on `path`, called `id`.
pub(super) fn operation(
    tag: Tag,
    method: &'static str,
    path: &str,
    id: &str,
    summary: &'static str,
) -> Operation {
    Operation {
        method,
        path: path.to_owned(),
        id: id.to_owned(),
        tag,
        summary,
        description: None,
        parameters: path_parameters(path),
        body: None,
        answers: Vec::new(),
        // What any request can meet.
        refusals: vec![400, 401, 403, 405, 429, 500, 501, 503],
        is_public: false,
        is_deprecated: false,
    }
}

impl Operation {
    /// What the summary has no room for.
    pub(super) fn about(mut self, description: &'static str) -> Self {
        self.description = Some(description);
        self
    }

    /// It answers everybody.
    pub(super) fn public(mut self) -> Self {
        self.is_public = true;
        self.refusals.retain(|status| !matches!(status, 401 | 403));
        self
    }

    /// Nobody should begin to use it.
    pub(super) fn deprecated(mut self) -> Self {
        self.is_deprecated = true;
        self
    }

    /// It takes a parameter in the query string, which may be left out.
    pub(super) fn query(mut self, name: &str, schema: &Value, description: &str) -> Self {
        self.parameters.push(json!({
            "name": name,
            "in": "query",
            "required": false,
            "schema": schema,
            "description": description,
        }));
        self
    }

    /// It looks at a header, which may be left out.
    pub(super) fn header(mut self, name: &str, description: &str) -> Self {
        self.parameters.push(json!({
            "name": name,
            "in": "header",
            "required": false,
            "schema": {"type": "string"},
            "description": description,
        }));
        self
    }

    /// It takes a parameter in the query string, which must be there.
    pub(super) fn needs_query(mut self, name: &str, schema: &Value, description: &str) -> Self {
        self = self.query(name, schema, description);
        if let Some(parameter) = self.parameters.last_mut() {
            parameter["required"] = true.into();
        }
        self
    }

    /// Its answers have a header more, if what is described is so.
    pub(super) fn answers_with_header(mut self, name: &str, description: &str) -> Self {
        for (_, answer) in &mut self.answers {
            let header = json!({"schema": {"type": "string"}, "description": description});
            if let Some(headers) = answer.get_mut("headers").and_then(Value::as_object_mut) {
                headers.insert(name.to_owned(), header);
            }
        }
        self
    }

    /// It takes a JSON body.
    pub(super) fn body(self, name: &str) -> Self {
        self.json_body(name, true)
    }

    /// It takes a JSON body, which may be empty.
    pub(super) fn optional_body(self, name: &str) -> Self {
        self.json_body(name, false)
    }

    /// It takes the bytes of a file.
    pub(super) fn bytes_body(mut self) -> Self {
        self.body = Some(json!({
            "required": true,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }));
        self.refuses(&[408, 413])
    }

    fn json_body(mut self, name: &str, required: bool) -> Self {
        self.body = Some(json!({
            "required": required,
            "content": {"application/json": {"schema": schema(name)}},
        }));
        self.refuses(&[408, 413])
    }

    /// It answers with JSON.
    pub(super) fn answers(self, status: u16, description: &str, schema: &Value) -> Self {
        self.answer(status, description, "application/json", schema)
    }

    /// It answers with nothing.
    pub(super) fn answers_empty(mut self, description: &str) -> Self {
        let answer = json!({"description": description, "headers": request_id()});
        self.answers.push((204, answer));
        self
    }

    /// It answers with a stream of JSON objects.
    pub(super) fn streams(self, name: &str) -> Self {
        const HOW: &str = "Server-sent events: each is one line `data: ` with one JSON object in \
            ASCII, and an empty line. Lines that begin with `:` keep the connection alive. The \
            stream ends behind the last entry.";
        self.answers_stream(HOW, &schema(name))
    }

    /// It answers with server-sent events, as the description says.
    pub(super) fn answers_stream(self, description: &str, schema: &Value) -> Self {
        self.answer(200, description, "text/event-stream", schema)
    }

    /// The last answer may also be of this kind.
    pub(super) fn or_as(mut self, kind: &str, schema: &Value) -> Self {
        if let Some((_, answer)) = self.answers.last_mut()
            && let Some(Value::Object(content)) = answer.get_mut("content")
        {
            content.insert(kind.to_owned(), json!({"schema": schema}));
        }
        self
    }

    /// It answers with a text of this kind.
    pub(super) fn answers_text(self, description: &str, kind: &str) -> Self {
        self.answer(200, description, kind, &json!({"type": "string"}))
    }

    fn answer(mut self, status: u16, description: &str, kind: &str, schema: &Value) -> Self {
        let mut content = Map::new();
        content.insert(kind.to_owned(), json!({"schema": schema}));
        let answer = json!({
            "description": description,
            "headers": request_id(),
            "content": content,
        });
        self.answers.push((status, answer));
        self
    }

    /// It can be refused in more ways than any request.
    pub(super) fn refuses(mut self, statuses: &[u16]) -> Self {
        self.refusals.extend(statuses);
        self
    }

    pub(super) fn to_json(&self) -> Value {
        let refusals = self.refusals.iter().map(|status| {
            let name = refusal_name(*status);
            (
                *status,
                json!({"$ref": format!("#/components/responses/{name}")}),
            )
        });
        let responses = self.answers.iter().cloned().chain(refusals);
        let responses: Map<String, Value> = responses
            .map(|(status, response)| (status.to_string(), response))
            .collect();
        let mut json = Map::from_iter([
            ("operationId".to_owned(), json!(self.id)),
            ("tags".to_owned(), json!([name(self.tag)])),
            ("summary".to_owned(), json!(self.summary)),
            ("responses".to_owned(), Value::Object(responses)),
        ]);
        if let Some(description) = self.description {
            json.insert("description".to_owned(), description.into());
        }
        if !self.parameters.is_empty() {
            json.insert("parameters".to_owned(), self.parameters.clone().into());
        }
        if let Some(body) = &self.body {
            json.insert("requestBody".to_owned(), body.clone());
        }
        if self.is_public {
            json.insert("security".to_owned(), json!([]));
        }
        if self.is_deprecated {
            json.insert("deprecated".to_owned(), true.into());
        }
        Value::Object(json)
    }
}

/// Every tag, with what it is.
pub(super) fn tags() -> Value {
    let tags = TAGS
        .iter()
        .map(|(_, name, description)| json!({"name": name, "description": description}));
    tags.collect()
}

fn name(tag: Tag) -> &'static str {
    let found = TAGS.iter().find(|(known, ..)| *known == tag);
    found.map_or("", |(_, name, _)| name)
}

/// A reference to a schema.
pub(super) fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The name of a refusal among the components.
pub(super) fn refusal_name(status: u16) -> String {
    format!("Error{status}")
}

fn request_id() -> Value {
    json!({"x-request-id": {"$ref": "#/components/headers/RequestId"}})
}

/// The parameters in `path`: every segment in braces.
fn path_parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let description = match name {
                "build_id" => "The build: `tb_…`.",
                "blob_id" => "The name that the preflight gave.",
                "claim_token" => "The token of the claim.",
                "slug" => "The namespace.",
                "webhook_id" => "The webhook: `wh_…`.",
                "delivery_id" => "The delivery: the position of its event.",
                "ref" => "The template, percent-encoded in one segment.",
                "id" => "The template: `tmpl_…`.",
                "tag" => "The tag.",
                "alias" => "The alias: `name` or `namespace/name`, percent-encoded in one segment.",
                _ => "",
            };
            json!({
                "name": name,
                "in": "path",
                "required": true,
                "schema": {"type": "string", "minLength": 1},
                "description": description,
            })
        })
        .collect()
}
