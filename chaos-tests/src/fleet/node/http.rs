//! HTTP to nodes: kept-alive connections, a time-out on everything, and what an outcome means for whoever sent events.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Node;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);
/// A look at how a node does.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);
/// A whole answer to a question of a test.
const ASK_TIME_MAX: Duration = Duration::from_secs(40);
/// What is shown of an answer that was not expected, in characters.
const SHOWN_CHARS_MAX: usize = 500;

/// What became of events that were sent.
#[derive(Clone, Debug)]
pub enum Sent {
    /// 200, or 422 when all were refused: settled.
    Acked(Value),
    /// They were certainly not taken: no connection, or no room for them.
    Refused(String),
    /// Whether they count is not known.
    Unknown(String),
}

/// What became of a question.
#[derive(Clone, Debug)]
pub enum Asked {
    Answered(Value),
    /// The node said that it cannot, and why.
    Problem(u16, String),
    /// Nobody took the connection: nothing was asked.
    Refused(String),
    /// No answer at all.
    Silent(String),
}

#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub content_type: &'static str,
    pub gzip: bool,
}

impl Http {
    /// # Errors
    /// The client's.
    pub fn new() -> Result<Self> {
        Ok(Self { client: reqwest::Client::builder().connect_timeout(CONNECT_TIME_MAX).no_proxy().build()? })
    }

    /// # Errors
    /// Why it is not.
    pub async fn ready(&self, node: &Node) -> Result<(), String> {
        match self.client.get(node.url("/ready")).timeout(LOOK_TIME_MAX).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("{}: {}", answer.status(), shown(&answer.text().await.unwrap_or_default()))),
            Err(error) => Err(cause(&error)),
        }
    }

    /// `GET`, which must be answered with 200 and JSON.
    ///
    /// # Errors
    /// Anything else.
    pub async fn get_ok(&self, node: &Node, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        match self.ask(node, path, query, ASK_TIME_MAX).await {
            Asked::Answered(value) => Ok(value),
            Asked::Problem(status, detail) => anyhow::bail!("{}: GET {path} {query:?}: {status}: {detail}", node.name),
            Asked::Refused(detail) | Asked::Silent(detail) => anyhow::bail!("{}: GET {path} {query:?}: {detail}", node.name),
        }
    }

    /// A figure of the node's own, summed over its series.
    ///
    /// # Errors
    /// It does not tell it.
    pub async fn figure(&self, node: &Node, name: &str) -> Result<f64> {
        let answer = self.client.get(node.url("/metrics")).timeout(ASK_TIME_MAX).send().await?;
        let text = answer.error_for_status()?.text().await?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values: Vec<f64> = text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        anyhow::ensure!(!values.is_empty(), "{}: /metrics has no {name}", node.name);
        Ok(values.iter().sum())
    }

    pub async fn ask(&self, node: &Node, path: &str, query: &[(&str, &str)], time_max: Duration) -> Asked {
        self.read(self.client.get(node.url(path)).query(query).timeout(time_max)).await
    }

    /// `POST` of JSON to an operations path.
    pub async fn post(&self, node: &Node, path: &str, body: &Value, time_max: Duration) -> Asked {
        self.read(self.client.post(node.url(path)).json(body).timeout(time_max)).await
    }

    async fn read(&self, request: reqwest::RequestBuilder) -> Asked {
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Asked::Refused(cause(&error)),
            Err(error) => return Asked::Silent(cause(&error)),
        };
        let status = answer.status();
        match answer.text().await {
            Ok(text) if status.is_success() => match serde_json::from_str(&text) {
                Ok(value) => Asked::Answered(value),
                Err(error) => Asked::Problem(status.as_u16(), format!("not JSON ({error}): {}", shown(&text))),
            },
            Ok(text) => Asked::Problem(status.as_u16(), shown(&text)),
            Err(error) => Asked::Silent(cause(&error)),
        }
    }

    /// Sends events.
    pub async fn send(&self, node: &Node, body: Body, time_max: Duration) -> Sent {
        let mut request = self.client.post(node.url("/v1/events")).header("content-type", body.content_type).timeout(time_max);
        if body.gzip {
            request = request.header("content-encoding", "gzip");
        }
        let answer = match request.body(body.bytes).send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Sent::Refused(cause(&error)),
            Err(error) => return Sent::Unknown(cause(&error)),
        };
        let status = answer.status().as_u16();
        let text = match answer.text().await {
            Ok(text) => text,
            Err(error) => return Sent::Unknown(cause(&error)),
        };
        match (status, serde_json::from_str::<Value>(&text)) {
            (200 | 422, Ok(ack)) if ack["count"].is_u64() => Sent::Acked(ack),
            (429 | 507, _) => Sent::Refused(format!("{status}: {}", shown(&text))),
            _ => Sent::Unknown(format!("{status}: {}", shown(&text))),
        }
    }
}

/// The innermost cause tells most.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn shown(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(problem) if problem["code"].is_string() => {
            let code = problem["code"].as_str().unwrap_or_default();
            format!("{code}: {}", problem["detail"].as_str().unwrap_or_default())
        }
        _ => text.chars().take(SHOWN_CHARS_MAX).collect(),
    }
}

/// One number of an answer without groups.
///
/// # Errors
/// It is not there.
pub fn single(answer: &Value, label: &str) -> Result<f64> {
    let rows = answer["data"].as_array().context("data")?;
    ensure!(rows.len() == 1, "one row: {answer}");
    rows[0]["values"][label].as_f64().with_context(|| format!("{label} in {answer}"))
}
