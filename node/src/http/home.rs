//! The plain page at `/`: totals and a chart, from the same interface that everybody uses.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::response::IntoResponse;
use axum::routing::get;

use super::AppState;

/// Nothing but this node's own files, and no inline script: an event named like one stays text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, media type, content.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../../assets/home.html")),
    ("/assets/home.css", "text/css; charset=utf-8", include_str!("../../assets/home.css")),
    ("/assets/home.js", "text/javascript; charset=utf-8", include_str!("../../assets/home.js")),
    ("/assets/icon.svg", "image/svg+xml", include_str!("../../assets/icon.svg")),
];

pub fn router() -> Router<AppState> {
    files()
}

fn files<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, media_type, content)| {
        router.route(path, get(move || async move { file(media_type, content) }))
    })
}

fn file(media_type: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // A new version of the node brings new files under the same names.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, content)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn every_file_is_served_under_the_strict_policy() {
        for (path, media_type, content) in FILES {
            let request = Request::get(path).body(Body::empty()).expect("a request");
            let response = files::<()>().oneshot(request).await.expect("infallible");
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[CONTENT_TYPE], media_type);
            assert!(response.headers()[CONTENT_SECURITY_POLICY].to_str().expect("ASCII").starts_with("default-src 'none'"));
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a small body");
            assert_eq!(body, content);
        }
    }

    #[test]
    fn the_page_holds_no_inline_code_and_asks_nobody_else() {
        let (_, _, html) = FILES[0];
        assert!(!html.contains("<style") && !html.contains("style=") && !html.contains("onclick"));
        assert_eq!(html.matches("<script").count(), 1);
        for (path, _, content) in FILES {
            let outside = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!outside.contains("http://") && !outside.contains("https://"), "{path}");
            assert!(!content.contains("innerHTML"), "{path}");
        }
        for (path, ..) in &FILES[1..] {
            assert!(html.contains(path), "{path} is used");
        }
    }
}
