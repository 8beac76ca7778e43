//! Holds an answer against the document.

use std::collections::BTreeSet;
use std::sync::Mutex;

use reqwest::Method;
use serde_json::Value;

use super::super::harness::{TestNode, in_time};

pub struct Contract {
    document: Value,
    /// Operations that answered 200.
    tried: Mutex<BTreeSet<String>>,
}

impl Contract {
    pub async fn of(node: &TestNode) -> Self {
        Self { document: node.get("/openapi.json").await.body, tried: Mutex::default() }
    }

    pub fn document(&self) -> &Value {
        &self.document
    }

    pub fn untried(&self) -> Vec<String> {
        let tried = self.tried.lock().expect("not poisoned");
        let paths = self.document["paths"].as_object().expect("paths").iter();
        let all =
            paths.flat_map(|(path, methods)| methods.as_object().expect("methods").keys().map(move |method| format!("{method} {path}")));
        all.filter(|operation| !tried.contains(operation)).collect()
    }

    /// Sends the request and gives its status. An answer that the document does not know, or knows otherwise, is a failure.
    pub async fn hold(&self, node: &TestNode, method: Method, path: &str, body: Option<String>) -> u16 {
        let mut request = node.request(method.clone(), path);
        if let Some(body) = body.clone() {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = in_time(path, async { request.send().await.expect("answered") }).await;
        let status = response.status().as_u16();
        let media_type =
            response.headers().get("content-type").map(|v| v.to_str().expect("text").split(';').next().expect("a first part").to_owned());
        let headers = response.headers().clone();
        let route = path.split('?').next().expect("a path");
        let route = match route {
            _ if route.starts_with("/v1/named/") => "/v1/named/{query}",
            _ if route.starts_with("/v1/definitions/") => "/v1/definitions/{name}",
            _ if route.starts_with("/prometheus/api/v1/label/") => "/prometheus/api/v1/label/{name}/values",
            other => other,
        };
        let operation = &self.document["paths"][route][method.as_str().to_lowercase()];
        let told = || format!("{method} {path} {body:?} -> {status} {media_type:?}");
        let documented = &operation["responses"][status.to_string()];
        assert!(documented.is_object(), "{}: the status is not documented", told());
        for (name, _) in documented["headers"].as_object().expect("headers") {
            let optional = ["Tallymesh-Receipt", "Tallymesh-Cursor"].contains(&name.as_str());
            assert!(optional || headers.contains_key(name), "{}: {name} is missing", told());
        }
        let media_type_text = media_type.clone().unwrap_or_default();
        let content = &documented["content"][&media_type_text];
        assert!(content.is_object(), "{}: the media type is not documented", told());
        if status == 200 {
            self.tried.lock().expect("not poisoned").insert(format!("{} {route}", method.as_str().to_lowercase()));
        }
        if media_type_text.ends_with("json") {
            let text = in_time(path, async { response.text().await.expect("text") }).await;
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}: {text}", told()));
            let errors = errors(&self.document, &content["schema"], &value);
            assert!(errors.is_empty(), "{}: {errors:?} in {text:.2000}", told());
        }
        status
    }
}

/// What is wrong with a value by a schema of the document.
pub fn errors(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    // In one tree, so that references from the schema's root resolve.
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&whole).expect("a schema");
    validator.iter_errors(value).map(|e| format!("{} at {}", e, e.instance_path())).collect()
}
