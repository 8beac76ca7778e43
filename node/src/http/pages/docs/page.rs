//! The page from top to bottom: what to do first, every operation by tag, every code, every schema.

use serde_json::Value;
use tallymesh_protocol::error::ErrorCode;
use tallymesh_protocol::event::RejectCode;

use super::schema::{fields, list, row, type_of};
use super::{errors, escaped, prose};

const PROBLEM: &str = "application/problem+json";

/// One operation of the document.
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    value: &'a Value,
}

pub fn render(document: &Value) -> String {
    let operations = operations(document);
    let tags: Vec<(&str, &str)> =
        list(&document["tags"]).iter().filter_map(|tag| Some((tag["name"].as_str()?, tag["description"].as_str()?))).collect();
    let of_tag = |tag: &str| operations.iter().filter(|o| o.value["tags"][0] == *tag).collect::<Vec<_>>();

    let mut nav = String::new();
    let mut body = String::new();
    for (tag, description) in tags {
        let id = tag.replace(' ', "-");
        nav.push_str(&format!("<h2><a href=\"#tag-{id}\">{tag}</a></h2><ul>"));
        body.push_str(&format!("<section><h2 id=\"tag-{id}\">{tag}</h2><p class=\"lead\">{}</p>", prose(description)));
        for operation in of_tag(tag) {
            nav.push_str(&format!(
                "<li><a href=\"#{}\"><span class=\"verb {1}\">{1}</span> {2}</a></li>",
                operation.id(),
                operation.method,
                escaped(operation.path)
            ));
            body.push_str(&operation.card());
        }
        nav.push_str("</ul>");
        body.push_str("</section>");
    }
    nav.push_str("<h2><a href=\"#errors\">errors</a></h2><ul><li><a href=\"#problems\">Problems</a></li><li><a href=\"#refused-events\">Refused events</a></li></ul>");
    nav.push_str("<h2><a href=\"#schemas\">schemas</a></h2>");
    body.push_str(&problems());
    body.push_str(&schemas(document));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Tallymesh interface</title><link rel=\"icon\" href=\"/docs/icon.svg\"><link rel=\"stylesheet\" href=\"/docs/page.css\"></head><body>\
         <nav aria-label=\"Contents\"><p class=\"brand\"><a href=\"/\"><img src=\"/docs/icon.svg\" alt=\"\" width=\"22\" height=\"22\"> Tallymesh</a></p>{nav}</nav>\
         <main><header><h1>Interface</h1><p class=\"lead\">{}</p><p class=\"quiet\">Version {} · <a href=\"/openapi.json\">openapi.json</a> \
         (OpenAPI 3.1) · <a href=\"/\">home page</a></p></header>{FIRST_STEPS}{body}</main></body></html>",
        prose(document["info"]["description"].as_str().unwrap_or_default()),
        escaped(document["info"]["version"].as_str().unwrap_or_default()),
    )
}

const FIRST_STEPS: &str = "<section><h2 id=\"first-steps\">first steps</h2><div class=\"card\"><p>Send an event to this node:</p>\
<pre>curl http://127.0.0.1:7070/v1/events \\\n  -d '[{\"event\":\"page_view\",\"source\":\"web\",\"country_code\":\"US\",\"user_id\":\"u_1\"}]'</pre>\
<p>Ask for it; it is there as soon as the first request was answered:</p>\
<pre>curl 'http://127.0.0.1:7070/v1/query?metric=page_view&amp;range=1h&amp;agg=count,users&amp;group_by=country_code'</pre></div></section>";

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, methods)| methods.as_object().into_iter().flatten().map(move |(method, value)| Operation { method, path, value }))
        .collect()
}

impl Operation<'_> {
    fn id(&self) -> String {
        format!("{}{}", self.method, self.path.replace('/', "-").replace(['{', '}'], ""))
    }

    fn card(&self) -> String {
        let text = |name: &str| prose(self.value[name].as_str().unwrap_or_default());
        format!(
            "<article class=\"card\" id=\"{}\"><h3><span class=\"verb {1}\">{1}</span> <code>{2}</code></h3><p class=\"summary\">{3}</p><p>{4}</p>{5}{6}{7}</article>",
            self.id(),
            self.method,
            escaped(self.path),
            text("summary"),
            text("description"),
            self.parameters(),
            self.body(),
            self.responses()
        )
    }

    fn parameters(&self) -> String {
        let rows: String = list(&self.value["parameters"])
            .iter()
            .map(|parameter| {
                let place = match parameter["in"].as_str() {
                    Some("query") | None => "",
                    Some("path") => " <span class=\"must\">path</span>",
                    Some(_) => " <span class=\"quiet\">header</span>",
                };
                let must =
                    if parameter["required"] == true && parameter["in"] == "query" { " <span class=\"must\">required</span>" } else { "" };
                let name = format!("<code>{}</code>{place}{must}", escaped(parameter["name"].as_str().unwrap_or_default()));
                row(&name, &type_of(&parameter["schema"]), parameter)
            })
            .collect();
        table("Parameters", &rows)
    }

    fn body(&self) -> String {
        let body = &self.value["requestBody"];
        let Some(types) = body["content"].as_object() else { return String::new() };
        let types: Vec<String> =
            types.iter().map(|(name, content)| format!("<code>{}</code> {}", escaped(name), type_of(&content["schema"]))).collect();
        format!(
            "<h4>Body</h4><p>{}</p><p class=\"types\">{}</p>",
            prose(body["description"].as_str().unwrap_or_default()),
            types.join(" · ")
        )
    }

    fn responses(&self) -> String {
        let mut rows = String::new();
        for (status, response) in self.value["responses"].as_object().into_iter().flatten() {
            let content = response["content"].as_object();
            let is_problem = content.is_some_and(|types| types.len() == 1 && types.contains_key(PROBLEM));
            let described =
                if is_problem { codes(&response["content"][PROBLEM]) } else { prose(response["description"].as_str().unwrap_or_default()) };
            let types: Vec<String> = content
                .into_iter()
                .flatten()
                .filter(|(name, _)| *name != PROBLEM)
                .map(|(name, content)| format!("<code>{}</code> {}", escaped(name), type_of(&content["schema"])))
                .collect();
            let also = if content.is_some_and(|types| types.len() > 1) { codes(&response["content"][PROBLEM]) } else { String::new() };
            let class = status.chars().next().unwrap_or('5');
            rows.push_str(&format!(
                "<tr><td><span class=\"status s{class}\">{status}</span></td><td>{described} {also} <span class=\"types\">{}</span></td></tr>",
                types.join(" · ")
            ));
        }
        format!(
            "<details><summary>Answers</summary><div class=\"scroll\"><table class=\"answers\"><tbody>{rows}</tbody></table></div></details>"
        )
    }
}

/// Links to the codes that a problem of this status can have here.
fn codes(content: &Value) -> String {
    let codes =
        list(&content["schema"]["allOf"]).iter().flat_map(|part| list(&part["properties"]["code"]["enum"])).filter_map(Value::as_str);
    codes.map(|code| format!("<a href=\"#{code}\"><code>{code}</code></a>")).collect::<Vec<_>>().join(" ")
}

fn table(title: &str, rows: &str) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("<h4>{title}</h4><div class=\"scroll\"><table><tbody>{rows}</tbody></table></div>")
}

fn problems() -> String {
    let problem = |code: ErrorCode| {
        let (name, status) = (code.as_str(), code.status());
        let again = if code.is_retryable() { " <span class=\"must\">try again</span>" } else { "" };
        format!(
            "<div class=\"code\" id=\"{name}\"><h4><span class=\"status s{}\">{status}</span> <code>{name}</code>{again}</h4><p class=\"quiet\">{}</p><p>{}</p></div>",
            status / 100,
            escaped(code.title()),
            prose(errors::of_problem(code))
        )
    };
    let event = |code: RejectCode| {
        format!(
            "<div class=\"code\" id=\"event-{0}\"><h4><code>{0}</code></h4><p>{1}</p></div>",
            code.as_str(),
            prose(errors::of_event(code))
        )
    };
    format!(
        "<section><h2 id=\"errors\">errors</h2><p class=\"lead\">Every error is a problem (RFC 9457): <code>code</code> for programs, <code>detail</code> for people, \
         and what helps. Where it says “try again”, the same request may succeed later, and a write sent again counts once.</p>\
         <div class=\"card codes\"><h3 id=\"problems\">Problems</h3>{}</div><div class=\"card codes\"><h3 id=\"refused-events\">Refused events</h3>\
         <p>One bad event does not hold up the others: it is listed under <code>rejected</code> and kept as a dead letter.</p>{}</div></section>",
        ErrorCode::ALL.map(problem).concat(),
        RejectCode::ALL.map(event).concat()
    )
}

fn schemas(document: &Value) -> String {
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let cards: String = schemas
        .map(|(name, schema)| {
            let rows = fields(schema);
            let content = if rows.is_empty() { format!("<p>{}</p>", type_of(schema)) } else { table("", &rows) };
            format!(
                "<article class=\"card\" id=\"schema-{0}\"><h3>{0}</h3><p>{1}</p>{content}</article>",
                escaped(name),
                prose(schema["description"].as_str().unwrap_or_default())
            )
        })
        .collect();
    format!("<section><h2 id=\"schemas\">schemas</h2>{cards}</section>")
}
