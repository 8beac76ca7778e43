//! What every command that talks to a node shares: the address, the HTTP client, and errors with their exit codes.

pub mod sender;

use std::process::ExitCode;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use tallymesh_protocol::error::{ErrorCode, Problem};

/// How long a command waits for the connection itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Error bodies are read up to here, in bytes: what answers may not be a node at all.
const ERROR_BODY_BYTES_MAX: usize = 64 << 10;

/// The node that a command talks to.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Address of any node
    #[arg(long, env = "TALLYMESH_URL", value_name = "URL", default_value = "http://127.0.0.1:7070")]
    pub url: String,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Exit code 2: what was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3.
    #[error("no node answers at {url}: {detail}\nStart one with `tallymesh serve` or `tallymesh demo`, or name another with --url.")]
    Unreachable { url: String, detail: String },
    /// The node refused: exit code 2 when a parameter was wrong, else 1.
    #[error("{}", describe(.0))]
    Refused(Box<Problem>),
}

impl CliError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Refused(problem) => match problem.code {
                ErrorCode::BadParameter | ErrorCode::BadRange | ErrorCode::BadTimeZone => 2,
                _ => 1,
            },
        }
    }

    /// Whether the same request may succeed in a moment: the node was away or busy.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed(_) | Self::Usage(_) => false,
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => problem.code.is_retryable(),
        }
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

/// Prints the error of a finished command to stderr and gives the code to exit with.
pub fn finish(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn describe(problem: &Problem) -> String {
    let mut text = format!("{}: {}", problem.title, problem.detail);
    if let Some(guess) = problem.did_you_mean.as_ref().filter(|g| !problem.detail.contains(g.as_str())) {
        text.push_str(&format!("\nDid you mean `{guess}`?"));
    }
    if let Some(step) = problem.suggested_step.as_ref().filter(|s| !problem.detail.contains(s.as_str())) {
        text.push_str(&format!("\nTry --step {step}."));
    }
    if let Some(id) = problem.request_id.as_ref().filter(|_| problem.status >= 500) {
        text.push_str(&format!("\nRequest id {id}: the node's log has more."));
    }
    text
}

/// HTTP to one node.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    /// # Errors
    /// The address is not an `http://` URL.
    pub fn new(server: &ServerArgs) -> Result<Self, CliError> {
        let base = match server.url.split_once("://") {
            None => format!("http://{}", server.url),
            Some(("http", _)) => server.url.clone(),
            Some((scheme, _)) => return Err(CliError::Usage(format!("--url {}: {scheme} is not spoken here, only http", server.url))),
        };
        let base = base.trim_end_matches('/').to_owned();
        reqwest::Url::parse(&base).map_err(|e| CliError::Usage(format!("--url {}: {e}", server.url)))?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("tallymesh/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| CliError::Failed(format!("cannot set up HTTP: {e}")))?;
        Ok(Self { base, http })
    }

    /// Address without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request for `path` (with its leading `/`), to be given to [`Self::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends; any status below 400 is an answer.
    ///
    /// # Errors
    /// [`CliError::Unreachable`] when nothing answers, [`CliError::Refused`] for an error answer of a node.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|e| self.transport_error(&e))?;
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// GETs `path` and reads the answer as JSON.
    ///
    /// # Errors
    /// As [`Self::send`], and [`CliError::Failed`] when the body is not what a node of this version answers.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str, query: &[(String, String)]) -> Result<T, CliError> {
        let response = self.send(self.request(Method::GET, path).query(query)).await?;
        self.json(response).await
    }

    /// Reads an answer's body as JSON.
    ///
    /// # Errors
    /// As [`Self::get_json`].
    pub async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, CliError> {
        let bytes = response.bytes().await.map_err(|e| self.transport_error(&e))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| CliError::Failed(format!("{} does not answer like a Tallymesh node of this version: {e}", self.base)))
    }

    /// What a failure to send or receive means.
    pub fn transport_error(&self, error: &reqwest::Error) -> CliError {
        let mut detail = String::new();
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(e) = cause {
            detail = e.to_string();
            cause = e.source();
        }
        if error.is_timeout() {
            "it did not answer in time".clone_into(&mut detail);
        }
        CliError::Unreachable { url: self.base.clone(), detail }
    }

    /// What an answer with an error status says.
    pub async fn refusal(&self, mut response: Response) -> CliError {
        let status = response.status();
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > ERROR_BODY_BYTES_MAX {
                break;
            }
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => CliError::Refused(Box::new(problem)),
            Err(_) => CliError::Failed(format!("{} answered {status}, and not as a Tallymesh node does", self.base)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> ServerArgs {
        ServerArgs { url: url.to_owned() }
    }

    #[test]
    fn an_address_may_leave_out_the_scheme_and_end_in_a_slash() {
        assert_eq!(Client::new(&server("localhost:7070/")).expect("valid").base(), "http://localhost:7070");
        for url in ["https://example.org", "http://", "http://a b"] {
            assert_eq!(Client::new(&server(url)).expect_err(url).exit_code(), 2, "{url}");
        }
    }

    #[test]
    fn refusals_say_what_to_do_and_exit_by_kind() {
        let problem = Problem::new(ErrorCode::UnknownMetric, "no event or metric `page_veiw`").did_you_mean(Some("page_view".to_owned()));
        let error = CliError::Refused(Box::new(problem));
        assert_eq!(error.exit_code(), 1);
        assert_eq!(error.to_string(), "unknown metric: no event or metric `page_veiw`\nDid you mean `page_view`?");
        assert_eq!(CliError::Refused(Box::new(Problem::new(ErrorCode::BadTimeZone, "x"))).exit_code(), 2);
    }

    #[tokio::test]
    async fn a_port_without_a_node_is_unreachable() {
        // Bound and dropped: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let client = Client::new(&server(&format!("127.0.0.1:{port}"))).expect("valid");
        let error = client.get_json::<serde_json::Value>("/health", &[]).await.expect_err("nobody answers");
        assert_eq!(error.exit_code(), 3);
        assert!(error.is_retryable() && error.to_string().contains("tallymesh serve"), "{error}");
    }
}
