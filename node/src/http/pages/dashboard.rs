//! The dashboard at `/`: the files that npm built, out of the binary. Pages of the single-page application all are its `index.html`.

use std::collections::HashMap;
use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::AppState;
use super::super::openapi::PageProblems;

/// Nothing but this node's own files, and no inline script: an event named like one stays text.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Addresses of the application's pages beside `/`; it reads the rest of the address itself.
pub(in crate::http) const PAGES: [&str; 3] = ["/explore", "/cluster", "/dead-letters"];
const INDEX: &str = "index.html";
/// Names below it carry a hash of the content, but for those that `index.html` refers to by a fixed name.
const ASSETS: &str = "assets/";
const FIXED_NAMES: [&str; 2] = ["assets/icon.svg", "assets/theme.js"];

/// What `/` says in a binary that was built without the dashboard.
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tallymesh</title>\
    <h1>Tallymesh runs</h1><p>This binary was built without its dashboard: build it with <code>make build</code>, which needs Node.js.</p>\
    <p>The numbers are all there: <a href=\"/v1/query?metric=*\">/v1/query</a>, <a href=\"/v1/metrics\">/v1/metrics</a>, <a href=\"/docs\">/docs</a>.</p></html>";

#[derive(RustEmbed)]
#[folder = "../dashboard/dist"]
#[allow_missing = true]
struct Files;

struct File {
    media_type: &'static str,
    cache: &'static str,
    etag: HeaderValue,
    plain: Bytes,
    gzip: Option<Bytes>,
}

/// Compressed once, at the first request for any of them.
static FILES: LazyLock<HashMap<String, File>> = LazyLock::new(|| {
    let named = Files::iter().filter_map(|name| Some((name.to_string(), File::new(&name, Files::get(&name)?))));
    named.collect()
});

impl File {
    fn new(name: &str, embedded: rust_embed::EmbeddedFile) -> Self {
        let is_hashed = name.starts_with(ASSETS) && !FIXED_NAMES.contains(&name);
        let hash = embedded.metadata.sha256_hash();
        let etag: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let plain = Bytes::from(embedded.data.into_owned());
        Self {
            media_type: media_type(name),
            // A new version of the node brings other hashed names, and new content under the fixed ones.
            cache: if is_hashed { "public, max-age=31536000, immutable" } else { "no-cache" },
            etag: HeaderValue::from_str(&format!("\"{etag}\"")).unwrap_or(HeaderValue::from_static("\"\"")),
            gzip: compressed(&plain).filter(|gzip| gzip.len() < plain.len()),
            plain,
        }
    }
}

fn compressed(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 3), Compression::best());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("woff2") => "font/woff2",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::from(pages()).routes(routes!(get_home))
}

/// The dashboard
///
/// An application for people; `/explore`, `/cluster` and `/dead-letters` are pages of it.
#[utoipa::path(
    get, path = "/", operation_id = "get_dashboard", tag = "pages",
    responses(
        (status = 200, description = "For people.", body = String, content_type = "text/html"),
        (status = 304, description = "As it was when `If-None-Match` was given."),
        PageProblems,
    ),
)]
async fn get_home(headers: HeaderMap) -> Response {
    index(&headers)
}

fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let router =
        PAGES.into_iter().fold(Router::new(), |router, page| router.route(page, get(|headers: HeaderMap| async move { index(&headers) })));
    router.route(
        "/assets/{*name}",
        get(|axum::extract::Path(name): axum::extract::Path<String>, headers: HeaderMap| async move { asset(&name, &headers) }),
    )
}

fn index(headers: &HeaderMap) -> Response {
    match FILES.get(INDEX) {
        Some(file) => serve(file, headers),
        None => ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-cache")], NOT_BUILT)
            .into_response(),
    }
}

fn asset(name: &str, headers: &HeaderMap) -> Response {
    match FILES.get(&format!("{ASSETS}{name}")) {
        Some(file) => serve(file, headers),
        // Not the index: a script that is not there must not be answered with a page.
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn serve(file: &File, headers: &HeaderMap) -> Response {
    let always = [
        (CONTENT_TYPE, HeaderValue::from_static(file.media_type)),
        (CACHE_CONTROL, HeaderValue::from_static(file.cache)),
        (ETAG, file.etag.clone()),
        (VARY, HeaderValue::from_static("accept-encoding")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    if headers.get(IF_NONE_MATCH).is_some_and(|known| *known == file.etag) {
        return (StatusCode::NOT_MODIFIED, always).into_response();
    }
    let takes_gzip = headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|accepted| accepted.contains("gzip"));
    match &file.gzip {
        Some(gzip) if takes_gzip => (always, [(CONTENT_ENCODING, "gzip")], gzip.clone()).into_response(),
        _ => (always, file.plain.clone()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get_page(path: &str, headers: &[(&str, &str)]) -> Response {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        pages::<()>().route("/", get(get_home)).oneshot(request.body(Body::empty()).expect("a request")).await.expect("infallible")
    }

    #[tokio::test]
    async fn every_page_is_answered_under_the_strict_policy_also_without_a_dashboard() {
        for page in PAGES.into_iter().chain(["/"]) {
            let response = get_page(page, &[]).await;
            assert_eq!(response.status(), StatusCode::OK, "{page}");
            let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().expect("ASCII").to_owned();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a small body");
            let text = String::from_utf8(body.to_vec()).expect("UTF-8");
            assert!(!text.contains("<script>") && !text.contains(" style="), "nothing inline: {text}");
            assert_eq!(text.contains("built without"), Files::get(INDEX).is_none());
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_not_a_page() {
        assert_eq!(get_page("/assets/none.js", &[]).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(get_page("/assets/../index.html", &[]).await.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_file_is_served_compressed_or_not_and_not_again_when_known() {
        let text = b"some text, some text, some text, some text, some text, some text".to_vec();
        let embedded =
            rust_embed::EmbeddedFile { data: text.clone().into(), metadata: rust_embed::Metadata::__rust_embed_new([7; 32], None, None) };
        let file = File::new("assets/app-abc.js", embedded);
        let headers = |pairs: &[(axum::http::HeaderName, &str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a value"))).collect()
        };
        let gzip = serve(&file, &headers(&[(ACCEPT_ENCODING, "br, gzip")]));
        assert_eq!(gzip.headers()[CONTENT_ENCODING], "gzip");
        assert!(gzip.headers()[CACHE_CONTROL].to_str().expect("ASCII").contains("immutable"));
        assert!(!serve(&file, &headers(&[])).headers().contains_key(CONTENT_ENCODING));
        let etag = gzip.headers()[ETAG].to_str().expect("ASCII").to_owned();
        assert_eq!(serve(&file, &headers(&[(IF_NONE_MATCH, &etag)])).status(), StatusCode::NOT_MODIFIED);
    }
}
