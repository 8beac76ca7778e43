//! `/docs`: the document of [`crate::http::openapi`] as a page for people, and what every error code means. Made here, without a script, so that it needs nothing from
//! anywhere and the strict policy of the other pages holds.

mod errors;
mod page;
mod schema;

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::AppState;
use super::super::openapi::{PageProblems, document};
use super::dashboard::POLICY;

/// Files of the page: path, media type, content.
const FILES: [(&str, &str, &str); 2] = [
    ("/docs/page.css", "text/css; charset=utf-8", include_str!("../../../assets/docs.css")),
    ("/docs/icon.svg", "image/svg+xml", include_str!("../../../../dashboard/public/assets/icon.svg")),
];

static PAGE: LazyLock<String> = LazyLock::new(|| page::render(document()));

pub fn router() -> OpenApiRouter<AppState> {
    FILES.into_iter().fold(OpenApiRouter::new().routes(routes!(get_docs)), |router, (path, media_type, content)| {
        router.route(path, get(move || async move { file(media_type, content) }))
    })
}

fn file(media_type: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // A new version of the node brings new content under the same names.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, content)
}

pub fn page() -> &'static str {
    &PAGE
}

/// This interface, for people
///
/// The `type` of a problem leads here: `/docs#code`.
#[utoipa::path(get, path = "/docs", tag = "pages", responses((status = 200, description = "A page.", body = String, content_type = "text/html"), PageProblems))]
async fn get_docs() -> impl IntoResponse {
    file("text/html; charset=utf-8", page())
}

/// Text for HTML, in content and in double-quoted attributes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Plain text whose words in backticks are code.
fn prose(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in text.split('`').enumerate() {
        let part = escaped(part);
        if i % 2 == 1 {
            out.push_str(&format!("<code>{part}</code>"));
        } else {
            out.push_str(&part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use tallymesh_protocol::error::ErrorCode;
    use tallymesh_protocol::event::RejectCode;

    use super::*;

    #[test]
    fn every_error_has_its_place_on_the_page() {
        let codes = ErrorCode::ALL.map(|code| code.as_str().to_owned()).into_iter();
        let refusals = RejectCode::ALL.map(|code| format!("event-{}", code.as_str())).into_iter();
        for id in codes.chain(refusals) {
            assert_eq!(page().matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
    }

    #[test]
    fn every_link_within_the_page_leads_somewhere_and_no_id_is_there_twice() {
        let ids: Vec<&str> = page().split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let distinct: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), distinct.len());
        let links: Vec<&str> = page().split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(links.len() > 50);
        assert!(links.iter().all(|link| distinct.contains(link)), "{links:?}");
    }

    #[test]
    fn the_page_runs_nothing_and_asks_nobody_else() {
        assert!(!page().contains("<script") && !page().contains("<style") && !page().contains("style="));
        assert!(!page().contains("src=\"http") && !page().contains("href=\"http"));
        for (path, _, content) in FILES {
            assert!(page().contains(path) && !content.replace("http://www.w3.org/2000/svg", "").contains("http"), "{path}");
        }
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(prose("a `<b>` & \"c\""), "a <code>&lt;b&gt;</code> &amp; &quot;c&quot;");
    }
}
